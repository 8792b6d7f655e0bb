// Products of many rows with a matrix: out = x · weightᵀ, for prompts.
//
//   x [rows, inputs] f32; weight [outputs, inputs] in any format; out [rows, outputs] f32
//
// A block of 256 threads computes 128 rows × 128 outputs. It goes along the inputs in slices of 32: its threads read the next
// slice of both into registers while its warps multiply this one in shared memory, both rounded to bf16; sums are f32. A warp has
// 64 rows × 32 outputs, as 4 × 4 tiles of 16 × 8. What lies beyond an edge is 0.
//
// Blocks that follow one another have the same outputs, so that a weight is read from memory once for all rows.
//
// Shared rows are 40 values apart, so that the 8 rows and 4 words that a warp reads at once lie in 32 different banks.
#include "formats.cuh"
#include "mma.cuh"

constexpr u32 THREADS = 256;
// Rows and outputs of a block, inputs of a slice.
constexpr u32 ROWS = 128, OUTPUTS = 128, SLICE = 32;
constexpr u32 STRIDE = SLICE + 8;
// Of a warp, in tiles.
constexpr u32 ROW_TILES = 4, OUTPUT_TILES = 4;
constexpr u32 WARP_ROWS = 16 * ROW_TILES, WARP_OUTPUTS = 8 * OUTPUT_TILES;
// A thread brings two runs of 8 values of each matrix.
constexpr u32 RUN = 8, RUNS = ROWS * SLICE / RUN / THREADS;
static_assert(ROWS == OUTPUTS && RUNS * RUN * THREADS == ROWS * SLICE, "both matrices are brought in the same way");

struct LinearRowsArguments {
    const float* x;
    const u8* weight;
    float* out;
    u32 rows;
    u32 inputs;
    u32 outputs;
};

// A slice of one matrix on its way: values of a thread's runs, two in a word.
struct Brought {
    u32 words[RUNS][RUN / 2];
};

struct Place {
    u32 row, column;
};

DEVICE Place place_of(u32 run) {
    const u32 index = run * THREADS + threadIdx.x;
    return {index / (SLICE / RUN), index % (SLICE / RUN) * RUN};
}

DEVICE u32 pair(float low, float high) { return f32_to_bf16(low) | static_cast<u32>(f32_to_bf16(high)) << 16; }

DEVICE void bring_rows(Brought& brought, const LinearRowsArguments& arguments, u32 slice) {
#pragma unroll
    for (u32 run = 0; run < RUNS; ++run) {
        const Place place = place_of(run);
        const u32 row = blockIdx.x * ROWS + place.row, column = slice + place.column;
        const float* x = arguments.x + static_cast<u64>(row) * arguments.inputs;
#pragma unroll
        for (u32 i = 0; i < RUN; i += 2) {
            const bool first = row < arguments.rows && column + i < arguments.inputs;
            const bool second = row < arguments.rows && column + i + 1 < arguments.inputs;
            brought.words[run][i / 2] = pair(first ? x[column + i] : 0.0f, second ? x[column + i + 1] : 0.0f);
        }
    }
}

template <class Format>
DEVICE void bring_weights(Brought& brought, const LinearRowsArguments& arguments, u32 slice) {
#pragma unroll
    for (u32 run = 0; run < RUNS; ++run) {
        const Place place = place_of(run);
        const u32 output = blockIdx.y * OUTPUTS + place.row, column = slice + place.column;
        const u8* row = arguments.weight + output * Format::row_bytes(arguments.inputs);
#pragma unroll
        for (u32 i = 0; i < RUN; i += 2) {
            const bool first = output < arguments.outputs && column + i < arguments.inputs;
            const bool second = output < arguments.outputs && column + i + 1 < arguments.inputs;
            brought.words[run][i / 2] =
                pair(first ? Format::at(row, column + i) : 0.0f, second ? Format::at(row, column + i + 1) : 0.0f);
        }
    }
}

