//! Plain Rust. Where the processor lacks a fused multiply-add, `mul_add` is a library call: slow, and still the same bits.

use half::{bf16, f16};

use super::{LANES, Simd};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Lanes = [f32; LANES];
    const WIDE: bool = false;

    fn splat(self, value: f32) -> Self::Lanes {
        [value; LANES]
    }

    fn load(self, values: &[f32; LANES]) -> Self::Lanes {
        *values
    }

    fn load_bf16(self, values: &[bf16; LANES]) -> Self::Lanes {
        values.map(bf16::to_f32)
    }

    fn load_f16(self, values: &[f16; LANES]) -> Self::Lanes {
        values.map(f16::to_f32)
    }

    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES] {
        lanes
    }

    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    fn multiply(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    fn multiply_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
}
