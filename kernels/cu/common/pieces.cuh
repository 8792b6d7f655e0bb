// Weights by pieces: what a lane reads at once, by words as wide as the format's places allow, and widens to floats later, so that
// several pieces can be on their way.
//
// A piece is of runs of eight consecutive values. Formats that have two numbers of 4 bits in a byte have two runs in a piece, as
// far apart as the two numbers' places in the row: no byte is read twice. Each format says
//
//   Raw                   what is read
//   read(row, piece)      reads it
//   widen(raw, piece, run, values)
//
// and from where to where its runs are: see `Consecutive` and `Paired`.
#pragma once
#include "formats.cuh"

constexpr u32 RUN = 8;

// Rows in blocks are of whole runs always.
template <class Format, class = void>
constexpr bool is_in_blocks = false;
template <class Format>
constexpr bool is_in_blocks<Format, decltype(static_cast<void>(Format::BYTES))> = true;

// 16 bytes that no other lane reads: the first cache keeps what is read again.
DEVICE uint4 read_once(const u8* from) {
#if defined(SPARKHERD_HOST_SHIM)
    return *reinterpret_cast<const uint4*>(from);
#else
    uint4 word;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
        : "l"(from));
    return word;
#endif
}

// Each piece is one run.
struct Consecutive {
    static constexpr u32 RUNS = 1, APART = 0;
    DEVICE u32 column(u32 piece) { return piece * RUN; }
    DEVICE u32 piece_of(u32 column) { return column / RUN; }
    DEVICE u32 run_of(u32) { return 0; }
};

// The two runs of a piece are so many values apart.
template <u32 APART_>
struct Paired {
    static constexpr u32 RUNS = 2, APART = APART_, PIECES = APART / RUN;
    // Of the first run.
    DEVICE u32 column(u32 piece) { return piece / PIECES * (2 * APART) + piece % PIECES * RUN; }
    DEVICE u32 piece_of(u32 column) { return column / (2 * APART) * PIECES + column % APART / RUN; }
    DEVICE u32 run_of(u32 column) { return column % (2 * APART) / APART; }
};

struct EightBytes {
    u32 low, high;
};

// From an even place on, as blocks of 34, 18 and 210 bytes begin at those only: by words of 4 bytes from the multiple of 4 before
// it. Nothing beyond the eight is read.
DEVICE EightBytes eight_bytes(const u8* from) {
    const u32 before = static_cast<u32>(reinterpret_cast<u64>(from)) & 2u;
    const u32* words = reinterpret_cast<const u32*>(from - before);
    const u32 first = words[0], second = words[1], last = *reinterpret_cast<const u16*>(from + 6);
    return {__funnelshift_r(first, second, 8 * before), __funnelshift_r(second, last, 8 * before)};
}

// A byte of a word, less `bias`. As the last places of 2²³ it is a float at once, which takes two instructions of full rate;
// conversions of integers have a quarter of it.
DEVICE float byte_of(u32 word, u32 index, float bias) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u + index)) - (8388608.0f + bias);
}

DEVICE void widen_bytes(const EightBytes& bytes, float bias, float scale, float (&values)[RUN]) {
#pragma unroll
    for (u32 i = 0; i < RUN; ++i) values[i] = scale * byte_of(i < 4 ? bytes.low : bytes.high, i % 4, bias);
}

template <class Format>
struct Pieces;

template <>
struct Pieces<F32> : Consecutive {
    struct Raw {
        float4 low, high;
    };
    DEVICE Raw read(const u8* row, u32 piece) {
        const float4* words = reinterpret_cast<const float4*>(row) + 2ull * piece;
        return {words[0], words[1]};
    }
    DEVICE void widen(const Raw& raw, u32, u32, float (&values)[RUN]) {
        values[0] = raw.low.x, values[1] = raw.low.y, values[2] = raw.low.z, values[3] = raw.low.w;
        values[4] = raw.high.x, values[5] = raw.high.y, values[6] = raw.high.z, values[7] = raw.high.w;
    }
};

template <>
struct Pieces<F16> : Consecutive {
    struct Raw {
        uint4 words;
    };
    DEVICE Raw read(const u8* row, u32 piece) { return {read_once(row + sizeof(uint4) * piece)}; }
    DEVICE void widen(const Raw& raw, u32, u32, float (&values)[RUN]) {
        const u32 parts[4] = {raw.words.x, raw.words.y, raw.words.z, raw.words.w};
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            values[2 * part] = f16_to_f32(static_cast<u16>(parts[part]));
            values[2 * part + 1] = f16_to_f32(static_cast<u16>(parts[part] >> 16));
        }
    }
};

template <>
struct Pieces<Bf16> : Consecutive {
    struct Raw {
        uint4 words;
    };
    DEVICE Raw read(const u8* row, u32 piece) { return {read_once(row + sizeof(uint4) * piece)}; }
    DEVICE void widen(const Raw& raw, u32, u32, float (&values)[RUN]) {
        const u32 parts[4] = {raw.words.x, raw.words.y, raw.words.z, raw.words.w};
#pragma unroll
        for (u32 part = 0; part < 4; ++part) {
            values[2 * part] = __uint_as_float(parts[part] << 16);
            values[2 * part + 1] = __uint_as_float(parts[part] & 0xffff0000u);
        }
    }
};

