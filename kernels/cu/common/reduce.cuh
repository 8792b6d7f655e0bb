// Sums and maxima over a warp and over a block. Every thread gets the result, in an order that depends on nothing.
#pragma once
#include "platform.cuh"

DEVICE float warp_sum(float value) {
    for (u32 distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

DEVICE float warp_max(float value) {
    for (u32 distance = WARP / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

// All threads of the block call it. `scratch` has a place for each warp, and may be used again at once.
template <u32 THREADS>
DEVICE float block_sum(float value, float* scratch) {
    static_assert(THREADS % WARP == 0 && THREADS <= WARP * WARP, "whole warps, one lane for each");
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float total = 0.0f;
    for (u32 warp = 0; warp < THREADS / WARP; ++warp) total += scratch[warp];
    __syncthreads();
    return total;
}
