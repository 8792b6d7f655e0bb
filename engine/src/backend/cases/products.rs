//! Cases of products with matrices.

use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::GateFunction;

use super::{Case, case};
use crate::backend::{Activation, Backend, BackendError, Gated, Linear, unfused};

pub(super) fn linear(dtype: Dtype, rows: usize, inputs: usize, outputs: usize) -> Case {
    let case = case(
        format!("linear {dtype:?} {rows} × {inputs} → {outputs}"),
        vec![(dtype, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs)],
        |backend, weights, at| {
            backend.linear(Linear { x: at[0], weight: weights[0], out: at[1] })?;
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}

/// Rows that rounding to 8 bits keeps: integers, of which each block has one of the largest size.
fn write_integers(backend: &mut dyn Backend, x: Activation) -> Result<(), BackendError> {
    let mut values: Vec<f32> = backend.read(x)?.iter().map(|value| (value * 127.0).round()).collect();
    values.iter_mut().step_by(32).for_each(|value| *value = -127.0);
    backend.write(x, &values)
}

pub(super) fn linear_of_integers(dtype: Dtype, rows: usize, inputs: usize, outputs: usize) -> Case {
    let case = case(
        format!("linear of integers {dtype:?} {rows} × {inputs} → {outputs}"),
        vec![(dtype, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs)],
        |backend, weights, at| {
            write_integers(backend, at[0])?;
            backend.linear(Linear { x: at[0], weight: weights[0], out: at[1] })?;
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}

/// Rows of whole numbers, which rounding to 8 bits keeps, for weights in blocks.
pub(super) fn gated(
    function: GateFunction,
    is_fused: bool,
    [gate, up]: [Dtype; 2],
    rows: usize,
    inputs: usize,
    outputs: usize,
) -> Case {
    let is_whole = gate.block_elements() > 1;
    let case = case(
        format!("gated {function:?} {gate:?} {up:?} {rows} × {inputs} → {outputs}"),
        vec![(gate, outputs, inputs), (up, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs), (rows, outputs)],
        move |backend, weights, at| {
            if is_whole {
                write_integers(backend, at[0])?;
            }
            let (gate_weight, up_weight) = (weights[0], weights[1]);
            let [x, gate, up] = [at[0], at[1], at[2]];
            let args = Gated { function, x, gate_weight, up_weight, gate, up };
            if is_fused {
                backend.gated(args)?;
            } else {
                unfused::gated(backend, args)?;
            }
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}
