#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! NEON: sixteen lanes in four registers.

use std::arch::aarch64::{
    float32x4_t, uint16x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vmovl_u16, vmulq_f32, vreinterpretq_f32_u32,
    vshlq_n_u32,
};

use std::mem::transmute;

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// Made only by [`Neon::detect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn with_features<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found NEON.
        unsafe { with_features(self, kernel) }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl Simd for Neon {
    type Lanes = [float32x4_t; 4];
    const WIDE: bool = false;

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
        // The vector conversion needs a type that stable Rust does not have yet.
        let mut widened = [0.0; LANES];
        for (wide, value) in widened.iter_mut().zip(values) {
            *wide = value.to_f32();
        }
        self.load(&widened)
    }

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
