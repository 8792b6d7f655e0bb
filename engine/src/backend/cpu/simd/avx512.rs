#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! AVX-512: sixteen lanes in one register.

use std::arch::x86_64::{
    __m256i, __m512, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32,
};

use std::mem::transmute;

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// Made only by [`Avx512::detect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma"))
        .then_some(Self(()))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
        fn with_features<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found avx512f, bw, vl and fma; every such processor has avx2 and f16c.
        unsafe { with_features(self, kernel) }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl Simd for Avx512 {
    type Lanes = __m512;
    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[f32; LANES], __m512>(*values) }
    }

    #[inline(always)]
    fn load_bf16(self, values: &[bf16; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the transmuted types have the same size and no invalid bit patterns. A bf16 is
        // the upper half of an f32.
        unsafe {
            let stored = transmute::<[bf16; LANES], __m256i>(*values);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(stored)))
        }
    }

    #[inline(always)]
    fn load_f16(self, values: &[f16; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the transmuted types have the same size and no invalid bit patterns.
        unsafe { _mm512_cvtph_ps(transmute::<[f16; LANES], __m256i>(*values)) }
    }

    #[inline(always)]
    fn to_array(self, lanes: __m512) -> [f32; LANES] {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<__m512, [f32; LANES]>(lanes) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn multiply(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}