template <>
struct Pieces<Q8_0> : Consecutive {
    struct Raw {
        EightBytes bytes;
        u16 scale;
    };
    DEVICE Raw read(const u8* row, u32 piece) {
        const u8* block = row + static_cast<u64>(piece / 4) * Q8_0::BYTES;
        return {eight_bytes(block + 2 + piece % 4 * RUN), *reinterpret_cast<const u16*>(block)};
    }
    DEVICE void widen(const Raw& raw, u32, u32, float (&values)[RUN]) {
        // With its sign turned, a signed byte is 128 more.
        const EightBytes bytes = {raw.bytes.low ^ 0x80808080u, raw.bytes.high ^ 0x80808080u};
        widen_bytes(bytes, 128.0f, f16_to_f32(raw.scale), values);
    }
};

template <>
struct Pieces<Q4_0> : Paired<16> {
    struct Raw {
        EightBytes nibbles;
        u16 scale;
    };
    DEVICE Raw read(const u8* row, u32 piece) {
        const u8* block = row + static_cast<u64>(piece / PIECES) * Q4_0::BYTES;
        return {eight_bytes(block + 2 + piece % PIECES * RUN), *reinterpret_cast<const u16*>(block)};
    }
    DEVICE void widen(const Raw& raw, u32, u32 run, float (&values)[RUN]) {
        const EightBytes bytes = {raw.nibbles.low >> 4 * run & 0x0f0f0f0fu, raw.nibbles.high >> 4 * run & 0x0f0f0f0fu};
        widen_bytes(bytes, 8.0f, f16_to_f32(raw.scale), values);
    }
};

// Blocks of 144 bytes begin at multiples of 16.
template <>
struct Pieces<Q4_K> : Paired<32> {
    struct Raw {
        // Scale and minimum of the block; then scales and minima of its groups.
        uint4 shared;
        EightBytes nibbles;
    };
    DEVICE Raw read(const u8* row, u32 piece) {
        const u8* block = row + static_cast<u64>(piece / 16) * Q4_K::BYTES;
        const u32* nibbles = reinterpret_cast<const u32*>(block + 16 + piece % 16 * RUN);
        return {*reinterpret_cast<const uint4*>(block), {nibbles[0], nibbles[1]}};
    }
    DEVICE void widen(const Raw& raw, u32 piece, u32 run, float (&values)[RUN]) {
        const u32 group = piece % 16 / PIECES * 2 + run, shift = 8 * (group % 4);
        const u32 scales = raw.shared.y >> shift, minima = raw.shared.z >> shift, uppers = raw.shared.w >> shift;
        const bool is_lower = group < 4;
        const u32 scale = is_lower ? scales & 63u : (uppers & 15u) | (scales >> 2 & 0x30u);
        const u32 minimum = is_lower ? minima & 63u : (uppers >> 4 & 15u) | (minima >> 2 & 0x30u);
        const float of_scale = f16_to_f32(static_cast<u16>(raw.shared.x)) * byte_of(scale, 0, 0.0f);
        const float of_minimum = f16_to_f32(static_cast<u16>(raw.shared.x >> 16)) * byte_of(minimum, 0, 0.0f);
        const EightBytes bytes = {raw.nibbles.low >> 4 * run & 0x0f0f0f0fu, raw.nibbles.high >> 4 * run & 0x0f0f0f0fu};
        widen_bytes(bytes, 0.0f, of_scale, values);
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) values[i] -= of_minimum;
    }
};

// Half a block is 128 values: byte i of its low halves has those of values i and i + 64, byte i of its upper bits those of values
// i, i + 32, i + 64 and i + 96.
template <>
struct Pieces<Q6_K> : Paired<64> {
    struct Raw {
        EightBytes low, high;
        // The block's in the lower half, then a byte for each run.
        u32 scales;
    };
    DEVICE Raw read(const u8* row, u32 piece) {
        const u8* block = row + static_cast<u64>(piece / 16) * Q6_K::BYTES;
        const u32 half = piece % 16 / PIECES, within = piece % PIECES * RUN;
        const u8* scales = block + 192 + half * 8 + within / 16;
        const u32 shared = *reinterpret_cast<const u16*>(block + 208);
        return {eight_bytes(block + half * 64 + within),
                eight_bytes(block + 128 + half * 32 + within % 32),
                shared | scales[0] << 16 | static_cast<u32>(scales[4]) << 24};
    }
    DEVICE void widen(const Raw& raw, u32 piece, u32 run, float (&values)[RUN]) {
        const u32 upper = piece % PIECES / 4 * 2 + 4 * run;
        const auto together = [&](u32 low, u32 high) {
            return (low >> 4 * run & 0x0f0f0f0fu) | (high >> upper & 0x03030303u) << 4;
        };
        const EightBytes bytes = {together(raw.low.low, raw.high.low), together(raw.low.high, raw.high.high)};
        const float of_run = byte_of((raw.scales ^ 0x80800000u) >> 8 * run, 2, 128.0f);
        widen_bytes(bytes, 32.0f, f16_to_f32(static_cast<u16>(raw.scales)) * of_run, values);
    }
};
