// Products of many rows with a matrix: out = x · weightᵀ, for prompts.
//
//   x [rows, inputs] f32; weight [outputs, inputs] in any format; out [rows, outputs] f32
//
// A block of eight warps computes a tile of `out`. It goes along the inputs in slices of both matrices, rounded to bf16, that lie
// in a ring of stages in shared memory: while its warps multiply one slice, the threads bring the one that takes the place of the
// slice before. One barrier for each slice says both that it is there and that the slice before it is done with. Sums are f32.
//
// Weights that are bf16 already are copied there asynchronously. The others, and x, go through registers: they are read by 16
// bytes, or what the format allows (common/pieces.cuh), before the products of a slice and rounded after them. x stays f32 in
// memory: a slice of 128 × 128 is 24 KiB for a million operations. At the 92 TFLOPS that others measured, a GB10's multiprocessor
// has 1300 cycles for that, 19 bytes each, and the second cache is made for 64; a copy of x in bf16 would save a third of it for a
// launch and a workspace more.
//
// Two shapes of tiles. 128 rows × 128 outputs, a warp with 64 × 32: two such blocks have a multiprocessor. And 32 × 64, a warp
// with 16 × 16, for prompts so short that the first would leave most multiprocessors without a block and most rows of tiles empty:
// there the weights' way from memory counts, and slices are four times as long to have as much of them under way. Rows that are not
// of whole runs, which no model has, are left to it too. A sum takes its products in the same order in both.
//
// Blocks that follow one another have the same outputs, so that a weight is read from memory once for all rows.
//
// Pieces of eight values are swapped within a shared row by its number, so that the 8 rows of a matrix that a warp loads at once
// lie in different banks, and those that a quarter of a warp stores. What lies beyond an edge is 0.
#include "async.cuh"
#include "mma.cuh"
#include "pieces.cuh"

constexpr u32 WARPS = 8, THREADS = WARPS * WARP;

struct LinearRowsArguments {
    const float* x;
    const u8* weight;
    float* out;
    u32 rows;
    u32 inputs;
    u32 outputs;
};

// Rows and outputs of a tile, inputs of a slice, slices in shared memory, and warps one beside the other along the rows; and whether
// inputs may be no multiple of eight.
template <u32 ROWS_, u32 OUTPUTS_, u32 SLICE_, u32 STAGES_, u32 ROW_WARPS_, bool HAS_REST_>
struct Shape {
    static constexpr bool HAS_REST = HAS_REST_;
    static constexpr u32 ROWS = ROWS_, OUTPUTS = OUTPUTS_, SLICE = SLICE_, STAGES = STAGES_, ROW_WARPS = ROW_WARPS_;
    // Of a warp; and that in tiles of 16 × 8.
    static constexpr u32 WARP_ROWS = ROWS / ROW_WARPS, WARP_OUTPUTS = OUTPUTS / (WARPS / ROW_WARPS);
    static constexpr u32 ROW_TILES = WARP_ROWS / 16, OUTPUT_TILES = WARP_OUTPUTS / 8;
    static constexpr u32 PIECES = SLICE / RUN, SWAPPED = PIECES < 8 ? PIECES : 8;
    static_assert(WARP_ROWS % 16 == 0 && WARP_OUTPUTS % 16 == 0 && SLICE % 16 == 0 && STAGES >= 2, "whole fragments");
    static_assert(ROWS * PIECES % THREADS == 0 && OUTPUTS * PIECES % THREADS == 0, "threads bring as much each");

    // A row of fewer than eight pieces shares its 128 bytes of banks with the next.
    DEVICE u32 place(u32 row, u32 column) {
        return row * SLICE + (column / RUN ^ row * SWAPPED / 8 % SWAPPED) * RUN + column % RUN;
    }
};

using Large = Shape<128, 128, 32, 3, 2, false>;
using Small = Shape<32, 64, 128, 2, 2, true>;

// How a thread brings eight values of a row into shared memory. Copied, where they are there as they are wanted.
struct Copied {
    static constexpr bool IS_COPIED = true;
};

// By the format's pieces, whose zeros are 0.
template <class Format>
struct ByPieces {
    static constexpr bool IS_COPIED = false;
    using P = Pieces<Format>;
    using Raw = typename P::Raw;
    DEVICE Raw read(const u8* row, u32 column, u32) { return P::read(row, P::piece_of(column)); }
    DEVICE uint4 pairs(const Raw& raw, u32 column) {
        float values[RUN];
        P::widen(raw, P::piece_of(column), P::run_of(column), values);
        return {bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3]), bf16_pair(values[4], values[5]),
                bf16_pair(values[6], values[7])};
    }
};

