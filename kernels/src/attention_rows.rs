#![expect(unsafe_code, reason = "a launch")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::kv::{KvDtype, KvLayer, KvLayerArguments};
use crate::scoring::{Scoring, ScoringArguments};

/// From so many rows of a sequence on, its attention is better off here: the products of a warp have 16 queries at once, and with
/// fewer rows some of them would be nobody's where each query head has a key head of its own.
pub const ATTENTION_ROWS_MIN: u32 = 16;
const THREADS: u32 = 128;
/// Queries of a block: rows times the query heads of a key head.
const QUERIES: u64 = 64;

/// As [`Attention`](crate::Attention), for sequences of many rows. Queries, keys, values and the softmax's exponentials are
/// rounded to BF16 for the products, and added up in f32.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRows {
    /// From a multiple of 16 bytes.
    pub pool: KvLayer,
    /// `[rows, query_heads · head_dim]` f32
    pub queries: DeviceMemory,
    /// As `queries`, and another.
    pub out: DeviceMemory,
    /// `[sequence_count]` of [`RowsOfSequence::numbers`], in the order of their tiles
    pub sequences: DeviceMemory,
    /// `[table_entries]` u32, each below the pool's blocks.
    pub block_tables: DeviceMemory,
    /// Of all sequences of the step, others than these included.
    pub rows: u32,
    pub sequence_count: u32,
    /// Of all these sequences together, see [`attention_tiles`].
    pub tiles: u32,
    pub table_entries: u32,
    pub query_heads: u32,
    pub scoring: Scoring,
}

/// Where the rows of a sequence are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsOfSequence {
    /// Tiles of the sequences before it.
    pub first_tile: u32,
    pub first_row: u32,
    pub rows: u32,
    /// Of the first row's token; the row after it has the next.
    pub position: u32,
    /// Where its blocks begin in the table.
    pub first_block: u32,
}

impl RowsOfSequence {
    pub const NUMBERS: usize = 5;
    const BYTES: u64 = (Self::NUMBERS * size_of::<u32>()) as u64;

    /// As the kernel reads them.
    pub const fn numbers(self) -> [u32; Self::NUMBERS] {
        let Self { first_tile, first_row, rows, position, first_block } = self;
        [first_tile, first_row, rows, position, first_block]
    }
}

/// Blocks that compute so many rows of a sequence, for each key head; `None` beyond 32 bits.
pub fn attention_tiles(rows: u32, query_heads: u32, kv_heads: u32) -> Option<u32> {
    let group = u64::from(query_heads.checked_div(kv_heads)?);
    u32::try_from((u64::from(rows) * group).div_ceil(QUERIES)).ok()
}

#[repr(C)]
struct Arguments {
    pool: KvLayerArguments,
    queries: u64,
    out: u64,
    sequences: u64,
    block_tables: u64,
    scoring: ScoringArguments,
    sequence_count: u32,
    query_heads: u32,
}

/// The kernel whose heads are as large as these, or the next larger.
macro_rules! kernel_of_head {
    ($name:literal, $head_dim:expr) => {
        match $head_dim {
            0..=64 => concat!($name, "_64"),
            65..=96 => concat!($name, "_96"),
            97..=128 => concat!($name, "_128"),
            _ => concat!($name, "_256"),
        }
    };
}

impl AttentionRows {
    /// # Safety
    ///
    /// The sequences' rows are below `rows`, no two have one in common, and their tiles follow one another from 0 to `tiles`. The
    /// table's entries are of the pool's blocks, and there are enough of them from a sequence's first block on for its last
    /// position.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { pool, queries, out, sequences, block_tables, rows, sequence_count, .. } = *self;
        let Self { tiles, table_entries, query_heads, scoring, .. } = *self;
        let kernel = match pool.dtype {
            KvDtype::F32 => kernel_of_head!("attention_rows_f32", pool.head_dim),
            KvDtype::Bf16 => kernel_of_head!("attention_rows_bf16", pool.head_dim),
            KvDtype::Fp8 => kernel_of_head!("attention_rows_fp8", pool.head_dim),
        };
        if pool.kv_heads == 0 || query_heads % pool.kv_heads != 0 {
            let (got, wanted) = (query_heads as usize, "a multiple of the key heads");
            return Err(DeviceError::Shape { kernel, what: "query heads", got, wanted });
        }
        let elements = u64::from(rows) * u64::from(query_heads) * u64::from(pool.head_dim);
        let arguments = Arguments {
            pool: pool.aligned_arguments(kernel)?,
            queries: queries.of_f32(kernel, "queries", elements)?,
            out: out.of_f32(kernel, "out", elements)?,
            sequences: sequences.holding(
                kernel,
                "sequences",
                sequence_count.into(),
                RowsOfSequence::BYTES,
            )?,
            block_tables: block_tables.of_u32(kernel, "block tables", table_entries.into())?,
            scoring: scoring.arguments(kernel, query_heads)?,
            sequence_count,
            query_heads,
        };
        let shape = LaunchShape { grid: [tiles, pool.kv_heads, 1], threads: THREADS };
        // SAFETY: every operand is as long as its shape says, the caller vouches for the sequences and the table, and a head of a
        // row of `out` is written by one block.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

#[cfg(test)]
mod tests {
    use super::attention_tiles;

    #[test]
    fn tiles_have_64_queries_of_a_key_head() {
        let tiles = [(16, 1, 1), (64, 8, 8), (65, 8, 8), (16, 32, 8), (17, 32, 8), (1, 71, 1)]
            .map(|(rows, query_heads, kv_heads)| attention_tiles(rows, query_heads, kv_heads));
        assert_eq!(tiles, [1, 1, 2, 1, 2, 2].map(Some));
        assert_eq!([attention_tiles(1, 1, 0), attention_tiles(u32::MAX, 128, 1)], [None, None]);
    }
}
