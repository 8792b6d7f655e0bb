// Attention of many rows of a sequence, for prompts: what attention.cu computes row by row.
//
//   out[r] = softmax(scale · q · Kᵀ) · V over the positions that row r sees (common/scoring.cuh)
//
//   queries, out [rows, query_heads · head_dim] f32; pool as in common/kv.cuh; head_dim up to DIM, which is 64, 96, 128 or 256
//
// The rows of a sequence times the query heads of one key head are its queries, row after row. A block of four warps takes 64 of
// them, and goes along the sequence's keys and values in tiles: its threads read the next tile into registers while its warps
// multiply this one in shared memory. A warp has 16 queries, with a running softmax of each in registers (FlashAttention 2).
// Queries, keys, values and the exponentials are rounded to bf16 for the products; sums, and the softmax, are f32.
//
// Values beyond head_dim, and of positions that no row of the tile sees, are 0. Blocks with the longest way to go are first.
//
// A shared row has DIM values without padding, in pieces of 16 bytes that are swapped within the row by its number, so that the 8
// rows of a matrix that a warp loads at once lie in different banks (of 96 values: in pairs). With 256 values that is all of the
// 48 KiB that a kernel has by itself.
#include "kv.cuh"
#include "mma.cuh"
#include "scoring.cuh"

constexpr u32 WARPS = 4, THREADS = WARPS * WARP;
// Of a block, 16 of each warp.
constexpr u32 QUERIES = 16 * WARPS;
// Values that a thread brings at once, two in a word.
constexpr u32 PIECE = 8, WORDS = PIECE / 2;

// Where the rows of a sequence are, as `RowsOfSequence` in Rust.
struct SequenceRows {
    // Of all tiles of the launch.
    u32 first_tile;
    u32 first_row;
    u32 rows;
    // Of its first row; those after it follow.
    u32 position;
    u32 first_block;
};

struct AttentionRowsArguments {
    KvLayer pool;
    const float* queries;
    float* out;
    const SequenceRows* sequences;
    const u32* block_tables;
    Scoring scoring;
    u32 sequence_count;
    u32 query_heads;
};

template <u32 DIM_>
struct Shape {
    static constexpr u32 DIM = DIM_;
    // Keys of a tile, whole blocks of the pool: with their values they have 16 KiB at most, which is what 64 queries of 256 values
    // leave of 48.
    static constexpr u32 KEYS = DIM == 64 ? 64 : DIM == 256 ? 16 : 32;
    static constexpr u32 PIECES = DIM / PIECE;
    // Which bits of a row's number swap its pieces: these leave them within the row.
    static constexpr u32 SWAPPED = PIECES % 8 == 0 ? 7 : 3;
    // Of a thread.
    static constexpr u32 BROUGHT = KEYS * PIECES / THREADS;
    static_assert(KEYS * PIECES % THREADS == 0 && PIECES % (SWAPPED + 1) == 0 && KEYS % 16 == 0, "whole pieces");

    DEVICE u32 place(u32 row, u32 column) {
        return row * DIM + (column / PIECE ^ (row & SWAPPED)) * PIECE + column % PIECE;
    }
};

// The queries of a block, and the positions that any of them sees.
struct Tile {
    SequenceRows sequence;
    u32 group, first_query, queries, begin, end;
};

DEVICE Tile tile_of(const AttentionRowsArguments& arguments) {
    const u32 index = gridDim.x - 1 - blockIdx.x;
    u32 number = arguments.sequence_count - 1;
    while (arguments.sequences[number].first_tile > index) --number;
    const SequenceRows sequence = arguments.sequences[number];
    const u32 group = arguments.query_heads / arguments.pool.kv_heads, all = sequence.rows * group;
    const u32 first_query = (index - sequence.first_tile) * QUERIES, left = all - first_query;
    const u32 queries = left < QUERIES ? left : QUERIES;
    const u32 first = sequence.position + first_query / group;
    const u32 last = sequence.position + (first_query + queries - 1) / group;
    return {sequence, group, first_query, queries, seen_of(arguments.scoring, first).begin, last + 1};
}

