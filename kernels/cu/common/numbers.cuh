// Numbers of 16 and of 8 bits, kept as their bits.
#pragma once
#include "platform.cuh"

// bf16 is the upper half of a float.
DEVICE float bf16_to_f32(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }

// To the nearest, ties to even; a NaN stays one.
DEVICE u16 f32_to_bf16(float value) {
    const u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<u16>((bits >> 16) | 0x40u);
    return static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Two of them, the first in the lower half.
DEVICE u32 bf16_pair(float low, float high) {
#if defined(SPARKHERD_HOST_SHIM)
    return f32_to_bf16(low) | static_cast<u32>(f32_to_bf16(high)) << 16;
#else
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

DEVICE float f16_to_f32(u16 bits) {
#if defined(SPARKHERD_HOST_SHIM)
    return shim::f16_to_f32(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}

// e4m3: a sign, 4 bits of exponent of bias 7, 3 of mantissa; no infinities, and 0x7f is no number. f16 has the same bits lower
// by 2⁸, subnormal ones included.
DEVICE float e4m3_to_f32(u8 bits) {
    if ((bits & 0x7fu) == 0x7fu) return __uint_as_float(0x7fc00000u);
    return f16_to_f32(static_cast<u16>((bits & 0x80u) << 8 | (bits & 0x7fu) << 7)) * 256.0f;
}

// To the nearest, ties to even; what is beyond the largest, 448, becomes it; a NaN stays one.
DEVICE u8 f32_to_e4m3(float value) {
    const u32 bits = __float_as_uint(value), sign = bits >> 24 & 0x80u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return static_cast<u8>(sign | 0x7fu);
    if (size >= 0x43e00000u) return static_cast<u8>(sign | 0x7eu);
    // From 2⁻⁶ on the mantissa loses 20 bits, and the exponent the difference of the biases, 120.
    if (size >= 0x3c800000u) return static_cast<u8>(sign | (((size + 0x7ffffu + (size >> 20 & 1u)) >> 20) - (120u << 3)));
    // Below are multiples of 2⁻⁹: the last place of numbers from 2¹⁴ on.
    const u32 shifted = __float_as_uint(__uint_as_float(size) + 16384.0f);
    return static_cast<u8>(sign | (shifted - 0x46800000u));
}
