//! Rows on their way from file to arena.

use sparkherd_checkpoint::RowOrder;

use super::PlacedTensor;

/// Bytes that must be at hand together to put a tensor's rows in order; `None` where they stay as they are.
pub(super) fn group_bytes(tensor: &PlacedTensor) -> Option<usize> {
    match tensor.row_order {
        RowOrder::AsComputed => None,
        RowOrder::PairsAdjacent { head_dim } => Some((head_dim as usize * row_bytes(tensor)).max(1)),
    }
}

/// Copies whole groups in the order of the computation. A block format's blocks never cross a row, so rows move as bytes.
pub(super) fn place(tensor: &PlacedTensor, from: &[u8], to: &mut [u8]) {
    let Some(group_bytes) = group_bytes(tensor) else {
        to.copy_from_slice(from);
        return;
    };
    let row_bytes = row_bytes(tensor);
    for (from, to) in from.chunks(group_bytes).zip(to.chunks_mut(group_bytes)) {
        let (first, second) = to.split_at_mut(group_bytes / 2);
        let halves = first.chunks_exact_mut(row_bytes).zip(second.chunks_exact_mut(row_bytes));
        for ((first, second), pair) in halves.zip(from.chunks_exact(2 * row_bytes)) {
            let (even, odd) = pair.split_at(row_bytes);
            first.copy_from_slice(even);
            second.copy_from_slice(odd);
        }
    }
}

fn row_bytes(tensor: &PlacedTensor) -> usize {
    tensor.bytes / tensor.weight.rows.max(1)
}
