#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! NEON: sixteen lanes in four registers.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1_u16, vld1q_f32, vmulq_f32, vreinterpretq_f32_u32,
    vshll_n_u16, vst1q_f32,
};

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

/// Four lanes from `first` on.
///
/// # Safety
/// The processor has NEON, and `first + 4` is at most 16.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[inline(always)]
unsafe fn quarter_of_bf16(values: &[bf16; LANES], first: usize) -> float32x4_t {
    // SAFETY: the 8 bytes read lie in the array; a bf16 is the upper half of an f32.
    unsafe {
        let stored = vld1_u16(values.as_ptr().add(first).cast::<u16>());
        vreinterpretq_f32_u32(vshll_n_u16::<16>(stored))
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
    fn from_array(self, values: &[f32; LANES]) -> Self::Lanes {
        let start = values.as_ptr();
        // SAFETY: `self` proves NEON; the four loads of 16 bytes lie in the array of 64.
        unsafe {
            [vld1q_f32(start), vld1q_f32(start.add(4)), vld1q_f32(start.add(8)), vld1q_f32(start.add(12))]
        }
    }

    #[inline(always)]
    fn from_bf16(self, values: &[bf16; LANES]) -> Self::Lanes {
        // SAFETY: `self` proves NEON; the quarters begin at 0, 4, 8 and 12 of 16.
        unsafe {
            [
                quarter_of_bf16(values, 0),
                quarter_of_bf16(values, 4),
                quarter_of_bf16(values, 8),
                quarter_of_bf16(values, 12),
            ]
        }
    }

    #[inline(always)]
    fn from_f16(self, values: &[f16; LANES]) -> Self::Lanes {
        // The vector conversion needs a type that stable Rust does not have yet.
        let mut widened = [0.0; LANES];
        for (wide, value) in widened.iter_mut().zip(values) {
            *wide = value.to_f32();
        }
        self.from_array(&widened)
    }

    #[inline(always)]
    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        let start: *mut f32 = array.as_mut_ptr();
        // SAFETY: `self` proves NEON; the four stores of 16 bytes lie in the array of 64.
        unsafe {
            vst1q_f32(start, lanes[0]);
            vst1q_f32(start.add(4), lanes[1]);
            vst1q_f32(start.add(8), lanes[2]);
            vst1q_f32(start.add(12), lanes[3]);
        }
        array
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
