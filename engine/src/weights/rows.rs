//! Rows on their way from file to arena: put in order, and converted where the arena keeps another type.

use half::{bf16, f16};
use sparkherd_checkpoint::{Dtype, RowOrder};

use super::PlacedTensor;
use crate::backend::blocks::{BLOCK_ELEMENTS, Q8_0_BYTES, quantize_q8_0};

/// Rows that must be at hand together, and their bytes on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowGroup {
    pub(super) file_bytes: usize,
    pub(super) arena_bytes: usize,
}

/// `None` where bytes are copied as they are.
pub(super) fn group(tensor: &PlacedTensor) -> Option<RowGroup> {
    let rows = match tensor.row_order {
        RowOrder::PairsAdjacent { head_dim } => head_dim as usize,
        RowOrder::AsComputed if tensor.stored == tensor.weight.dtype => return None,
        RowOrder::AsComputed => 1,
    };
    let row_bytes = |bytes: usize| bytes / tensor.weight.rows.max(1);
    let (file_bytes, arena_bytes) = (rows * row_bytes(tensor.file_bytes), rows * row_bytes(tensor.bytes));
    Some(RowGroup { file_bytes: file_bytes.max(1), arena_bytes: arena_bytes.max(1) })
}

/// Places whole groups. Blocks never cross a row, so rows of block formats move as bytes.
pub(super) fn place(tensor: &PlacedTensor, from: &[u8], to: &mut [u8]) {
    let Some(RowGroup { file_bytes, arena_bytes }) = group(tensor) else {
        to.copy_from_slice(from);
        return;
    };
    for (from, to) in from.chunks(file_bytes).zip(to.chunks_mut(arena_bytes)) {
        match tensor.row_order {
            RowOrder::AsComputed => convert(tensor, from, to),
            RowOrder::PairsAdjacent { head_dim } => {
                let rows = head_dim as usize;
                let (file_row, arena_row) = (file_bytes / rows, arena_bytes / rows);
                let (first, second) = to.split_at_mut(arena_bytes / 2);
                let halves = first.chunks_exact_mut(arena_row).zip(second.chunks_exact_mut(arena_row));
                for ((first, second), pair) in halves.zip(from.chunks_exact(2 * file_row)) {
                    let (even, odd) = pair.split_at(file_row);
                    convert(tensor, even, first);
                    convert(tensor, odd, second);
                }
            }
        }
    }
}

/// One row, or several in the same order.
fn convert(tensor: &PlacedTensor, from: &[u8], to: &mut [u8]) {
    match tensor.stored {
        stored if stored == tensor.weight.dtype => to.copy_from_slice(from),
        Dtype::F32 => quantize(from, to, f32::from_le_bytes),
        Dtype::F16 => quantize(from, to, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::Bf16 => quantize(from, to, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        // No requantising begins from these (`Requantize::dtype`).
        Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => {}
    }
}

/// To Q8_0, block by block; nothing is ever held twice but one block.
fn quantize<const N: usize>(from: &[u8], to: &mut [u8], widen: impl Fn([u8; N]) -> f32) {
    let blocks = to.as_chunks_mut::<Q8_0_BYTES>().0;
    for (values, block) in from.chunks_exact(N * BLOCK_ELEMENTS).zip(blocks) {
        let mut wide = [0.0; BLOCK_ELEMENTS];
        for (wide, bytes) in wide.iter_mut().zip(values.as_chunks().0) {
            *wide = widen(*bytes);
        }
        *block = quantize_q8_0(&wide);
    }
}
