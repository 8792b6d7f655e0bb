// Products of a few rows with a matrix, for decoding.
//
//   linear:       out = x · weightᵀ
//   linear_gated: out = function(x · weightᵀ) ⊙ (x · upᵀ), functions as in gate.cuh
//
//   x [rows, inputs] f32, rows 1 to 8; weight, up [outputs, inputs] in any format; out [rows, outputs] f32
//
// A warp for each output, eight of them in a block: its lanes go along the weight's row in words of the format, widen each
// once and use it for every row of x. An output is added up in an order that the number of rows does not change, so that a
// sequence gets the same alone and beside others. Weights are read once and never again; x stays in the first cache. Gated, a warp
// goes along the rows of both matrices at once, and adds each up as if it were the only one.
#include "formats.cuh"
#include "gate.cuh"
#include "reduce.cuh"

constexpr u32 ROWS_MAX = 8;
constexpr u32 WARPS = 8;

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

// What a lane widens at once: one value of any format, from anywhere.
template <class Format>
struct Single {
    static constexpr u32 VALUES = 1;
    DEVICE void widen(const u8* row, u32 column, float* values) { values[0] = Format::at(row, column); }
};

template <class Format>
struct Words : Single<Format> {};

// 16 bytes, where rows begin at multiples of them.
template <>
struct Words<F32> {
    static constexpr u32 VALUES = 4;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        const float4 word = *reinterpret_cast<const float4*>(row + 4ull * column);
        values[0] = word.x, values[1] = word.y, values[2] = word.z, values[3] = word.w;
    }
};

template <class WidenPair>
DEVICE void widen_16_bytes(const u8* bytes, float* values, WidenPair widen) {
    const uint4 word = *reinterpret_cast<const uint4*>(bytes);
    const u32 parts[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
    for (u32 part = 0; part < 4; ++part) widen(parts[part], values + 2 * part);
}

template <>
struct Words<F16> {
    static constexpr u32 VALUES = 8;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        widen_16_bytes(row + 2ull * column, values, [](u32 part, float* pair) {
            pair[0] = f16_to_f32(static_cast<u16>(part)), pair[1] = f16_to_f32(static_cast<u16>(part >> 16));
        });
    }
};

template <>
struct Words<Bf16> {
    static constexpr u32 VALUES = 8;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        widen_16_bytes(row + 2ull * column, values, [](u32 part, float* pair) {
            pair[0] = __uint_as_float(part << 16), pair[1] = __uint_as_float(part & 0xffff0000u);
        });
    }
};

// Eight values of one block: its scale is read once for them, and their bytes two at a time, as blocks of 34, 18 and 210 bytes
// begin at even places only.
DEVICE u32 byte_at(const u8* bytes, u32 index) {
    const u16 two = *reinterpret_cast<const u16*>(bytes + index / 2 * 2);
    return two >> (index % 2 * 8) & 255u;
}

template <>
struct Words<Q8_0> {
    static constexpr u32 VALUES = 8;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        const u8* block = row + static_cast<u64>(column / Q8_0::VALUES) * Q8_0::BYTES;
        const float scale = f16_to_f32(*reinterpret_cast<const u16*>(block));
        const u8* bytes = block + 2 + column % Q8_0::VALUES;
#pragma unroll
        for (u32 i = 0; i < VALUES; ++i) values[i] = scale * static_cast<float>(static_cast<i8>(byte_at(bytes, i)));
    }
};

template <>
struct Words<Q4_0> {
    static constexpr u32 VALUES = 8;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        const u8* block = row + static_cast<u64>(column / Q4_0::VALUES) * Q4_0::BYTES;
        const float scale = f16_to_f32(*reinterpret_cast<const u16*>(block));
        const u32 first = column % Q4_0::VALUES, shift = first / 16 * 4;
        const u8* bytes = block + 2 + first % 16;
#pragma unroll
        for (u32 i = 0; i < VALUES; ++i)
            values[i] = scale * (static_cast<float>(byte_at(bytes, i) >> shift & 15u) - 8.0f);
    }
};