// Of the weights, where rows are of whole runs.
template <class Format>
struct OfWeights {
    using Way = ByPieces<Format>;
};
template <>
struct OfWeights<Bf16> {
    using Way = Copied;
};

// One by one, where rows are not of whole runs.
template <class Format>
struct OneByOne {
    static constexpr bool IS_COPIED = false;
    using Raw = uint4;
    DEVICE Raw read(const u8* row, u32 column, u32 columns) {
        const auto pair = [&](u32 i) {
            const float low = column + i < columns ? Format::at(row, column + i) : 0.0f;
            return bf16_pair(low, column + i + 1 < columns ? Format::at(row, column + i + 1) : 0.0f);
        };
        return {pair(0), pair(2), pair(4), pair(6)};
    }
    DEVICE uint4 pairs(const Raw& raw, u32) { return raw; }
};

// One of the matrices, from the tile's first row on.
struct Matrix {
    const u8* rows;
    u64 row_bytes;
    u32 row_count, columns;
};

// What a thread has of a slice on its way through registers.
template <class Way, u32 RUNS>
struct Brought {
    typename Way::Raw raw[RUNS];
};

template <u32 RUNS>
struct Brought<Copied, RUNS> {};

struct Place {
    u32 row, column;
};

template <class S>
DEVICE Place place_of(u32 run) {
    const u32 index = run * THREADS + threadIdx.x;
    return {index / S::PIECES, index % S::PIECES * RUN};
}

// Begins to bring this thread's part of a slice: to `stage`, or into registers.
template <class S, class Way, u32 RUNS>
DEVICE void bring(Brought<Way, RUNS>& brought, u16* stage, const Matrix& matrix, u32 slice) {
#pragma unroll
    for (u32 run = 0; run < RUNS; ++run) {
        const Place place = place_of<S>(run);
        const u32 column = slice + place.column;
        const bool is_there = place.row < matrix.row_count && column < matrix.columns;
        const u8* row = matrix.rows + place.row * matrix.row_bytes;
        if constexpr (Way::IS_COPIED) {
            const u8* from = is_there ? row + sizeof(u16) * column : matrix.rows;
            copy_16_bytes(stage + S::place(place.row, place.column), from, is_there ? 16 : 0);
        } else {
            brought.raw[run] = {};
            if (is_there) brought.raw[run] = Way::read(row, column, matrix.columns);
        }
    }
}

// What came by registers.
template <class S, class Way, u32 RUNS>
DEVICE void put(const Brought<Way, RUNS>& brought, u16* stage, u32 slice) {
    if constexpr (!Way::IS_COPIED) {
#pragma unroll
        for (u32 run = 0; run < RUNS; ++run) {
            const Place place = place_of<S>(run);
            uint4* to = reinterpret_cast<uint4*>(stage + S::place(place.row, place.column));
            *to = Way::pairs(brought.raw[run], slice + place.column);
        }
    }
}

// Where this warp's part of the tile begins.
template <class S>
DEVICE u32 first_row() {
    return threadIdx.x / WARP % S::ROW_WARPS * S::WARP_ROWS;
}

template <class S>
DEVICE u32 first_output() {
    return threadIdx.x / WARP / S::ROW_WARPS * S::WARP_OUTPUTS;
}

template <class S>
using Sums = float[S::ROW_TILES][S::OUTPUT_TILES][4];

// One slice of the products of this warp.
template <class S>
DEVICE void multiply(Sums<S>& sums, const u16* x, const u16* weight) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 k = 0; k < S::SLICE; k += 16) {
        u32 b[S::OUTPUT_TILES / 2][4];
#pragma unroll
        for (u32 pair = 0; pair < S::OUTPUT_TILES / 2; ++pair) {
            const u32 output = first_output<S>() + 16 * pair + lane / 16 * 8 + lane % 8;
            load_matrices(b[pair], weight + S::place(output, k + lane / 8 % 2 * RUN));
        }
#pragma unroll
        for (u32 tile = 0; tile < S::ROW_TILES; ++tile) {
            u32 a[4];
            load_matrices(a, x + S::place(first_row<S>() + 16 * tile + lane % 16, k + lane / 16 * RUN));
#pragma unroll
            for (u32 pair = 0; pair < S::OUTPUT_TILES / 2; ++pair) {
                const u32 even[2] = {b[pair][0], b[pair][1]}, odd[2] = {b[pair][2], b[pair][3]};
                mma_16_8_16(sums[tile][2 * pair], a, even);
                mma_16_8_16(sums[tile][2 * pair + 1], a, odd);
            }
        }
    }
}

