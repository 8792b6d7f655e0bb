// Numbers of 16 bits, kept as their bits.
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

DEVICE float f16_to_f32(u16 bits) {
#if defined(SPARKHERD_HOST_SHIM)
    return shim::f16_to_f32(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}
