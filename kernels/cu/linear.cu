// Products of a few rows with a matrix, for decoding.
//
//   linear:       out = x · weightᵀ
//   linear_gated: out = function(x · weightᵀ) ⊙ (x · upᵀ), functions as in gate.cuh
//
//   x [rows, inputs] f32, rows 1 to 8; weight, up [outputs, inputs] in any format; out [rows, outputs] f32
//
// A warp goes along four rows of the weights at once: four outputs, or, gated, two with a row of each matrix. Its lanes read a piece
// (common/pieces.cuh) of each of them before they widen any, so that many words of memory are on their way, and what they read of
// x serves all four. A lane's pieces are as far apart as a warp has lanes. An output is added up in an order that neither the number
// of rows nor the outputs beside it change, so that a sequence gets the same alone and beside others. Weights are read once and
// never again; x stays in the first cache.
//
// One row has kernels of its own, as the sums of eight rows take the registers that more warps need. Six of its blocks, 24 warps,
// have a multiprocessor with 80 registers a thread, and 24 KiB of Q4_0 or 48 of BF16 on their way there. A GB10 needs 5 of them, if
// its memory gives 273 GB/s and answers within 0.8 µs. For 2 to 8 rows it is half as many warps.
#include "gate.cuh"
#include "pieces.cuh"
#include "reduce.cuh"

constexpr u32 WARPS = 4;
// Rows of the weights that a warp goes along at once: outputs, or, gated, half as many with two each.
constexpr u32 WEIGHT_ROWS = 4;

struct LinearArguments {
    const float* x;
    const u8* weight;
    // What `weight` gates; of `linear_gated` only.
    const u8* up;
    float* out;
    u32 rows;
    u32 inputs;
    u32 outputs;
    // Of `linear_gated` only.
    u32 function;
};

// One value of any format, where rows are not of whole runs.
template <class Format>
struct Single {
    static constexpr u32 RUNS = 1, APART = 0, VALUES = 1;
    struct Raw {
        float value;
    };
    DEVICE u32 column(u32 piece) { return piece; }
    DEVICE Raw read(const u8* row, u32 piece) { return {Format::at(row, piece)}; }
    DEVICE void widen(const Raw& raw, u32, u32, float (&values)[1]) { values[0] = raw.value; }
};

template <class Format>
struct Whole : Pieces<Format> {
    static constexpr u32 VALUES = RUN;
};

// Of a row of x: by 16 bytes where runs begin at multiples of them.
template <u32 VALUES>
DEVICE void read(const float* from, float (&x)[VALUES]) {
    if constexpr (VALUES == 1) {
        x[0] = from[0];
    } else {
#pragma unroll
        for (u32 i = 0; i < VALUES; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(from + i);
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
        }
    }
}

// sums[w][r] += what this lane takes of row w of the weights and row r of x.
template <class Piece, u32 ROWS>
DEVICE void add_run(float (&sums)[WEIGHT_ROWS][ROWS], const typename Piece::Raw (&raw)[WEIGHT_ROWS], u32 piece, u32 run,
                    const float* x, u32 inputs) {
    float values[WEIGHT_ROWS][Piece::VALUES];
#pragma unroll
    for (u32 w = 0; w < WEIGHT_ROWS; ++w) Piece::widen(raw[w], piece, run, values[w]);
#pragma unroll
    for (u32 r = 0; r < ROWS; ++r) {
        float of_x[Piece::VALUES];
        read(x + static_cast<u64>(r) * inputs, of_x);
#pragma unroll
        for (u32 w = 0; w < WEIGHT_ROWS; ++w)
#pragma unroll
            for (u32 i = 0; i < Piece::VALUES; ++i) sums[w][r] = fmaf(of_x[i], values[w][i], sums[w][r]);
    }
}

