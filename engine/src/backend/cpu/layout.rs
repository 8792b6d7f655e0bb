//! Where the fast backend keeps the elements of a matrix: reordered within the weight's own bytes at load, so that sixteen
//! neighbouring outputs lie side by side and every kernel reads a weight front to back.
//!
//! Outputs are taken in groups of sixteen; the last group is as wide as what is left. Of a group of `t` outputs:
//!
//! ```text
//! F32, F16   [column][t]
//! BF16       [column / 2][t][2]; a last odd column is [t]. Both halves of a 32-bit lane belong to one output.
//! Q8_0       [block]( [t] scales, [8][t][4] numbers )
//! Q4_0       [block]( [t] scales, [4][t][4] bytes: byte 4 j + i of a block is byte i of place j )
//! Q4_K, Q6_K as stored
//! ```
//!
//! A matrix of one row is the same in both orders.

use sparkherd_checkpoint::Dtype;

use super::{pool::Pool, shared_slice::SharedSlice, simd::LANES};
use crate::backend::{
    BackendError, Weight,
    arena::Arena,
    blocks::{BLOCK_ELEMENTS, Q4_0_BYTES, Q8_0_BYTES},
};

/// Outputs of a whole group.
pub(super) const GROUP: usize = LANES;
/// Bytes of a block's scale.
pub(super) const SCALE_BYTES: usize = 2;
/// Bytes of one output's numbers that lie together.
pub(super) const RUN_BYTES: usize = 4;

/// Reorders one weight in place, groups in parallel.
pub(super) fn reorder(pool: &mut Pool, arena: &mut Arena, weight: Weight) -> Result<(), BackendError> {
    let order = match weight.dtype {
        Dtype::F32 => Order::Elements(4),
        Dtype::F16 => Order::Elements(2),
        Dtype::Bf16 => Order::Pairs,
        Dtype::Q8_0 => Order::Blocks(Q8_0_BYTES),
        Dtype::Q4_0 => Order::Blocks(Q4_0_BYTES),
        Dtype::Q4K | Dtype::Q6K => return Ok(()),
    };
    let row_bytes = row_bytes(weight)?;
    let bytes = arena.as_mut_slice::<u8>();
    let arena_bytes = bytes.len();
    let matrix = bytes
        .get_mut(weight.offset_bytes..)
        .and_then(|bytes| bytes.get_mut(..weight.rows * row_bytes))
        .ok_or(BackendError::Weight {
            operation: "prepare",
            rows: weight.rows,
            columns: weight.columns,
            offset_bytes: weight.offset_bytes,
            arena_bytes,
        })?;
    let (rows, matrix) = (weight.rows, SharedSlice::new(matrix));
    pool.run(rows.div_ceil(GROUP), &|group| {
        let first = group * GROUP;
        let last = rows.min(first + GROUP);
        #[expect(unsafe_code, reason = "pieces reorder disjoint rows of one matrix")]
        // SAFETY: a group's rows belong to one piece.
        let group = unsafe { matrix.range(first * row_bytes..last * row_bytes) };
        let stored = group.to_vec();
        order.interleave(&stored, group, last - first);
    })
}

fn row_bytes(weight: Weight) -> Result<usize, BackendError> {
    let row = |source| BackendError::Row { operation: "prepare", source };
    let bytes = weight.dtype.row_bytes(weight.columns as u64).map_err(row)?;
    // More than an address holds is more than the arena: the range check refuses it.
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX / weight.rows.max(1)))
}

#[derive(Clone, Copy)]
enum Order {
    /// Of so many bytes.
    Elements(usize),
    /// Of BF16.
    Pairs,
    /// Of so many bytes.
    Blocks(usize),
}

impl Order {
    /// From `[width]` rows to the group's order.
    fn interleave(self, from: &[u8], to: &mut [u8], width: usize) {
        let row_bytes = from.len() / width;
        for (row, from) in from.chunks_exact(row_bytes).enumerate() {
            self.each_run(row_bytes, width, row, |run, at| {
                to[at..at + run.len()].copy_from_slice(&from[run]);
            });
        }
    }

    /// Calls with each run of a row's bytes and its place in the group.
    fn each_run(
        self,
        row_bytes: usize,
        width: usize,
        row: usize,
        mut each: impl FnMut(std::ops::Range<usize>, usize),
    ) {
        match self {
            Self::Elements(bytes) => {
                for start in (0..row_bytes).step_by(bytes) {
                    each(start..start + bytes, start * width + row * bytes);
                }
            }
            Self::Pairs => {
                for start in (0..row_bytes).step_by(4) {
                    let end = row_bytes.min(start + 4);
                    each(start..end, start * width + row * (end - start));
                }
            }
            Self::Blocks(bytes) => {
                for start in (0..row_bytes).step_by(bytes) {
                    each(start..start + SCALE_BYTES, start * width + row * SCALE_BYTES);
                    for run in (start + SCALE_BYTES..start + bytes).step_by(RUN_BYTES) {
                        each(run..run + RUN_BYTES, run * width + row * RUN_BYTES);
                    }
                }
            }
        }
    }
}

/// Bytes of a row as it was stored, from a reordered matrix.
pub(super) fn gather_row(dtype: Dtype, matrix: &[u8], rows: usize, row: usize, stored: &mut [u8]) {
    let row_bytes = stored.len();
    let order = match dtype {
        Dtype::F32 => Order::Elements(4),
        Dtype::F16 => Order::Elements(2),
        Dtype::Bf16 => Order::Pairs,
        Dtype::Q8_0 => Order::Blocks(Q8_0_BYTES),
        Dtype::Q4_0 => Order::Blocks(Q4_0_BYTES),
        Dtype::Q4K | Dtype::Q6K => {
            stored.copy_from_slice(&matrix[row * row_bytes..][..row_bytes]);
            return;
        }
    };
    let first = row / GROUP * GROUP;
    let width = GROUP.min(rows - first);
    let group = &matrix[first * row_bytes..][..width * row_bytes];
    order.each_run(row_bytes, width, row - first, |run, at| {
        let bytes = run.len();
        stored[run].copy_from_slice(&group[at..at + bytes]);
    });
}

const _: () = assert!(Q8_0_BYTES == SCALE_BYTES + BLOCK_ELEMENTS);
const _: () = assert!(Q4_0_BYTES == SCALE_BYTES + BLOCK_ELEMENTS / 2);
