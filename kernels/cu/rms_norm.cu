// Normalisation by the root of the mean square, row by row.
//
//   rms_norm:      out[r] = x[r] · 1/√(mean(x[r]²) + epsilon) · weight
//   add_rms_norm:  residual += x, then x = rms_norm(residual): one pass over the residual stream instead of two
//   head_rms_norm: rms_norm in place of each head by itself, all with the same weight
//
//   x, out, residual [rows, width] f32, weight [width] f32, f16 or bf16
//
// A block for each row: the row is read twice, the second time from the cache. A warp for each head.
#include "formats.cuh"
#include "reduce.cuh"

constexpr u32 THREADS = 256;

struct RmsNormArguments {
    const float* x;
    const u8* weight;
    float* out;
    u32 width;
    float epsilon;
};

struct AddRmsNormArguments {
    float* residual;
    float* x;
    const u8* weight;
    u32 width;
    float epsilon;
};

struct HeadRmsNormArguments {
    float* x;
    const u8* weight;
    u32 heads;
    u32 head_dim;
    float epsilon;
};

DEVICE float scale_of(float squares, u32 width, float epsilon) {
    return 1.0f / sqrtf(squares / static_cast<float>(width) + epsilon);
}

template <class Format>
DEVICE void rms_norm(const RmsNormArguments& arguments) {
    SHARED float scratch[THREADS / WARP];
    const u32 width = arguments.width;
    const float* x = arguments.x + static_cast<u64>(blockIdx.x) * width;
    float* out = arguments.out + static_cast<u64>(blockIdx.x) * width;
    float squares = 0.0f;
    for (u32 column = threadIdx.x; column < width; column += THREADS) squares += x[column] * x[column];
    const float scale = scale_of(block_sum<THREADS>(squares, scratch), width, arguments.epsilon);
    for (u32 column = threadIdx.x; column < width; column += THREADS)
        out[column] = x[column] * scale * Format::at(arguments.weight, column);
}

template <class Format>
DEVICE void add_rms_norm(const AddRmsNormArguments& arguments) {
    SHARED float scratch[THREADS / WARP];
    const u32 width = arguments.width;
    float* residual = arguments.residual + static_cast<u64>(blockIdx.x) * width;
    float* x = arguments.x + static_cast<u64>(blockIdx.x) * width;
    float squares = 0.0f;
    for (u32 column = threadIdx.x; column < width; column += THREADS) {
        const float sum = residual[column] + x[column];
        residual[column] = sum;
        squares += sum * sum;
    }
    const float scale = scale_of(block_sum<THREADS>(squares, scratch), width, arguments.epsilon);
    // Each thread reads what it has written itself.
    for (u32 column = threadIdx.x; column < width; column += THREADS)
        x[column] = residual[column] * scale * Format::at(arguments.weight, column);
}

// `heads` counts those of all rows together; the last block may have warps without one.
template <class Format>
DEVICE void head_rms_norm(const HeadRmsNormArguments& arguments) {
    const u32 head = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (head >= arguments.heads) return;
    const u32 width = arguments.head_dim;
    float* x = arguments.x + static_cast<u64>(head) * width;
    float squares = 0.0f;
    for (u32 column = lane; column < width; column += WARP) squares += x[column] * x[column];
    const float scale = scale_of(warp_sum(squares), width, arguments.epsilon);
    for (u32 column = lane; column < width; column += WARP) x[column] *= scale * Format::at(arguments.weight, column);
}

#define DEFINE(name, Format)                                                                \
    KERNEL(rms_norm_##name, THREADS, RmsNormArguments) { rms_norm<Format>(arguments); }     \
    KERNEL(add_rms_norm_##name, THREADS, AddRmsNormArguments) { add_rms_norm<Format>(arguments); } \
    KERNEL(head_rms_norm_##name, THREADS, HeadRmsNormArguments) { head_rms_norm<Format>(arguments); }
DEFINE(f32, F32)
DEFINE(f16, F16)
DEFINE(bf16, Bf16)
