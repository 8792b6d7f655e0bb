//! Rows of a table that may be reordered.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;

use super::layout::gather_row;
use crate::backend::{
    BackendError, Embed, HostMemory,
    blocks::element,
    check::{WeightValues, disjoint},
};

pub(super) fn embed(memory: &mut HostMemory, args: Embed<'_>) -> Result<(), BackendError> {
    args.check()?;
    // Refuses a table that leaves the arena.
    WeightValues::of(&memory.weights, "embed", args.table)?;
    let table = args.table;
    let row = |source| BackendError::Row { operation: "embed", source };
    let row_bytes = table.dtype.row_bytes(table.columns as u64).map_err(row)?;
    #[expect(clippy::cast_possible_truncation, reason = "the table is in memory")]
    let mut stored = vec![0; row_bytes as usize];
    let matrix = &memory.weights.as_slice::<u8>()[table.offset_bytes..];
    let [out] = disjoint(memory.workspace.as_mut_slice(), "embed", [args.out])?;
    for (token, out) in args.tokens.iter().zip(out.chunks_exact_mut(table.columns)) {
        gather_row(table.dtype, matrix, table.rows, *token as usize, &mut stored);
        widen(table.dtype, &stored, out);
    }
    Ok(())
}

fn widen(dtype: Dtype, stored: &[u8], out: &mut [f32]) {
    let bits = || stored.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    match dtype {
        Dtype::F32 => {
            for (out, bytes) in out.iter_mut().zip(stored.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => out.iter_mut().zip(bits()).for_each(|(out, bits)| *out = f16::from_bits(bits).to_f32()),
        Dtype::Bf16 => {
            out.iter_mut().zip(bits()).for_each(|(out, bits)| *out = bf16::from_bits(bits).to_f32());
        }
        Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => {
            for (index, out) in out.iter_mut().enumerate() {
                *out = element(dtype, stored, index);
            }
        }
    }
}
