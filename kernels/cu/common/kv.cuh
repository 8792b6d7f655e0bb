// Keys and values in blocks of 16 tokens: [block][keys, values][kv_head][16 tokens][head_dim], of one layer.
#pragma once
#include "numbers.cuh"

constexpr u32 BLOCK_TOKENS = 16;
constexpr u32 HEAD_DIM_MAX = 256;

// Where the elements of one layer of the pool are.
struct KvLayer {
    u8* elements;
    u32 kv_heads;
    u32 head_dim;
};

struct PoolF32 {
    DEVICE u64 bytes(u64 elements) { return 4 * elements; }
    DEVICE float load(const u8* at, u32 index) { return reinterpret_cast<const float*>(at)[index]; }
    DEVICE void store(u8* at, u32 index, float value) { reinterpret_cast<float*>(at)[index] = value; }
};

struct PoolBf16 {
    DEVICE u64 bytes(u64 elements) { return 2 * elements; }
    DEVICE float load(const u8* at, u32 index) { return bf16_to_f32(reinterpret_cast<const u16*>(at)[index]); }
    DEVICE void store(u8* at, u32 index, float value) { reinterpret_cast<u16*>(at)[index] = f32_to_bf16(value); }
};

// Of scale 1: keys and values are of a size that e4m3 has with a relative error of 1/16 at most.
struct PoolFp8 {
    DEVICE u64 bytes(u64 elements) { return elements; }
    DEVICE float load(const u8* at, u32 index) { return e4m3_to_f32(at[index]); }
    DEVICE void store(u8* at, u32 index, float value) { at[index] = f32_to_e4m3(value); }
};

// The keys (0) or values (1) of one head of one token, whose slot is block · 16 + place in the block.
template <class Pool>
DEVICE u8* kv_row(const KvLayer& pool, u32 slot, u32 kind, u32 head) {
    const u64 block = slot / BLOCK_TOKENS, place = slot % BLOCK_TOKENS;
    const u64 row = ((block * 2 + kind) * pool.kv_heads + head) * BLOCK_TOKENS + place;
    return pool.elements + Pool::bytes(row * pool.head_dim);
}

// Names of kernels end in the pool's type as Rust spells it (`kernels/src/kv.rs`).
#define FOR_EACH_POOL(DEFINE) \
    DEFINE(f32, PoolF32)      \
    DEFINE(bf16, PoolBf16)    \
    DEFINE(fp8, PoolFp8)