DEVICE void put(u16 (*slice)[STRIDE], const Brought& brought) {
#pragma unroll
    for (u32 run = 0; run < RUNS; ++run) {
        const Place place = place_of(run);
        u32* to = reinterpret_cast<u32*>(&slice[place.row][place.column]);
#pragma unroll
        for (u32 word = 0; word < RUN / 2; ++word) to[word] = brought.words[run][word];
    }
}

DEVICE u32 word_at(const u16 (*slice)[STRIDE], u32 row, u32 column) {
    return *reinterpret_cast<const u32*>(&slice[row][column]);
}

// One slice of the products of this warp.
DEVICE void multiply(float (&sums)[ROW_TILES][OUTPUT_TILES][4], const u16 (*x)[STRIDE], const u16 (*weight)[STRIDE],
                     u32 first_row, u32 first_output) {
    const u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 k = 0; k < SLICE; k += 16) {
        u32 b[OUTPUT_TILES][2];
#pragma unroll
        for (u32 tile = 0; tile < OUTPUT_TILES; ++tile) {
            const u32 output = first_output + 8 * tile + g;
            b[tile][0] = word_at(weight, output, k + 2 * t);
            b[tile][1] = word_at(weight, output, k + 2 * t + 8);
        }
#pragma unroll
        for (u32 tile = 0; tile < ROW_TILES; ++tile) {
            const u32 row = first_row + 16 * tile + g;
            const u32 a[4] = {word_at(x, row, k + 2 * t), word_at(x, row + 8, k + 2 * t),
                              word_at(x, row, k + 2 * t + 8), word_at(x, row + 8, k + 2 * t + 8)};
#pragma unroll
            for (u32 other = 0; other < OUTPUT_TILES; ++other) mma_16_8_16(sums[tile][other], a, b[other]);
        }
    }
}

DEVICE void store(const LinearRowsArguments& arguments, const float (&sums)[ROW_TILES][OUTPUT_TILES][4],
                  u32 first_row, u32 first_output) {
    const u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 tile = 0; tile < ROW_TILES; ++tile)
#pragma unroll
        for (u32 other = 0; other < OUTPUT_TILES; ++other)
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 row = blockIdx.x * ROWS + first_row + 16 * tile + g + i / 2 * 8;
                const u32 output = blockIdx.y * OUTPUTS + first_output + 8 * other + 2 * t + i % 2;
                if (row < arguments.rows && output < arguments.outputs)
                    arguments.out[static_cast<u64>(row) * arguments.outputs + output] = sums[tile][other][i];
            }
}

template <class Format>
DEVICE void linear_rows(const LinearRowsArguments& arguments) {
    SHARED __align__(16) u16 x[ROWS][STRIDE], weight[OUTPUTS][STRIDE];
    const u32 warp = threadIdx.x / WARP;
    const u32 first_row = warp % (ROWS / WARP_ROWS) * WARP_ROWS, first_output = warp / (ROWS / WARP_ROWS) * WARP_OUTPUTS;
    float sums[ROW_TILES][OUTPUT_TILES][4] = {};
    Brought next_x, next_weight;
    bring_rows(next_x, arguments, 0);
    bring_weights<Format>(next_weight, arguments, 0);
    for (u32 slice = 0; slice < arguments.inputs; slice += SLICE) {
        put(x, next_x);
        put(weight, next_weight);
        __syncthreads();
        if (slice + SLICE < arguments.inputs) {
            bring_rows(next_x, arguments, slice + SLICE);
            bring_weights<Format>(next_weight, arguments, slice + SLICE);
        }
        multiply(sums, x, weight, first_row, first_output);
        __syncthreads();
    }
    store(arguments, sums, first_row, first_output);
}

#define DEFINE(name, Format) \
    KERNEL(linear_rows_##name, THREADS, LinearRowsArguments) { linear_rows<Format>(arguments); }
FOR_EACH_FORMAT(DEFINE)
