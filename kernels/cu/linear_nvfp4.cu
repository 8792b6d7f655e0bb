// Products of NVFP4 with NVFP4: out = scale · x · weightᵀ.
//
//   x [rows, inputs] and weight [outputs, inputs] as numbers of 4 bits, two in a byte, the first below; their scales
//   [rows, inputs / 16] and [outputs, inputs / 16]; out [rows, outputs] f32; inputs a multiple of 64; `scale` is the product of
//   what both tensors are divided by as a whole
//
// A warp computes 16 rows × 8 outputs. On chips with block-scaled tensor cores for 4 bits (sm_120a, sm_121a) they multiply; on the
// others, and under the name ending in `_portable` everywhere, each lane adds up its own outputs. This opens the format; it is
// not tuned.
#include "fp4.cuh"

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;
constexpr u32 ROWS = 16, OUTPUTS = 8, SLICE = 64, GROUP = 16;

struct LinearNvfp4Arguments {
    const u8* x;
    const u8* x_scales;
    const u8* weight;
    const u8* weight_scales;
    float* out;
    u32 rows;
    u32 inputs;
    u32 outputs;
    float scale;
};

// Numbers of one of the matrices: 8 of row `row` from column `column` on, 0 beyond the last row.
DEVICE u32 eight(const u8* values, u32 row, u32 rows, u32 inputs, u32 column) {
    if (row >= rows) return 0;
    return *reinterpret_cast<const u32*>(values + (static_cast<u64>(row) * inputs + column) / 2);
}

// Scales of 64 numbers.
DEVICE u32 four_scales(const u8* scales, u32 row, u32 rows, u32 inputs, u32 column) {
    if (row >= rows) return 0;
    return *reinterpret_cast<const u32*>(scales + (static_cast<u64>(row) * inputs + column) / GROUP);
}

DEVICE float value_at(const u8* values, const u8* scales, u32 row, u32 inputs, u32 column) {
    const u64 index = static_cast<u64>(row) * inputs + column;
    const u32 nibble = values[index / 2] >> (index % 2 * 4) & 15u;
    return e2m1_to_f32(nibble) * ue4m3_to_f32(scales[index / GROUP]);
}

DEVICE void store(const LinearNvfp4Arguments& arguments, u32 row, u32 output, float sum) {
    if (row < arguments.rows && output < arguments.outputs)
        arguments.out[static_cast<u64>(row) * arguments.outputs + output] = arguments.scale * sum;
}

// Where this warp's tile begins.
DEVICE u32 first_output() { return (blockIdx.x * WARPS + threadIdx.x / WARP) * OUTPUTS; }

DEVICE void portable(const LinearNvfp4Arguments& arguments) {
    const u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < 4; ++i) {
        const u32 row = blockIdx.y * ROWS + g + i / 2 * 8, output = first_output() + 2 * t + i % 2;
        if (row >= arguments.rows || output >= arguments.outputs) continue;
        float sum = 0.0f;
        for (u32 column = 0; column < arguments.inputs; ++column)
            sum += value_at(arguments.x, arguments.x_scales, row, arguments.inputs, column) *
                   value_at(arguments.weight, arguments.weight_scales, output, arguments.inputs, column);
        store(arguments, row, output, sum);
    }
}

#if HAS_FP4_MMA
DEVICE void tensor_cores(const LinearNvfp4Arguments& arguments) {
    const u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, inputs = arguments.inputs;
    const u32 first_row = blockIdx.y * ROWS, output = first_output() + g;
    float sums[4] = {};
    for (u32 slice = 0; slice < inputs; slice += SLICE) {
        u32 a[4], b[2];
#pragma unroll
        for (u32 j = 0; j < 4; ++j)
            a[j] = eight(arguments.x, first_row + g + j % 2 * 8, arguments.rows, inputs, slice + 8 * t + j / 2 * 32);
#pragma unroll
        for (u32 j = 0; j < 2; ++j)
            b[j] = eight(arguments.weight, output, arguments.outputs, inputs, slice + 8 * t + j * 32);
        // Lanes that no scale is taken from hold one too.
        const u32 scales_a = four_scales(arguments.x_scales, first_row + g + t % 2 * 8, arguments.rows, inputs, slice);
        const u32 scales_b = four_scales(arguments.weight_scales, output, arguments.outputs, inputs, slice);
        mma_nvfp4_16_8_64(sums, a, b, scales_a, scales_b);
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) store(arguments, first_row + g + i / 2 * 8, first_output() + 2 * t + i % 2, sums[i]);
}
#endif

KERNEL(linear_nvfp4, THREADS, LinearNvfp4Arguments) {
#if HAS_FP4_MMA
    tensor_cores(arguments);
#else
    portable(arguments);
#endif
}

KERNEL(linear_nvfp4_portable, THREADS, LinearNvfp4Arguments) { portable(arguments); }
