//! Operations that move or combine values one by one; the fast backend uses them too, as nothing is left to gain.

use crate::backend::{
    Activation, Add, AddBias, BackendError, Embed, GatherRows, HostMemory, Rope,
    check::{WeightValues, disjoint},
};

pub(in crate::backend) fn write(
    memory: &mut HostMemory,
    to: Activation,
    values: &[f32],
) -> Result<(), BackendError> {
    let [out] = disjoint(memory.workspace.as_mut_slice(), "write", [to])?;
    if out.len() != values.len() {
        return Err(BackendError::Shape {
            operation: "write",
            what: "values",
            got: values.len(),
            wanted: out.len(),
        });
    }
    out.copy_from_slice(values);
    Ok(())
}

pub(in crate::backend) fn read_pair(
    memory: &HostMemory,
    [first, second]: [Activation; 2],
) -> Result<[&[f32]; 2], BackendError> {
    let workspace = memory.workspace.as_slice::<f32>();
    let outside = BackendError::Overlap { operation: "read", elements: workspace.len() };
    match (workspace.get(first.range()), workspace.get(second.range())) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => Err(outside),
    }
}

pub(in crate::backend) fn embed(memory: &mut HostMemory, args: Embed<'_>) -> Result<(), BackendError> {
    args.check()?;
    let table = WeightValues::of(&memory.weights, "embed", args.table)?;
    let [out] = disjoint(memory.workspace.as_mut_slice(), "embed", [args.out])?;
    let width = args.table.columns;
    for (token, out) in args.tokens.iter().zip(out.chunks_exact_mut(width)) {
        let first = *token as usize * width;
        for (column, out) in out.iter_mut().enumerate() {
            *out = table.at(first + column);
        }
    }
    Ok(())
}

pub(in crate::backend) fn gather_rows(
    memory: &mut HostMemory,
    args: GatherRows<'_>,
) -> Result<(), BackendError> {
    args.check()?;
    let [x, out] = disjoint(memory.workspace.as_mut_slice(), "gather_rows", [args.x, args.out])?;
    let width = args.x.columns;
    for (row, out) in args.rows.iter().zip(out.chunks_exact_mut(width)) {
        let first = *row as usize * width;
        out.copy_from_slice(&x[first..first + width]);
    }
    Ok(())
}

pub(in crate::backend) fn add(memory: &mut HostMemory, args: Add) -> Result<(), BackendError> {
    args.check()?;
    let [x, delta] = disjoint(memory.workspace.as_mut_slice(), "add", [args.x, args.delta])?;
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += *delta;
    }
    Ok(())
}

pub(in crate::backend) fn add_bias(memory: &mut HostMemory, args: AddBias) -> Result<(), BackendError> {
    args.check()?;
    let bias = WeightValues::of(&memory.weights, "add_bias", args.bias)?;
    let [x] = disjoint(memory.workspace.as_mut_slice(), "add_bias", [args.x])?;
    for row in x.chunks_exact_mut(args.x.columns) {
        for (column, x) in row.iter_mut().enumerate() {
            *x += bias.at(column);
        }
    }
    Ok(())
}

pub(in crate::backend) fn rope(memory: &mut HostMemory, args: Rope) -> Result<(), BackendError> {
    args.check()?;
    let [x, rotations] = disjoint(memory.workspace.as_mut_slice(), "rope", [args.x, args.rotations])?;
    let head_dim = args.rotations.columns;
    for (row, rotation) in x.chunks_exact_mut(args.x.columns).zip(rotations.chunks_exact(head_dim)) {
        let (cosines, sines) = rotation.split_at(head_dim / 2);
        for head in row.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(head_dim / 2);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
    Ok(())
}
