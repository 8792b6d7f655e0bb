#![expect(unsafe_code, reason = "a launch")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::format::{Vector, VectorArguments};
use crate::kv::{KvLayer, KvLayerArguments, kernel_of_pool};

/// Heads of a block, of one row: one for each of its warps.
const WARPS: u32 = 8;
const WARP: u32 = 32;

/// Products with the query, key and value matrices: biases added, heads normalised and turned, keys and values stored.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs {
    pub pool: KvLayer,
    /// `[rows, query_heads · head_dim]` f32, in place
    pub queries: DeviceMemory,
    /// `[rows, kv_heads · head_dim]` f32
    pub keys: DeviceMemory,
    /// As `keys`.
    pub values: DeviceMemory,
    /// `[rows, head_dim]` f32: the cosines of a row's position, then the sines.
    pub rotations: DeviceMemory,
    /// `[rows]` u32: block · 16 + place in the block, each another.
    pub slots: DeviceMemory,
    /// `[query_heads · head_dim]`
    pub query_bias: Option<Vector>,
    /// `[kv_heads · head_dim]`
    pub key_bias: Option<Vector>,
    /// As `key_bias`.
    pub value_bias: Option<Vector>,
    /// `[head_dim]`
    pub query_norm: Option<Vector>,
    /// `[head_dim]`
    pub key_norm: Option<Vector>,
    /// Of both norms.
    pub epsilon: f32,
    pub rows: u32,
    pub query_heads: u32,
}

#[repr(C)]
struct Arguments {
    pool: KvLayerArguments,
    queries: u64,
    keys: u64,
    values: u64,
    rotations: u64,
    slots: u64,
    query_bias: VectorArguments,
    key_bias: VectorArguments,
    value_bias: VectorArguments,
    query_norm: VectorArguments,
    key_norm: VectorArguments,
    query_heads: u32,
    epsilon: f32,
}

impl AttentionInputs {
    /// # Safety
    ///
    /// The slots are of the pool's blocks, and each is another. `queries` is apart from the other operands.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let Self { pool, rows, query_heads, .. } = *self;
        let kernel = kernel_of_pool!("attention_inputs", pool.dtype);
        if pool.head_dim % 2 == 1 {
            let got = pool.head_dim as usize;
            return Err(DeviceError::Shape { kernel, what: "size of a head", got, wanted: "even" });
        }
        let heads = u64::from(query_heads) + 2 * u64::from(pool.kv_heads);
        let heads = u32::try_from(heads).map_err(|_| DeviceError::TooLarge { kernel })?;
        let arguments = self.arguments(kernel)?;
        let shape = LaunchShape { grid: [rows, heads.div_ceil(WARPS), 1], threads: WARPS * WARP };
        // SAFETY: every operand is as long as its shape says; a head of queries is read and written by one warp, the caller vouches
        // for the slots, and a head of a slot is one warp's.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }

    fn arguments(&self, kernel: &'static str) -> Result<Arguments, DeviceError> {
        let Self { pool, queries, keys, values, rotations, slots, rows, query_heads, epsilon, .. } = *self;
        let Self { query_bias, key_bias, value_bias, query_norm, key_norm, .. } = *self;
        let width = |heads: u32| heads.checked_mul(pool.head_dim).ok_or(DeviceError::TooLarge { kernel });
        let (query_width, kv_width) = (width(query_heads)?, width(pool.kv_heads)?);
        let elements = |width: u32| u64::from(rows) * u64::from(width);
        let vector = |operand, vector, columns| VectorArguments::new(kernel, operand, vector, columns);
        Ok(Arguments {
            pool: pool.arguments(kernel)?,
            queries: queries.of_f32(kernel, "queries", elements(query_width))?,
            keys: keys.of_f32(kernel, "keys", elements(kv_width))?,
            values: values.of_f32(kernel, "values", elements(kv_width))?,
            rotations: rotations.of_f32(kernel, "rotations", elements(pool.head_dim))?,
            slots: slots.of_u32(kernel, "slots", rows.into())?,
            query_bias: vector("bias of queries", query_bias, query_width)?,
            key_bias: vector("bias of keys", key_bias, kv_width)?,
            value_bias: vector("bias of values", value_bias, kv_width)?,
            query_norm: vector("norm of queries", query_norm, pool.head_dim)?,
            key_norm: vector("norm of keys", key_norm, pool.head_dim)?,
            query_heads,
            epsilon,
        })
    }
}
