// NVFP4: numbers of 4 bits (e2m1) with a scale of 8 bits (e4m3, never negative) for each 16 of them along a row.
#pragma once
#include "platform.cuh"

// HAS_FP4_MMA says whether the chip multiplies such numbers itself. Whoever compiles says it (`Architecture` in compile.rs): the
// compiler's own macros differ from chip to chip (NVRTC 13.5 has __CUDA_ARCH_FEAT_SM120_ALL and no such name for sm_121a), and
// what is guarded by one that is not there compiles to the other path without a word.
#if !defined(HAS_FP4_MMA)
#error "HAS_FP4_MMA is 0 or 1"
#endif

// 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same with a sign.
DEVICE float e2m1_to_f32(u32 nibble) {
    const u32 exponent = nibble >> 1 & 3u, mantissa = nibble & 1u;
    const float size = exponent == 0 ? 0.5f * static_cast<float>(mantissa)
                                     : (1.0f + 0.5f * static_cast<float>(mantissa)) * static_cast<float>(1u << (exponent - 1));
    return nibble & 8u ? -size : size;
}

// 4 bits of exponent, of bias 7, and 3 of mantissa; 0x7f is no number.
DEVICE float ue4m3_to_f32(u32 bits) {
    const u32 exponent = bits >> 3 & 15u, mantissa = bits & 7u;
    if ((bits & 0x7fu) == 0x7fu) return __uint_as_float(0x7fc00000u);
    if (exponent == 0) return static_cast<float>(mantissa) / 512.0f;
    return __uint_as_float((exponent + 120u) << 23 | mantissa << 20);
}

#if HAS_FP4_MMA
// sums += a · b: 16 × 64 by 64 × 8, each 16 along the inner dimension times their scales, added up in f32.
//
// Which lane holds what, with g = lane / 4, t = lane % 4, and 8 numbers in a register, the first in its lowest bits:
//   a[j] row g (+ 8 for j = 1, 3), columns 8t to 8t + 7 (+ 32 for j = 2, 3)
//   b[j] rows 8t to 8t + 7 (+ 32 for j = 1) of column g
//   sums as in mma_16_8_16
//   scales_a of lanes t = 0: row g, of t = 1: row g + 8; scales_b of lanes t = 0: column g; a byte for each 16, the first lowest
DEVICE void mma_nvfp4_16_8_64(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2], u32 scales_a, u32 scales_b) {
#if defined(SPARKHERD_HOST_SHIM)
    shim::mma_nvfp4_16_8_64(sums, a, b, scales_a, scales_b, e2m1_to_f32, ue4m3_to_f32);
#else
    // Scales are taken from the first lanes of each four, all their bytes.
    asm volatile(
        "mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, {%10}, {%12, %12}, {%11}, {%12, %12};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(scales_a), "r"(scales_b),
          "h"(static_cast<u16>(0)));
#endif
}
#endif
