#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! NEON: sixteen lanes in four of 32 registers. Its paths differ only in how they multiply bytes.

use std::arch::{
    aarch64::{
        float16x4_t, float32x4_t, int8x16_t, int32x4_t, uint16x4_t, uint32x4_t, vadd_f32, vaddq_f32,
        vandq_s8, vandq_u32, vcvt_f32_f16, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s8, vdupq_n_s32, vdupq_n_u32,
        vfmaq_f32, vget_high_f32, vget_low_f32, vget_low_s8, vmaxnmq_f32, vmaxnmvq_f32, vmovl_u16,
        vmull_high_s8, vmull_s8, vmulq_f32, vpadalq_s16, vpaddq_s16, vpadds_f32, vreinterpretq_f32_u32,
        vreinterpretq_s8_s32, vreinterpretq_s8_u8, vreinterpretq_u8_s8, vshlq_n_u32, vshrq_n_u8,
    },
    asm, is_aarch64_feature_detected,
};

use std::{fmt::Debug, mem::transmute};

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// The instructions that multiply bytes. A value is proof that they exist here.
pub(crate) trait ByteProducts: Copy + Debug + Send + Sync {
    /// Adds to each lane the dot product of its four i8 with the four of `x`.
    fn dot(self, sum: int32x4_t, bytes: int8x16_t, x: [i8; 4]) -> int32x4_t;
}

/// What every Armv8 processor has: widening multiplications, and additions of pairs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widening(());

/// SDOT, which is optional from Armv8.2 on: sixteen products and their sums in one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dotprod(());

/// Made only by `detect`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon<B>(B);

impl Neon<Widening> {
    pub(crate) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(Widening(())))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn with_features<K: Kernel>(simd: Neon<Widening>, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found NEON.
        unsafe { with_features(self, kernel) }
    }
}

