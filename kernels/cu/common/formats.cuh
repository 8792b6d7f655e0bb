// Weights in the formats that checkpoints have: a value anywhere in a row, widened to a float.
//
// A row begins at a multiple of its own size from the weight's start, which is a multiple of 256 bytes.
#pragma once
#include "numbers.cuh"

struct F32 {
    DEVICE u64 row_bytes(u32 columns) { return 4ull * columns; }
    DEVICE float at(const u8* row, u32 column) { return reinterpret_cast<const float*>(row)[column]; }
};

struct F16 {
    DEVICE u64 row_bytes(u32 columns) { return 2ull * columns; }
    DEVICE float at(const u8* row, u32 column) { return f16_to_f32(reinterpret_cast<const u16*>(row)[column]); }
};

struct Bf16 {
    DEVICE u64 row_bytes(u32 columns) { return 2ull * columns; }
    DEVICE float at(const u8* row, u32 column) { return bf16_to_f32(reinterpret_cast<const u16*>(row)[column]); }
};

// Two bytes at any place.
DEVICE u16 u16_at(const u8* bytes) { return static_cast<u16>(bytes[0] | bytes[1] << 8); }

// 32 values: an f16 scale, then 32 signed bytes.
struct Q8_0 {
    static constexpr u32 VALUES = 32, BYTES = 34;
    DEVICE u64 row_bytes(u32 columns) { return static_cast<u64>(columns / VALUES) * BYTES; }
    DEVICE float at(const u8* row, u32 column) {
        const u8* block = row + static_cast<u64>(column / VALUES) * BYTES;
        return f16_to_f32(u16_at(block)) * static_cast<float>(static_cast<i8>(block[2 + column % VALUES]));
    }
};

// 32 values: an f16 scale, then 16 bytes with value i in the low half of byte i and value i + 16 in its high half, less 8.
struct Q4_0 {
    static constexpr u32 VALUES = 32, BYTES = 18;
    DEVICE u64 row_bytes(u32 columns) { return static_cast<u64>(columns / VALUES) * BYTES; }
    DEVICE float at(const u8* row, u32 column) {
        const u8* block = row + static_cast<u64>(column / VALUES) * BYTES;
        const u32 i = column % VALUES;
        const u32 nibble = block[2 + i % 16] >> (i / 16 * 4) & 15u;
        return f16_to_f32(u16_at(block)) * (static_cast<float>(nibble) - 8.0f);
    }
};

// 256 values: f16 scale and f16 minimum, 12 bytes with 8 scales and 8 minima of 6 bits, 128 bytes of nibbles: 64 values in 32
// bytes, the first 32 in the low halves.
struct Q4_K {
    static constexpr u32 VALUES = 256, BYTES = 144;
    DEVICE u64 row_bytes(u32 columns) { return static_cast<u64>(columns / VALUES) * BYTES; }

    // What 32 values share.
    struct Group {
        float scale, minimum;
    };

    DEVICE Group group(const u8* block, u32 group) {
        const u8* packed = block + 4;
        u32 scale, minimum;
        if (group < 4) {
            scale = packed[group] & 63u;
            minimum = packed[group + 4] & 63u;
        } else {
            scale = (packed[group + 4] & 15u) | (packed[group - 4] >> 6) << 4;
            minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
        }
        const float d = f16_to_f32(u16_at(block)), m = f16_to_f32(u16_at(block + 2));
        return {d * static_cast<float>(scale), m * static_cast<float>(minimum)};
    }

    DEVICE float at(const u8* row, u32 column) {
        const u8* block = row + static_cast<u64>(column / VALUES) * BYTES;
        const u32 i = column % VALUES;
        const u32 nibble = block[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15u;
        const Group shared = group(block, i / 32);
        return shared.scale * static_cast<float>(nibble) - shared.minimum;
    }
};

// 256 values: 128 bytes of low halves, 64 bytes of upper two bits, 16 signed scales, an f16 scale; values less 32.
struct Q6_K {
    static constexpr u32 VALUES = 256, BYTES = 210;
    DEVICE u64 row_bytes(u32 columns) { return static_cast<u64>(columns / VALUES) * BYTES; }
    DEVICE float at(const u8* row, u32 column) {
        const u8* block = row + static_cast<u64>(column / VALUES) * BYTES;
        const u32 i = column % VALUES, half = i / 128, within = i % 128;
        const u32 low = block[half * 64 + within % 64] >> (within / 64 * 4) & 15u;
        const u32 high = block[128 + half * 32 + within % 32] >> (within / 32 * 2) & 3u;
        const i32 value = static_cast<i32>(low | high << 4) - 32;
        const float scale = static_cast<float>(static_cast<i8>(block[192 + i / 16]));
        return f16_to_f32(u16_at(block + 208)) * scale * static_cast<float>(value);
    }
};

// A vector of weights whose format the launch says: it is read so seldom that choosing at each value costs nothing.
struct Vector {
    // Null where there is none.
    const u8* values;
    // As `VectorArguments` numbers them.
    u32 format;
    u32 end;

    DEVICE float at(const Vector& vector, u32 column) {
        switch (vector.format) {
            case 0: return F32::at(vector.values, column);
            case 1: return F16::at(vector.values, column);
            default: return Bf16::at(vector.values, column);
        }
    }
};

// Names of kernels end in the format's name as Rust spells it (`kernels/src/format.rs`).
#define FOR_EACH_FORMAT(DEFINE) \
    DEFINE(f32, F32)            \
    DEFINE(f16, F16)            \
    DEFINE(bf16, Bf16)          \
    DEFINE(q8_0, Q8_0)          \
    DEFINE(q4_0, Q4_0)          \
    DEFINE(q4_k, Q4_K)          \
    DEFINE(q6_k, Q6_K)