template <class Format, class Piece, u32 MATRICES, u32 ROWS>
DEVICE void products(const LinearArguments& arguments) {
    constexpr u32 OUTPUTS = WEIGHT_ROWS / MATRICES;
    const u32 first = (blockIdx.x * WARPS + threadIdx.x / WARP) * OUTPUTS, lane = threadIdx.x % WARP;
    const u32 inputs = arguments.inputs, outputs = arguments.outputs;
    if (first >= outputs) return;
    const u8* weights[WEIGHT_ROWS];
#pragma unroll
    for (u32 w = 0; w < WEIGHT_ROWS; ++w) {
        // Beyond the last output it is the last one again.
        const u32 output = first + w / MATRICES < outputs ? first + w / MATRICES : outputs - 1;
        weights[w] = (w % MATRICES == 0 ? arguments.weight : arguments.up) + output * Format::row_bytes(inputs);
    }
    float sums[WEIGHT_ROWS][ROWS] = {};
    const u32 pieces = inputs / (Piece::RUNS * Piece::VALUES);
    // Further ones under way would take the registers of other warps.
#pragma unroll 1
    for (u32 piece = lane; piece < pieces; piece += WARP) {
        typename Piece::Raw raw[WEIGHT_ROWS];
#pragma unroll
        for (u32 w = 0; w < WEIGHT_ROWS; ++w) raw[w] = Piece::read(weights[w], piece);
        // One after the other: values of two runs at once would not leave registers enough.
#pragma unroll 1
        for (u32 run = 0; run < Piece::RUNS; ++run)
            add_run<Piece>(sums, raw, piece, run, arguments.x + Piece::column(piece) + run * Piece::APART, inputs);
    }
#pragma unroll
    for (u32 i = 0; i < OUTPUTS; ++i)
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            float result = warp_sum(sums[i * MATRICES][r]);
            if constexpr (MATRICES == 2) result = gate_value(arguments.function, result) * warp_sum(sums[i * MATRICES + 1][r]);
            if (lane == 0 && first + i < outputs) arguments.out[static_cast<u64>(r) * outputs + first + i] = result;
        }
}

// Of 2 to 8 rows.
template <class Format, class Piece, u32 MATRICES>
DEVICE void several(const LinearArguments& arguments) {
    switch (arguments.rows) {
        case 2: return products<Format, Piece, MATRICES, 2>(arguments);
        case 3: return products<Format, Piece, MATRICES, 3>(arguments);
        case 4: return products<Format, Piece, MATRICES, 4>(arguments);
        case 5: return products<Format, Piece, MATRICES, 5>(arguments);
        case 6: return products<Format, Piece, MATRICES, 6>(arguments);
        case 7: return products<Format, Piece, MATRICES, 7>(arguments);
        case 8: return products<Format, Piece, MATRICES, 8>(arguments);
    }
}

template <class Format, class Piece, u32 MATRICES, u32 ROWS_MAX>
DEVICE void linear(const LinearArguments& arguments) {
    if constexpr (ROWS_MAX == 1)
        products<Format, Piece, MATRICES, 1>(arguments);
    else
        several<Format, Piece, MATRICES>(arguments);
}

// Which values a lane takes must not depend on more than the number of inputs either.
template <class Format, u32 MATRICES, u32 ROWS_MAX>
DEVICE void linear_of(const LinearArguments& arguments) {
    if (is_in_blocks<Format> || arguments.inputs % RUN == 0)
        linear<Format, Whole<Format>, MATRICES, ROWS_MAX>(arguments);
    else if constexpr (!is_in_blocks<Format>)
        linear<Format, Single<Format>, MATRICES, ROWS_MAX>(arguments);
}

#define DEFINE_ROWS(name, Format, matrices, rows, blocks)                      \
    KERNEL_RESIDENT(name##_##rows, WARPS * WARP, blocks, LinearArguments) {    \
        linear_of<Format, matrices, rows>(arguments);                          \
    }
#define DEFINE(name, Format)                          \
    DEFINE_ROWS(linear_##name, Format, 1, 1, 6)       \
    DEFINE_ROWS(linear_##name, Format, 1, 8, 3)       \
    DEFINE_ROWS(linear_gated_##name, Format, 2, 1, 6) \
    DEFINE_ROWS(linear_gated_##name, Format, 2, 8, 3)
FOR_EACH_FORMAT(DEFINE)
