#![expect(unsafe_code, reason = "instructions that the processor must have")]
//! AVX2 with FMA and F16C: sixteen lanes in two registers.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_max_ps, _mm_max_ss,
    _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32,
    _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_max_ps, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_sign_epi8, _mm256_slli_epi32, _mm256_srli_epi16,
};

use std::mem::transmute;

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// Made only by [`Avx2::detect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
    }

    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn with_features<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.call(simd)
        }
        // SAFETY: `self` exists, so `detect` found all three features.
        unsafe { with_features(self, kernel) }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
impl Simd for Avx2 {
    /// Lanes 0 to 7 and 8 to 15.
    type Lanes = [__m256; 2];
    type Ints = [__m256i; 2];
    type Bytes = [__m256i; 2];
    const WIDE: bool = false;
    const SIGNED_BIAS: i32 = 0;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Lanes {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_ps(value), _mm256_set1_ps(value)] }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::Lanes {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[f32; LANES], [__m256; 2]>(*values) }
    }

    #[inline(always)]
    fn load_bf16(self, values: &[bf16; LANES]) -> Self::Lanes {
        // SAFETY: `self` proves AVX2; the transmuted types have the same size and no invalid bit patterns. A bf16 is the
        // upper half of an f32.
        unsafe {
            let [low, high] = transmute::<[bf16; LANES], [__m128i; 2]>(*values);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(low))),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(high))),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, values: &[f16; LANES]) -> Self::Lanes {
        // SAFETY: `self` proves F16C; the transmuted types have the same size and no invalid bit patterns.
        unsafe {
            let [low, high] = transmute::<[f16; LANES], [__m128i; 2]>(*values);
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, values: &[bf16; 2 * LANES]) -> [Self::Lanes; 2] {
        // SAFETY: `self` proves AVX2; the transmuted types have the same size and no invalid bit patterns. A bf16 is the
        // upper half of an f32.
        unsafe {
            let stored = transmute::<[bf16; 2 * LANES], [__m256i; 2]>(*values);
            let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            let [a, b] = stored;
            let even = [_mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b)];
            let odd = [_mm256_and_si256(a, upper), _mm256_and_si256(b, upper)];
            // No `map`: a closure that is not inlined is compiled without these instructions.
            [
                [_mm256_castsi256_ps(even[0]), _mm256_castsi256_ps(even[1])],
                [_mm256_castsi256_ps(odd[0]), _mm256_castsi256_ps(odd[1])],
            ]
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, bytes: &[u8; 2 * LANES]) -> Self::Lanes {
        // SAFETY: `self` proves F16C; the transmuted types have the same size and no invalid bit patterns.
        unsafe {
            let [low, high] = transmute::<[u8; 2 * LANES], [__m128i; 2]>(*bytes);
            [_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)]
        }
    }

    #[inline(always)]
    fn splat_ints(self, value: i32) -> Self::Ints {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_set1_epi32(value); 2] }
    }

    #[inline(always)]
    fn widen_ints(self, ints: Self::Ints) -> Self::Lanes {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])] }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Bytes {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[u8; 4 * LANES], [__m256i; 2]>(*bytes) }
    }

    #[inline(always)]
    fn low_halves(self, bytes: Self::Bytes) -> Self::Bytes {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            [_mm256_and_si256(bytes[0], mask), _mm256_and_si256(bytes[1], mask)]
        }
    }

    #[inline(always)]
    fn high_halves(self, bytes: Self::Bytes) -> Self::Bytes {
        // SAFETY: `self` proves AVX2.
        unsafe { self.low_halves([_mm256_srli_epi16::<4>(bytes[0]), _mm256_srli_epi16::<4>(bytes[1])]) }
    }

    /// Pairs are added in i16: at most 2 · 127 · 127.
    #[inline(always)]
    fn dot_unsigned(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        // SAFETY: `self` proves AVX2; every bit pattern is an i32.
        unsafe {
            let x = _mm256_set1_epi32(transmute::<[i8; 4], i32>(x));
            let ones = _mm256_set1_epi16(1);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes[0], x), ones);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes[1], x), ones);
            [_mm256_add_epi32(sums[0], low), _mm256_add_epi32(sums[1], high)]
        }
    }

    /// The size of the weight times `x` with the weight's sign; pairs are at most 2 · 128 · 127.
    #[inline(always)]
    fn dot_signed(self, sums: Self::Ints, bytes: Self::Bytes, x: [i8; 4]) -> Self::Ints {
        // SAFETY: `self` proves AVX2; every bit pattern is an i32.
        unsafe {
            let x = _mm256_set1_epi32(transmute::<[i8; 4], i32>(x));
            let ones = _mm256_set1_epi16(1);
            let [a, b] = bytes;
            let low = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(x, a));
            let high = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(x, b));
            let (low, high) = (_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
            [_mm256_add_epi32(sums[0], low), _mm256_add_epi32(sums[1], high)]
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a prefetch of an invalid address does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn to_array(self, lanes: Self::Lanes) -> [f32; LANES] {
        // SAFETY: same size, and every bit pattern is valid in both.
        unsafe { transmute::<[__m256; 2], [f32; LANES]>(lanes) }
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sum(self, lanes: Self::Lanes) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe { sum_of_eight(_mm256_add_ps(lanes[0], lanes[1])) }
    }

    #[inline(always)]
    fn maximum(self, lanes: Self::Lanes) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe { maximum_of_eight(_mm256_max_ps(lanes[0], lanes[1])) }
    }

    #[inline(always)]
    fn multiply(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves AVX2.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // SAFETY: `self` proves FMA.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
}

/// Lane `i` with lane `i + 4`, then 2 and 1 apart.
///
/// # Safety
/// The processor has AVX.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[inline(always)]
pub(super) unsafe fn sum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: AVX by contract.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// # Safety
/// The processor has AVX.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[inline(always)]
pub(super) unsafe fn maximum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: AVX by contract.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}
