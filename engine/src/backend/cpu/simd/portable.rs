//! Plain Rust. Where the processor lacks a fused multiply-add, `mul_add` is a library call: slow, and still the same bits.

use half::{bf16, f16};

use super::{LANES, Simd};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    type Lanes = [f32; LANES];
    type Ints = [i32; LANES];
    type Bytes = [u8; 4 * LANES];
    const WIDE: bool = false;
    const SIGNED_BIAS: i32 = 0;

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

    fn load_bf16_pairs(self, values: &[bf16; 2 * LANES]) -> [Self::Lanes; 2] {
        [0, 1].map(|odd| std::array::from_fn(|lane| values[2 * lane + odd].to_f32()))
    }

    fn load_f16_bytes(self, bytes: &[u8; 2 * LANES]) -> Self::Lanes {
        std::array::from_fn(|lane| f16::from_le_bytes([bytes[2 * lane], bytes[2 * lane + 1]]).to_f32())
    }

    fn splat_ints(self, value: i32) -> Self::Ints {
        [value; LANES]
    }

    fn widen_ints(self, ints: Self::Ints) -> Self::Lanes {
        ints.map(|value| value as f32)
    }

    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes {
        *bytes
    }

    fn low_halves(self, bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte & 15)
    }

    fn high_halves(self, bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|byte| byte >> 4)
    }

    fn dot_unsigned(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        self.dot_signed(sums, bytes, x)
    }

    fn dot_signed(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        let product =
            |lane: usize, at: usize| i32::from(bytes[4 * lane + at].cast_signed()) * i32::from(x[at]);
        std::array::from_fn(|lane| sums[lane] + (0..4).map(|at| product(lane, at)).sum::<i32>())
    }

    fn prefetch(self, _address: *const u8) {}

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
