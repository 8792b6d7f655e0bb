#![expect(unsafe_code, reason = "launches")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};

/// The largest head that attention keeps in registers.
pub const HEAD_DIM_MAX: u32 = 256;
const BLOCK_TOKENS: u64 = 16;
const THREADS: u32 = 256;
/// Query heads that one block computes.
const HEADS: u32 = 4;

/// What keys and values are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtype {
    F32,
    Bf16,
}

/// Keys and values of one layer: `[blocks][keys, values][kv_heads][16 tokens][head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct KvLayer {
    pub elements: DeviceMemory,
    pub dtype: KvDtype,
    pub blocks: u32,
    pub kv_heads: u32,
    /// At most [`HEAD_DIM_MAX`].
    pub head_dim: u32,
}

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

/// `out[r] = softmax(scale · q · Kᵀ) · V` over positions 0 to the row's own.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
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
    pub scale: f32,
}

#[repr(C)]
struct KvLayerArguments {
    elements: u64,
    kv_heads: u32,
    head_dim: u32,
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
    query_heads: u32,
    scale: f32,
}

impl KvDtype {
    const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

impl KvLayer {
    /// Bytes of keys and values of so many blocks.
    pub const fn bytes(dtype: KvDtype, blocks: u32, kv_heads: u32, head_dim: u32) -> Option<u64> {
        match (blocks as u64).checked_mul(2 * BLOCK_TOKENS) {
            Some(rows) => match rows.checked_mul(kv_heads as u64 * head_dim as u64) {
                Some(elements) => elements.checked_mul(dtype.bytes()),
                None => None,
            },
            None => None,
        }
    }

    fn arguments(&self, kernel: &'static str) -> Result<KvLayerArguments, DeviceError> {
        let Self { elements, dtype, blocks, kv_heads, head_dim } = *self;
        if head_dim == 0 || head_dim > HEAD_DIM_MAX {
            let got = head_dim as usize;
            return Err(DeviceError::Shape { kernel, what: "size of a head", got, wanted: "1 to 256" });
        }
        let bytes = Self::bytes(dtype, blocks, kv_heads, head_dim).ok_or(DeviceError::TooLarge { kernel })?;
        Ok(KvLayerArguments { elements: elements.holding(kernel, "pool", bytes, 1)?, kv_heads, head_dim })
    }
}

impl KvWrite {
    /// # Safety
    ///
    /// The slots are of the pool's blocks.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { pool, keys, values, slots, rows } = *self;
        let kernel = match pool.dtype {
            KvDtype::F32 => "kv_write_f32",
            KvDtype::Bf16 => "kv_write_bf16",
        };
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
    /// The table's entries are of the pool's blocks, and has enough of them from a row's first block on for its position.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
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
            scale,
        } = *self;
        let kernel = match pool.dtype {
            KvDtype::F32 => "attention_f32",
            KvDtype::Bf16 => "attention_bf16",
        };
        if pool.kv_heads == 0 || query_heads % pool.kv_heads != 0 {
            let got = query_heads as usize;
            return Err(DeviceError::Shape {
                kernel,
                what: "query heads",
                got,
                wanted: "a multiple of the key heads",
            });
        }
        let elements = u64::from(rows) * u64::from(query_heads) * u64::from(pool.head_dim);
        let arguments = AttentionArguments {
            pool: pool.arguments(kernel)?,
            queries: queries.of_f32(kernel, "queries", elements)?,
            out: out.of_f32(kernel, "out", elements)?,
            positions: positions.of_u32(kernel, "positions", rows.into())?,
            first_blocks: first_blocks.of_u32(kernel, "first blocks", rows.into())?,
            block_tables: block_tables.of_u32(kernel, "block tables", table_entries.into())?,
            query_heads,
            scale,
        };
        let parts = (query_heads / pool.kv_heads).div_ceil(HEADS);
        let shape = LaunchShape { grid: [rows, pool.kv_heads, parts], threads: THREADS };
        // SAFETY: every operand is as long as its shape says, the caller vouches for the table, and a head of a row of `out` is
        // written by one block.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}
