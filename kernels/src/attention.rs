#![expect(unsafe_code, reason = "launches")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::kv::{KvLayer, KvLayerArguments, kernel_of_pool};
use crate::scoring::{Scoring, ScoringArguments};

const THREADS: u32 = 256;
/// The largest score and the sum of exponentials, beside a head's values.
const PARTIAL_SUMS: u64 = 2;
/// Query heads that one block computes.
const HEADS: u32 = 4;

/// Rounds keys and values to the pool's type and stores them.
#[derive(Clone, Copy, Debug)]
pub struct KvWrite {
    pub pool: KvLayer,
    /// `[rows, kv_heads · head_dim]` f32
    pub keys: DeviceMemory,
    /// As `keys`.
    pub values: DeviceMemory,
    /// `[rows]` u32: block · 16 + place in the block, each another.
    pub slots: DeviceMemory,
    pub rows: u32,
}

/// `out[r] = softmax(scale · q · Kᵀ) · V` over positions 0 to the row's own, or as [`Scoring`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// From a multiple of 16 bytes.
    pub pool: KvLayer,
    /// `[rows, query_heads · head_dim]` f32
    pub queries: DeviceMemory,
    /// As `queries`, and another.
    pub out: DeviceMemory,
    /// `[rows]` u32
    pub positions: DeviceMemory,
    /// `[rows]` u32: where the blocks of a row's sequence begin in the table.
    pub first_blocks: DeviceMemory,
    /// `[table_entries]` u32, each below the pool's blocks.
    pub block_tables: DeviceMemory,
    pub rows: u32,
    pub table_entries: u32,
    pub query_heads: u32,
    pub scoring: Scoring,
    /// Where there are few rows: positions are shared by several blocks.
    pub split: Option<AttentionSplit>,
}

/// How the positions of a row are shared.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSplit {
    /// `[rows, query_heads, splits, head_dim + 2]` f32: what each block finds.
    pub partial: DeviceMemory,
    /// Of each block, at least; a longer row has longer ones.
    pub run_min: u32,
    /// Blocks for each row.
    pub splits: u32,
}

#[repr(C)]
struct KvWriteArguments {
    pool: KvLayerArguments,
    keys: u64,
    values: u64,
    slots: u64,
}

#[repr(C)]
struct AttentionArguments {
    pool: KvLayerArguments,
    queries: u64,
    out: u64,
    positions: u64,
    first_blocks: u64,
    block_tables: u64,
    partial: u64,
    scoring: ScoringArguments,
    query_heads: u32,
    parts: u32,
    splits: u32,
    run_min: u32,
}

#[repr(C)]
struct CombineArguments {
    partial: u64,
    out: u64,
    positions: u64,
    scoring: ScoringArguments,
    query_heads: u32,
    head_dim: u32,
    splits: u32,
    run_min: u32,
}

impl KvWrite {
    /// # Safety
    ///
    /// The slots are of the pool's blocks, and each is another.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { pool, keys, values, slots, rows } = *self;
        let kernel = kernel_of_pool!("kv_write", pool.dtype);
        let elements = u64::from(rows) * u64::from(pool.kv_heads) * u64::from(pool.head_dim);
        let arguments = KvWriteArguments {
            pool: pool.arguments(kernel)?,
            keys: keys.of_f32(kernel, "keys", elements)?,
            values: values.of_f32(kernel, "values", elements)?,
            slots: slots.of_u32(kernel, "slots", rows.into())?,
        };
        let shape = LaunchShape { grid: [rows, 1, 1], threads: THREADS };
        // SAFETY: every operand is as long as its shape says, the caller vouches for the slots, and a slot is one block's.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}

impl Attention {
    /// # Safety
    ///
    /// The table's entries are of the pool's blocks, and there are enough of them from a row's first block on
    /// for its position.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { pool, out, positions, rows, query_heads, scoring, split, .. } = *self;
        let kernel = kernel_of_pool!("attention", pool.dtype);
        if pool.kv_heads == 0 || query_heads % pool.kv_heads != 0 {
            let (got, wanted) = (query_heads as usize, "a multiple of the key heads");
            return Err(DeviceError::Shape { kernel, what: "query heads", got, wanted });
        }
        let arguments = self.arguments(kernel)?;
        let row_parts = rows.checked_mul(arguments.parts).ok_or(DeviceError::TooLarge { kernel })?;
        let grid = [row_parts, pool.kv_heads, arguments.splits];
        // SAFETY: every operand is as long as its shape says, the caller vouches for the table, and a head of a row of `out`, or of
        // a split, is written by one block.
        unsafe { device.launch(kernel, LaunchShape { grid, threads: THREADS }, bytes_of(&arguments)) }?;
        if split.is_none() {
            return Ok(());
        }
        let combine = CombineArguments {
            partial: arguments.partial,
            out: out.address(),
            positions: positions.address(),
            scoring: scoring.arguments(kernel, query_heads)?,
            query_heads,
            head_dim: pool.head_dim,
            splits: arguments.splits,
            run_min: arguments.run_min,
        };
        let shape = LaunchShape { grid: [rows, query_heads, 1], threads: THREADS };
        // SAFETY: the same operands, checked above.
        unsafe { device.launch("attention_combine", shape, bytes_of(&combine)) }
    }

    fn arguments(&self, kernel: &'static str) -> Result<AttentionArguments, DeviceError> {
        let Self {
            pool,
            queries,
            out,
            positions,
            first_blocks,
            block_tables,
            rows,
            table_entries,
            query_heads,
            scoring,
            split,
        } = *self;
        let (rows, heads, head_dim) = (u64::from(rows), u64::from(query_heads), u64::from(pool.head_dim));
        let elements = rows * heads * head_dim;
        let (partial, splits, run_min) = match split {
            None => (0, 1, 0),
            Some(AttentionSplit { run_min: 0, .. }) => {
                return Err(DeviceError::Shape {
                    kernel,
                    what: "positions of a run",
                    got: 0,
                    wanted: "some",
                });
            }
            Some(AttentionSplit { splits: 0 | 1, .. }) => {
                // What one block finds it writes where nothing has to be combined.
                return Err(DeviceError::Shape { kernel, what: "splits", got: 1, wanted: "2 or more" });
            }
            Some(AttentionSplit { partial, run_min, splits }) => {
                let elements = rows * heads * u64::from(splits) * (head_dim + PARTIAL_SUMS);
                (partial.of_f32(kernel, "partial", elements)?, splits, run_min)
            }
        };
        Ok(AttentionArguments {
            pool: pool.aligned_arguments(kernel)?,
            queries: queries.of_f32(kernel, "queries", elements)?,
            out: out.of_f32(kernel, "out", elements)?,
            positions: positions.of_u32(kernel, "positions", rows)?,
            first_blocks: first_blocks.of_u32(kernel, "first blocks", rows)?,
            block_tables: block_tables.of_u32(kernel, "block tables", table_entries.into())?,
            partial,
            scoring: scoring.arguments(kernel, query_heads)?,
            query_heads,
            parts: (query_heads / pool.kv_heads.max(1)).div_ceil(HEADS),
            splits,
            run_min,
        })
    }
}