template <class S>
DEVICE void store(const LinearRowsArguments& arguments, const Sums<S>& sums) {
    const u32 lane = threadIdx.x % WARP, outputs = arguments.outputs;
#pragma unroll
    for (u32 tile = 0; tile < S::ROW_TILES; ++tile)
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            const u32 row = blockIdx.x * S::ROWS + first_row<S>() + 16 * tile + 8 * half + lane / 4;
            if (row >= arguments.rows) continue;
            float* out = arguments.out + static_cast<u64>(row) * outputs;
#pragma unroll
            for (u32 other = 0; other < S::OUTPUT_TILES; ++other) {
                const u32 output = blockIdx.y * S::OUTPUTS + first_output<S>() + 8 * other + lane % 4 * 2;
                const float first = sums[tile][other][2 * half], second = sums[tile][other][2 * half + 1];
                if (outputs % 2 == 0) {
                    if (output < outputs) *reinterpret_cast<float2*>(out + output) = {first, second};
                    continue;
                }
                if (output < outputs) out[output] = first;
                if (output + 1 < outputs) out[output + 1] = second;
            }
        }
}

template <class S>
struct __align__(16) Ring {
    u16 x[S::STAGES][S::ROWS * S::SLICE], weight[S::STAGES][S::OUTPUTS * S::SLICE];
};

// Both matrices, each brought in its way.
template <class S, class WayOfX, class WayOfWeight>
DEVICE void products(const LinearRowsArguments& arguments, Ring<S>& ring, const Matrix& x, const Matrix& weight) {
    auto& [x_stages, weight_stages] = ring;
    Brought<WayOfX, S::ROWS * S::PIECES / THREADS> of_x;
    Brought<WayOfWeight, S::OUTPUTS * S::PIECES / THREADS> of_weight;
    Sums<S> sums = {};
    // Slices so far ahead are on their way.
    constexpr u32 AHEAD = (S::STAGES - 1) * S::SLICE;
    for (u32 stage = 0; stage < S::STAGES - 1; ++stage) {
        const u32 slice = stage * S::SLICE;
        bring<S>(of_x, x_stages[stage], x, slice);
        bring<S>(of_weight, weight_stages[stage], weight, slice);
        end_copies();
        put<S>(of_x, x_stages[stage], slice);
        put<S>(of_weight, weight_stages[stage], slice);
    }
    u32 stage = 0, free = S::STAGES - 1;
    for (u32 slice = 0; slice < arguments.inputs; slice += S::SLICE) {
        wait_for_copies<S::STAGES - 2>();
        __syncthreads();
        const u32 next = slice + AHEAD;
        if (next < arguments.inputs) {
            bring<S>(of_x, x_stages[free], x, next);
            bring<S>(of_weight, weight_stages[free], weight, next);
        }
        // An empty group too: the slice to wait for is always as many groups back.
        end_copies();
        multiply<S>(sums, x_stages[stage], weight_stages[stage]);
        if (next < arguments.inputs) {
            put<S>(of_x, x_stages[free], next);
            put<S>(of_weight, weight_stages[free], next);
        }
        free = stage;
        stage = stage + 1 == S::STAGES ? 0 : stage + 1;
    }
    store<S>(arguments, sums);
}

template <class Format, class S>
DEVICE void linear_rows(const LinearRowsArguments& arguments) {
    SHARED Ring<S> ring;
    const u32 inputs = arguments.inputs, row = blockIdx.x * S::ROWS, output = blockIdx.y * S::OUTPUTS;
    const u8* rows = reinterpret_cast<const u8*>(arguments.x + static_cast<u64>(row) * inputs);
    const Matrix x = {rows, F32::row_bytes(inputs), arguments.rows - row, inputs};
    const u64 row_bytes = Format::row_bytes(inputs);
    const Matrix weight = {arguments.weight + output * row_bytes, row_bytes, arguments.outputs - output, inputs};
    if constexpr (S::HAS_REST && !is_in_blocks<Format>)
        if (inputs % RUN != 0) return products<S, OneByOne<F32>, OneByOne<Format>>(arguments, ring, x, weight);
    products<S, ByPieces<F32>, typename OfWeights<Format>::Way>(arguments, ring, x, weight);
}

#define DEFINE(name, Format)                                                                                           \
    KERNEL_RESIDENT(linear_rows_##name##_128, THREADS, 2, LinearRowsArguments) { linear_rows<Format, Large>(arguments); } \
    KERNEL_RESIDENT(linear_rows_##name##_32, THREADS, 2, LinearRowsArguments) { linear_rows<Format, Small>(arguments); }
FOR_EACH_FORMAT(DEFINE)
