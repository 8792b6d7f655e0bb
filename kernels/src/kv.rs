//! The pool of keys and values, as the kernels that read and write it take it.

use crate::device::{DeviceError, DeviceMemory};

/// The largest head that attention keeps in registers.
pub const HEAD_DIM_MAX: u32 = 256;
const BLOCK_TOKENS: u64 = 16;
/// What attention reads at once begins at multiples of it.
const ALIGNMENT_BYTES: u64 = 16;

/// What keys and values are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtype {
    F32,
    Bf16,
    /// e4m3, of scale 1: what is beyond 448 becomes that.
    Fp8,
}

/// The kernel of a name for a pool's type, as `FOR_EACH_POOL` of `kv.cuh` makes them.
macro_rules! kernel_of_pool {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            $crate::KvDtype::F32 => concat!($name, "_f32"),
            $crate::KvDtype::Bf16 => concat!($name, "_bf16"),
            $crate::KvDtype::Fp8 => concat!($name, "_fp8"),
        }
    };
}

pub(crate) use kernel_of_pool;

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

#[repr(C)]
pub(crate) struct KvLayerArguments {
    elements: u64,
    kv_heads: u32,
    head_dim: u32,
}

impl KvDtype {
    const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Fp8 => 1,
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

    /// Of attention, which reads keys and values by words.
    pub(crate) fn aligned_arguments(&self, kernel: &'static str) -> Result<KvLayerArguments, DeviceError> {
        let got = (self.elements.address() % ALIGNMENT_BYTES) as usize;
        if got > 0 {
            let what = "address of the pool modulo 16";
            return Err(DeviceError::Shape { kernel, what, got, wanted: "0" });
        }
        self.arguments(kernel)
    }

    pub(crate) fn arguments(&self, kernel: &'static str) -> Result<KvLayerArguments, DeviceError> {
        let Self { elements, dtype, blocks, kv_heads, head_dim } = *self;
        if head_dim == 0 || head_dim > HEAD_DIM_MAX {
            let got = head_dim as usize;
            return Err(DeviceError::Shape { kernel, what: "size of a head", got, wanted: "1 to 256" });
        }
        let bytes = Self::bytes(dtype, blocks, kv_heads, head_dim).ok_or(DeviceError::TooLarge { kernel })?;
        Ok(KvLayerArguments { elements: elements.holding(kernel, "pool", bytes, 1)?, kv_heads, head_dim })
    }
}