impl Neon<Dotprod> {
    pub(crate) fn detect() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod"))
            .then_some(Self(Dotprod(())))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        fn with_features<K: Kernel>(simd: Neon<Dotprod>, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found NEON and dotprod.
        unsafe { with_features(self, kernel) }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl ByteProducts for Widening {
    /// Pairs are added in i16: at most 2 · 128 · 127.
    #[inline(always)]
    fn dot(self, sum: int32x4_t, bytes: int8x16_t, x: [i8; 4]) -> int32x4_t {
        // SAFETY: `self` proves NEON; every bit pattern is an i32.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(transmute::<[i8; 4], i32>(x)));
            let low = vmull_s8(vget_low_s8(bytes), vget_low_s8(x));
            vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(bytes, x)))
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl ByteProducts for Dotprod {
    /// Assembly, because the intrinsic is stable only from Rust 1.98. `x` stays the lowest four bytes of its register, so
    /// that one plain load brings it there.
    #[inline(always)]
    fn dot(self, mut sum: int32x4_t, bytes: int8x16_t, x: [i8; 4]) -> int32x4_t {
        let x = f32::from_bits(u32::from_ne_bytes(x.map(i8::cast_unsigned)));
        // SAFETY: `self` proves dotprod; nothing but the three registers is read or written.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {bytes:v}.16b, {x:v}.4b[0]",
                sum = inout(vreg) sum,
                bytes = in(vreg) bytes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

/// Numbers of 16 bits are only widened: BFMMLA and BFDOT would round activations to BF16, and give other bits than the
/// paths without them.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl<B: ByteProducts> Simd for Neon<B> {
    type Lanes = [float32x4_t; 4];
    type Ints = [int32x4_t; 4];
    type Bytes = [int8x16_t; 4];
    const WIDE: bool = false;
    const SIGNED_BIAS: i32 = 0;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Lanes {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Lanes {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[f32; LANES], [float32x4_t; 4]>(*values) }
    }

    #[inline(always)]
    fn load_bf16(self, values: &[bf16; LANES]) -> Self::Lanes {
        // SAFETY: `self` proves NEON; the transmuted types have the same size and no invalid bit patterns. A bf16 is the
        // upper half of an f32.
        unsafe {
            let stored = transmute::<[bf16; LANES], [uint16x4_t; 4]>(*values);
            [
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(stored[0]))),
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(stored[1]))),
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(stored[2]))),
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(stored[3]))),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, values: &[f16; LANES]) -> Self::Lanes {
        // SAFETY: `self` proves NEON; the transmuted types have the same size and no invalid bit patterns.
        unsafe {
            let stored = transmute::<[f16; LANES], [float16x4_t; 4]>(*values);
            [
                vcvt_f32_f16(stored[0]),
                vcvt_f32_f16(stored[1]),
                vcvt_f32_f16(stored[2]),
                vcvt_f32_f16(stored[3]),
            ]
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, values: &[bf16; 2 * LANES]) -> [Self::Lanes; 2] {
        // SAFETY: `self` proves NEON; the transmuted types have the same size and no invalid bit patterns. A bf16 is the
        // upper half of an f32.
        unsafe {
            let stored = transmute::<[bf16; 2 * LANES], [uint32x4_t; 4]>(*values);
            let upper = vdupq_n_u32(0xffff_0000);
            let [mut even, mut odd] = [[vdupq_n_f32(0.0); 4]; 2];
            for ((even, odd), stored) in even.iter_mut().zip(&mut odd).zip(stored) {
                *even = vreinterpretq_f32_u32(vshlq_n_u32::<16>(stored));
                *odd = vreinterpretq_f32_u32(vandq_u32(stored, upper));
            }
            [even, odd]
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, bytes: &[u8; 2 * LANES]) -> Self::Lanes {
        // SAFETY: same size, and every bit pattern is valid in both.
        self.load_f16(&unsafe { transmute::<[u8; 2 * LANES], [f16; LANES]>(*bytes) })
    }

    #[inline(always)]
    fn splat_ints(self, value: i32) -> Self::Ints {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_s32(value); 4] }
    }

    #[inline(always)]
    fn widen_ints(self, ints: Self::Ints) -> Self::Lanes {
        // SAFETY: `self` proves NEON.
        unsafe {
            [vcvtq_f32_s32(ints[0]), vcvtq_f32_s32(ints[1]), vcvtq_f32_s32(ints[2]), vcvtq_f32_s32(ints[3])]
        }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[u8; 4 * LANES], [int8x16_t; 4]>(*bytes) }
    }

    #[inline(always)]
    fn low_halves(self, mut bytes: Self::Bytes) -> Self::Bytes {
        for bytes in &mut bytes {
            // SAFETY: `self` proves NEON.
            *bytes = unsafe { vandq_s8(*bytes, vdupq_n_s8(15)) };
        }
        bytes
    }

    #[inline(always)]
    fn high_halves(self, mut bytes: Self::Bytes) -> Self::Bytes {
        for bytes in &mut bytes {
            // SAFETY: `self` proves NEON.
            *bytes = unsafe { vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(*bytes))) };
        }
        bytes
    }

    #[inline(always)]
    fn dot_unsigned(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        self.dot_signed(sums, bytes, x)
    }

    #[inline(always)]
    fn dot_signed(self, mut sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        for (sum, bytes) in sums.iter_mut().zip(bytes) {
            *sum = self.0.dot(*sum, bytes, x);
        }
        sums
    }

    /// The processors' own prefetchers follow the few streams that kernels read.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    #[inline(always)]
    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES] {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[float32x4_t; 4], [f32; LANES]>(lanes) }
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves NEON.
        unsafe {
            [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])]
        }
    }

    #[inline(always)]
    fn sum(self, lanes: Self::Lanes) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe {
            let four = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }

    #[inline(always)]
    fn maximum(self, lanes: Self::Lanes) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(lanes[0], lanes[2]), vmaxnmq_f32(lanes[1], lanes[3]))) }
    }

    #[inline(always)]
    fn multiply(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves NEON.
        unsafe {
            [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])]
        }
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves NEON.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
}
