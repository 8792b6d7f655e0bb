#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! AVX-512: sixteen lanes in one register.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_max_ps, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_xor_si512,
};

use std::mem::transmute;

use half::{bf16, f16};

use super::{
    Kernel, LANES, Simd,
    avx2::{maximum_of_eight, sum_of_eight},
};

/// Made only by [`Avx512::detect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma"))
        .then_some(Self(()))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn with_features<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found avx512f, bw, vl, vnni and fma; every such processor has avx2 and f16c.
        unsafe { with_features(self, kernel) }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl Simd for Avx512 {
    type Lanes = __m512;
    type Ints = __m512i;
    type Bytes = __m512i;
    const WIDE: bool = true;
    const SIGNED_BIAS: i32 = 128;

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
    fn load_bf16_pairs(self, values: &[bf16; 2 * LANES]) -> [__m512; 2] {
        // SAFETY: `self` proves AVX-512F; the transmuted types have the same size and no invalid bit patterns. A bf16 is
        // the upper half of an f32.
        unsafe {
            let stored = transmute::<[bf16; 2 * LANES], __m512i>(*values);
            let odd = _mm512_and_si512(stored, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(stored)), _mm512_castsi512_ps(odd)]
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, bytes: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the transmuted types have the same size and no invalid bit patterns.
        unsafe { _mm512_cvtph_ps(transmute::<[u8; 2 * LANES], __m256i>(*bytes)) }
    }

    #[inline(always)]
    fn splat_ints(self, value: i32) -> __m512i {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn widen_ints(self, ints: __m512i) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> __m512i {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[u8; 4 * LANES], __m512i>(*bytes) }
    }

    #[inline(always)]
    fn low_halves(self, bytes: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn high_halves(self, bytes: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512BW.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn dot_unsigned(self, sums: __m512i, bytes: __m512i, x: [i8; 4]) -> __m512i {
        // SAFETY: `self` proves AVX512-VNNI; every bit pattern is an i32.
        unsafe { _mm512_dpbusd_epi32(sums, bytes, _mm512_set1_epi32(transmute::<[i8; 4], i32>(x))) }
    }

    #[inline(always)]
    fn dot_signed(self, sums: __m512i, bytes: __m512i, x: [i8; 4]) -> __m512i {
        // SAFETY: `self` proves AVX-512F. An i8 with its highest bit turned is the u8 larger by 128.
        let biased = unsafe { _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)) };
        self.dot_unsigned(sums, biased, x)
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch of an invalid address does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
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
    fn sum(self, lanes: __m512) -> f32 {
        // SAFETY: same size, and every bit pattern is valid in both; `self` proves AVX.
        unsafe {
            let [low, high] = transmute::<__m512, [__m256; 2]>(lanes);
            sum_of_eight(_mm256_add_ps(low, high))
        }
    }

    #[inline(always)]
    fn maximum(self, lanes: __m512) -> f32 {
        // SAFETY: same size, and every bit pattern is valid in both; `self` proves AVX.
        unsafe {
            let [low, high] = transmute::<__m512, [__m256; 2]>(lanes);
            maximum_of_eight(_mm256_max_ps(low, high))
        }
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