// Eight values of a row whose places are multiples of eight, as pairs of bf16.
DEVICE void read_pairs(PoolF32, const u8* row, u32 column, u32 (&pairs)[WORDS]) {
    const float4* from = reinterpret_cast<const float4*>(row + 4 * column);
    const float4 low = from[0], high = from[1];
    pairs[0] = bf16_pair(low.x, low.y), pairs[1] = bf16_pair(low.z, low.w);
    pairs[2] = bf16_pair(high.x, high.y), pairs[3] = bf16_pair(high.z, high.w);
}

DEVICE void read_pairs(PoolBf16, const u8* row, u32 column, u32 (&pairs)[WORDS]) {
    const uint4 words = *reinterpret_cast<const uint4*>(row + 2 * column);
    pairs[0] = words.x, pairs[1] = words.y, pairs[2] = words.z, pairs[3] = words.w;
}

DEVICE void read_pairs(PoolFp8, const u8* row, u32 column, u32 (&pairs)[WORDS]) {
    const u64 bytes = *reinterpret_cast<const u64*>(row + column);
#pragma unroll
    for (u32 i = 0; i < WORDS; ++i)
        pairs[i] = bf16_pair(e4m3_to_f32(static_cast<u8>(bytes >> 16 * i)), e4m3_to_f32(static_cast<u8>(bytes >> (16 * i + 8))));
}

// The keys (0) or values (1) of a tile's positions from `first` on: a thread's part of them.
template <class Pool, class S>
DEVICE void bring(u32 (&brought)[S::BROUGHT][WORDS], const AttentionRowsArguments& arguments, const Tile& tile, u32 kind, u32 first) {
    const KvLayer& pool = arguments.pool;
    const u32* table = arguments.block_tables + tile.sequence.first_block;
#pragma unroll
    for (u32 i = 0; i < S::BROUGHT; ++i) {
        const u32 index = i * THREADS + threadIdx.x;
        const u32 position = first + index / S::PIECES, column = index % S::PIECES * PIECE;
#pragma unroll
        for (u32 word = 0; word < WORDS; ++word) brought[i][word] = 0;
        if (position >= tile.end || column >= pool.head_dim) continue;
        const u32 slot = table[position / BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS;
        const u8* row = kv_row<Pool>(pool, slot, kind, blockIdx.y);
        if (pool.head_dim % PIECE == 0) {
            read_pairs(Pool(), row, column, brought[i]);
            continue;
        }
#pragma unroll
        for (u32 word = 0; word < WORDS; ++word) {
            const u32 at = column + 2 * word;
            const float low = at < pool.head_dim ? Pool::load(row, at) : 0.0f;
            brought[i][word] = bf16_pair(low, at + 1 < pool.head_dim ? Pool::load(row, at + 1) : 0.0f);
        }
    }
}

template <class S>
DEVICE void put(u16* to, const u32 (&brought)[S::BROUGHT][WORDS]) {
#pragma unroll
    for (u32 i = 0; i < S::BROUGHT; ++i) {
        const u32 index = i * THREADS + threadIdx.x;
        u32* words = reinterpret_cast<u32*>(to + S::place(index / S::PIECES, index % S::PIECES * PIECE));
#pragma unroll
        for (u32 word = 0; word < WORDS; ++word) words[word] = brought[i][word];
    }
}

// Where a query's values are, in `queries` and in `out`.
DEVICE u64 place_of(const AttentionRowsArguments& arguments, const Tile& tile, u32 query) {
    const u32 index = tile.first_query + query;
    const u64 row = tile.sequence.first_row + index / tile.group;
    return (row * arguments.query_heads + blockIdx.y * tile.group + index % tile.group) * arguments.pool.head_dim;
}

template <class S>
DEVICE void put_queries(u16* to, const AttentionRowsArguments& arguments, const Tile& tile) {
    const u32 head_dim = arguments.pool.head_dim;
    for (u32 index = threadIdx.x; index < QUERIES * S::DIM / 2; index += THREADS) {
        const u32 query = index / (S::DIM / 2), column = index % (S::DIM / 2) * 2;
        const float* from = arguments.queries + place_of(arguments, tile, query < tile.queries ? query : 0);
        const float low = query < tile.queries && column < head_dim ? from[column] : 0.0f;
        const float high = query < tile.queries && column + 1 < head_dim ? from[column + 1] : 0.0f;
        *reinterpret_cast<u32*>(to + S::place(query, column)) = bf16_pair(low, high);
    }
}

// A lane's part of its warp's 16 queries: those of rows lane / 4 and lane / 4 + 8 of the fragments.
template <class S>
struct Running {
    // Columns 2 · (lane % 4) and the next of each tile of 8; two of the one query, two of the other.
    float out[S::DIM / 8][4];
    // Of the scores so far, and the sum of the lane's own exponentials.
    float largest[2], sum[2];
    // Positions that a query sees.
    u32 begin[2], last[2];
};

template <class S>
DEVICE void score(float (&scores)[S::KEYS / 8][4], const u16* queries, const u16* keys) {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 k = 0; k < S::DIM; k += 16) {
        u32 a[4];
        load_matrices(a, queries + S::place(16 * warp + lane % 16, k + lane / 16 * PIECE));
#pragma unroll
        for (u32 tile = 0; tile < S::KEYS / 8; tile += 2) {
            u32 b[4];
            load_matrices(b, keys + S::place(8 * tile + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * PIECE));
            const u32 even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
            mma_16_8_16(scores[tile], a, even);
            mma_16_8_16(scores[tile + 1], a, odd);
        }
    }
}

