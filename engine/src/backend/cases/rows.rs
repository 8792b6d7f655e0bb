//! Cases of what goes row by row.

use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::GateFunction;

use super::{Case, case};
use crate::backend::{Add, AddBias, AddRmsNorm, Embed, GateMultiply, GatherRows, HeadRmsNorm, RmsNorm, Rope};

pub(super) fn rms_norm(dtype: Dtype, rows: usize, width: usize) -> Case {
    case(
        format!("rms_norm {dtype:?} {rows} × {width}"),
        vec![(dtype, 1, width)],
        vec![(rows, width), (rows, width)],
        |backend, weights, at| {
            backend.rms_norm(RmsNorm { x: at[0], weight: weights[0], epsilon: 1e-5, out: at[1] })?;
            Ok(vec![at[1]])
        },
    )
}

/// So small that the mean is mostly epsilon.
pub(super) fn rms_norm_of_small() -> Case {
    case(
        "rms_norm of small values".to_owned(),
        vec![(Dtype::F32, 1, 100)],
        vec![(3, 100), (3, 100)],
        |backend, weights, at| {
            let small: Vec<f32> = backend.read(at[0])?.iter().map(|value| value * 1e-3).collect();
            backend.write(at[0], &small)?;
            backend.rms_norm(RmsNorm { x: at[0], weight: weights[0], epsilon: 1e-5, out: at[1] })?;
            Ok(vec![at[1]])
        },
    )
}

pub(super) fn add_rms_norm(dtype: Dtype, rows: usize, width: usize) -> Case {
    case(
        format!("add_rms_norm {dtype:?} {rows} × {width}"),
        vec![(dtype, 1, width)],
        vec![(rows, width), (rows, width)],
        |backend, weights, at| {
            let [residual, x] = [at[0], at[1]];
            backend.add_rms_norm(AddRmsNorm { residual, x, weight: weights[0], epsilon: 1e-6 })?;
            Ok(vec![residual, x])
        },
    )
}

pub(super) fn head_rms_norm(dtype: Dtype, heads: usize, head_dim: usize) -> Case {
    case(
        format!("head_rms_norm {dtype:?} {heads} × {head_dim}"),
        vec![(dtype, 1, head_dim)],
        vec![(9, heads * head_dim)],
        |backend, weights, at| {
            backend.head_rms_norm(HeadRmsNorm { x: at[0], weight: weights[0], epsilon: 1e-6 })?;
            Ok(vec![at[0]])
        },
    )
}

pub(super) fn add_bias(dtype: Dtype) -> Case {
    case(format!("add_bias {dtype:?}"), vec![(dtype, 1, 21)], vec![(3, 21)], |backend, weights, at| {
        backend.add_bias(AddBias { x: at[0], bias: weights[0] })?;
        Ok(vec![at[0]])
    })
}

pub(super) fn gate_multiply(function: GateFunction, rows: usize, width: usize) -> Case {
    case(
        format!("gate_multiply {function:?} {rows} × {width}"),
        vec![],
        vec![(rows, width), (rows, width)],
        move |backend, _, at| {
            // Far into both tails: the values are in −1 to 1.
            let wide: Vec<f32> = backend.read(at[0])?.iter().map(|value| value * 30.0).collect();
            backend.write(at[0], &wide)?;
            backend.gate_multiply(GateMultiply { function, gate: at[0], up: at[1] })?;
            Ok(vec![at[0]])
        },
    )
}

pub(super) fn embed(dtype: Dtype, width: usize) -> Case {
    case(format!("embed {dtype:?}"), vec![(dtype, 9, width)], vec![(3, width)], |backend, weights, at| {
        backend.embed(Embed { tokens: &[8, 0, 8], table: weights[0], out: at[0] })?;
        Ok(vec![at[0]])
    })
}

pub(super) fn gather_and_add() -> Case {
    case("gather_rows, add".to_owned(), vec![], vec![(5, 11), (2, 11), (2, 11)], |backend, _, at| {
        backend.gather_rows(GatherRows { x: at[0], rows: &[4, 1], out: at[1] })?;
        backend.add(Add { x: at[1], delta: at[2] })?;
        Ok(vec![at[1]])
    })
}

pub(super) fn rope(heads: usize, head_dim: usize) -> Case {
    case(
        format!("rope {heads} × {head_dim}"),
        vec![],
        vec![(4, heads * head_dim), (4, head_dim)],
        |backend, _, at| {
            backend.rope(Rope { x: at[0], rotations: at[1] })?;
            Ok(vec![at[0]])
        },
    )
}