// Blocks of 144 bytes begin at multiples of 16.
template <>
struct Words<Q4_K> {
    static constexpr u32 VALUES = 8;
    DEVICE void widen(const u8* row, u32 column, float* values) {
        const u8* block = row + static_cast<u64>(column / Q4_K::VALUES) * Q4_K::BYTES;
        const u32 first = column % Q4_K::VALUES, shift = first / 32 % 2 * 4;
        const Q4_K::Group group = Q4_K::group(block, first / 32);
        const u32* words = reinterpret_cast<const u32*>(block + 16 + first / 64 * 32 + first % 32);
        const u32 low = words[0], high = words[1];
#pragma unroll
        for (u32 i = 0; i < VALUES; ++i) {
            const u32 nibble = (i < 4 ? low : high) >> (i % 4 * 8 + shift) & 15u;
            values[i] = group.scale * static_cast<float>(nibble) - group.minimum;
        }
    }
};

// Of a row of x: by 16 bytes where words begin at multiples of them.
template <u32 VALUES>
DEVICE void read(const float* from, float* x) {
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

template <class Format, class Word, u32 MATRICES, u32 ROWS>
DEVICE void products(const LinearArguments& arguments) {
    const u32 output = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (output >= arguments.outputs) return;
    const u32 inputs = arguments.inputs;
    const u64 start = output * Format::row_bytes(inputs);
    const u8* const rows[2] = {arguments.weight + start, arguments.up + start};
    float sums[MATRICES][ROWS] = {};
    for (u32 column = lane * Word::VALUES; column < inputs; column += WARP * Word::VALUES) {
        float values[MATRICES][Word::VALUES];
#pragma unroll
        for (u32 matrix = 0; matrix < MATRICES; ++matrix) Word::widen(rows[matrix], column, values[matrix]);
#pragma unroll
        for (u32 r = 0; r < ROWS; ++r) {
            float x[Word::VALUES];
            read<Word::VALUES>(arguments.x + static_cast<u64>(r) * inputs + column, x);
#pragma unroll
            for (u32 matrix = 0; matrix < MATRICES; ++matrix)
#pragma unroll
                for (u32 value = 0; value < Word::VALUES; ++value)
                    sums[matrix][r] = fmaf(x[value], values[matrix][value], sums[matrix][r]);
        }
    }
#pragma unroll
    for (u32 r = 0; r < ROWS; ++r) {
        float result = warp_sum(sums[0][r]);
        if constexpr (MATRICES == 2) result = gate_value(arguments.function, result) * warp_sum(sums[1][r]);
        if (lane == 0) arguments.out[static_cast<u64>(r) * arguments.outputs + output] = result;
    }
}

template <class Format, class Word, u32 MATRICES>
DEVICE void linear(const LinearArguments& arguments) {
    switch (arguments.rows) {
        case 1: return products<Format, Word, MATRICES, 1>(arguments);
        case 2: return products<Format, Word, MATRICES, 2>(arguments);
        case 3: return products<Format, Word, MATRICES, 3>(arguments);
        case 4: return products<Format, Word, MATRICES, 4>(arguments);
        case 5: return products<Format, Word, MATRICES, 5>(arguments);
        case 6: return products<Format, Word, MATRICES, 6>(arguments);
        case 7: return products<Format, Word, MATRICES, 7>(arguments);
        case 8: return products<Format, Word, MATRICES, 8>(arguments);
    }
}

// Which values a lane takes must not depend on more than the number of inputs either.
template <class Format, u32 MATRICES>
DEVICE void linear_of(const LinearArguments& arguments) {
    if (arguments.inputs % Words<Format>::VALUES == 0)
        linear<Format, Words<Format>, MATRICES>(arguments);
    else
        linear<Format, Single<Format>, MATRICES>(arguments);
}

#define DEFINE(name, Format)                                                                      \
    KERNEL(linear_##name, WARPS * WARP, LinearArguments) { linear_of<Format, 1>(arguments); }     \
    KERNEL(linear_gated_##name, WARPS * WARP, LinearArguments) { linear_of<Format, 2>(arguments); }
FOR_EACH_FORMAT(DEFINE)