// Turns products into exponentials under the largest score so far, and brings what there was to it.
template <class S>
DEVICE void soften(float (&scores)[S::KEYS / 8][4], Running<S>& running, const Scoring& scoring, u32 first) {
    const u32 lane = threadIdx.x % WARP;
    const float none = __uint_as_float(0xff800000u);
    float largest[2] = {running.largest[0], running.largest[1]};
#pragma unroll
    for (u32 tile = 0; tile < S::KEYS / 8; ++tile)
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32 position = first + 8 * tile + 2 * (lane % 4) + i % 2;
            const bool is_seen = position >= running.begin[i / 2] && position <= running.last[i / 2];
            scores[tile][i] = is_seen ? score_of(scoring, scores[tile][i]) : none;
            largest[i / 2] = fmaxf(largest[i / 2], scores[tile][i]);
        }
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        for (u32 distance = 1; distance <= 2; distance *= 2)
            largest[half] = fmaxf(largest[half], __shfl_xor_sync(ALL_LANES, largest[half], distance));
        // Of a query that has seen nothing yet, all exponentials are 0.
        const float base = largest[half] == none ? 0.0f : largest[half];
        const float kept = expf(running.largest[half] - base);
        running.largest[half] = largest[half];
        running.sum[half] *= kept;
#pragma unroll
        for (u32 tile = 0; tile < S::KEYS / 8; ++tile)
#pragma unroll
            for (u32 i = 2 * half; i < 2 * half + 2; ++i) {
                scores[tile][i] = expf(scores[tile][i] - base);
                running.sum[half] += scores[tile][i];
            }
#pragma unroll
        for (u32 tile = 0; tile < S::DIM / 8; ++tile) {
            running.out[tile][2 * half] *= kept;
            running.out[tile][2 * half + 1] *= kept;
        }
    }
}

template <class S>
DEVICE void accumulate(Running<S>& running, const float (&weights)[S::KEYS / 8][4], const u16* values) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 k = 0; k < S::KEYS; k += 16) {
        // Two tiles of sums are one of the other operand: lanes hold the same of both.
        const float(&low)[4] = weights[k / 8];
        const float(&high)[4] = weights[k / 8 + 1];
        const u32 a[4] = {bf16_pair(low[0], low[1]), bf16_pair(low[2], low[3]), bf16_pair(high[0], high[1]),
                          bf16_pair(high[2], high[3])};
#pragma unroll
        for (u32 tile = 0; tile < S::DIM / 8; tile += 2) {
            u32 b[4];
            load_matrices_transposed(b, values + S::place(k + lane % 16, 8 * tile + lane / 16 * PIECE));
            const u32 even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
            mma_16_8_16(running.out[tile], a, even);
            mma_16_8_16(running.out[tile + 1], a, odd);
        }
    }
}

template <class S>
DEVICE void store(const Running<S>& running, const AttentionRowsArguments& arguments, const Tile& tile) {
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        float sum = running.sum[half];
        for (u32 distance = 1; distance <= 2; distance *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, distance);
        const u32 query = 16 * warp + lane / 4 + 8 * half;
        if (query >= tile.queries) continue;
        const u32 head = blockIdx.y * tile.group + (tile.first_query + query) % tile.group;
        sum += sink_of(arguments.scoring, head, running.largest[half]);
        float* out = arguments.out + place_of(arguments, tile, query);
#pragma unroll
        for (u32 place = 0; place < S::DIM / 8; ++place)
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                const u32 column = 8 * place + 2 * (lane % 4) + i;
                if (column < arguments.pool.head_dim) out[column] = running.out[place][2 * half + i] / sum;
            }
    }
}

template <class S>
DEVICE Running<S> nothing_yet(const AttentionRowsArguments& arguments, const Tile& tile) {
    Running<S> running = {};
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        const u32 query = tile.first_query + 16 * (threadIdx.x / WARP) + threadIdx.x % WARP / 4 + 8 * half;
        running.last[half] = tile.sequence.position + query / tile.group;
        running.begin[half] = seen_of(arguments.scoring, running.last[half]).begin;
        running.largest[half] = __uint_as_float(0xff800000u);
    }
    return running;
}

template <class Pool, class S>
DEVICE void attention_rows(const AttentionRowsArguments& arguments) {
    SHARED __align__(16) u16 queries[QUERIES * S::DIM], keys[S::KEYS * S::DIM], values[S::KEYS * S::DIM];
    const Tile tile = tile_of(arguments);
    Running<S> running = nothing_yet<S>(arguments, tile);
    u32 next_keys[S::BROUGHT][WORDS], next_values[S::BROUGHT][WORDS];
    const u32 begin = tile.begin / S::KEYS * S::KEYS;
    bring<Pool, S>(next_keys, arguments, tile, 0, begin);
    bring<Pool, S>(next_values, arguments, tile, 1, begin);
    put_queries<S>(queries, arguments, tile);
    for (u32 first = begin; first < tile.end; first += S::KEYS) {
        put<S>(keys, next_keys);
        put<S>(values, next_values);
        __syncthreads();
        if (first + S::KEYS < tile.end) {
            bring<Pool, S>(next_keys, arguments, tile, 0, first + S::KEYS);
            bring<Pool, S>(next_values, arguments, tile, 1, first + S::KEYS);
        }
        float scores[S::KEYS / 8][4] = {};
        score<S>(scores, queries, keys);
        soften<S>(scores, running, arguments.scoring, first);
        accumulate<S>(running, scores, values);
        __syncthreads();
    }
    store<S>(running, arguments, tile);
}

#define DEFINE_DIM(name, Pool, dim) \
    KERNEL(attention_rows_##name##_##dim, THREADS, AttentionRowsArguments) { attention_rows<Pool, Shape<dim>>(arguments); }
#define DEFINE(name, Pool)      \
    DEFINE_DIM(name, Pool, 64)  \
    DEFINE_DIM(name, Pool, 96)  \
    DEFINE_DIM(name, Pool, 128) \
    DEFINE_DIM(name, Pool, 256)
FOR_EACH_POOL(DEFINE)
