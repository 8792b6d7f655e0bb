// Keys and values in blocks of 16 tokens, and attention over them.
//
//   kv_write:  rounds a step's keys and values to the pool's type and stores them, before any query of the step reads
//   attention: out[r] = softmax(scale · q · Kᵀ) · V over positions 0 to the row's own, or a window of the last of them; scores may
//              be capped, and a head may have a sink beside them (common/scoring.cuh); query head h reads key head
//              h / (query_heads / kv_heads)
//
//   keys, values [rows, kv_heads · head_dim] f32; queries, out [rows, query_heads · head_dim] f32; head_dim up to 256
//   pool: [layer][block][keys, values][kv_head][16 tokens][head_dim] of f32, bf16 or fp8 (e4m3)
//
// Attention: a block for each row, key head and part of its query heads, so that keys and values are read once for four of them;
// blocks that follow one another have the same keys and values, which the second finds in the second cache. A lane reads eight
// values of a key and of a value at once, 16 bytes of bf16 each; as many lanes as have a head's values share a position, and a warp
// takes as many positions at once as it has such. Each has a running softmax; they are put together in the order of lanes, and of
// warps. Where there are too few rows to fill the chip, the positions of a row are cut into runs with a block each, and `combine`
// does the same for them. How long runs are depends on nothing but how many positions the row itself reads.
//
//   partial [rows, query_heads, splits] of head_dim values, the largest score and the sum of exponentials
#include "kv.cuh"
#include "pieces.cuh"
#include "scoring.cuh"

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;
// Query heads of a block: keys and values are read once for all of them.
constexpr u32 HEADS = 4;
static_assert(HEAD_DIM_MAX == WARP * RUN, "a warp has the values of the largest head");

// Less than any score.
DEVICE float no_score() { return __uint_as_float(0xff800000u); }

struct KvWriteArguments {
    KvLayer pool;
    const float* keys;
    const float* values;
    // Block · 16 + place in the block, of each row.
    const u32* slots;
};

struct AttentionArguments {
    KvLayer pool;
    const float* queries;
    float* out;
    // Of each row: its position, and where its sequence's blocks begin in the table.
    const u32* positions;
    const u32* first_blocks;
    const u32* block_tables;
    // Of runs; not used where `splits` is 1.
    float* partial;
    Scoring scoring;
    u32 query_heads;
    // A block has `HEADS` of a key head's query heads, or what is left of them.
    u32 parts;
    u32 splits;
    u32 run_min;
};

struct CombineArguments {
    const float* partial;
    float* out;
    const u32* positions;
    Scoring scoring;
    u32 query_heads;
    u32 head_dim;
    u32 splits;
    u32 run_min;
};

// What each warp found.
struct Parts {
    float largest[WARPS][HEADS], sums[WARPS][HEADS], values[WARPS][HEADS][HEAD_DIM_MAX];
};

// Positions of each run of a sequence of so many: enough that there are not more than `splits`.
DEVICE u32 run_of(u32 positions, u32 run_min, u32 splits) {
    u32 run = run_min;
    while (static_cast<u64>(run) * splits < positions) run *= 2;
    return run;
}

template <class Pool>
DEVICE void kv_write(const KvWriteArguments& arguments) {
    const KvLayer& pool = arguments.pool;
    const u32 slot = arguments.slots[blockIdx.x], width = pool.kv_heads * pool.head_dim;
    const float* keys = arguments.keys + static_cast<u64>(blockIdx.x) * width;
    const float* values = arguments.values + static_cast<u64>(blockIdx.x) * width;
    for (u32 column = threadIdx.x; column < width; column += THREADS) {
        const u32 head = column / pool.head_dim, place = column % pool.head_dim;
        Pool::store(kv_row<Pool>(pool, slot, 0, head), place, keys[column]);
        Pool::store(kv_row<Pool>(pool, slot, 1, head), place, values[column]);
    }
}

// A lane's eight values of a row of the pool: read by words, where rows are of whole runs.
template <class Pool>
struct ByWords;
template <>
struct ByWords<PoolF32> {
    using Raw = Pieces<F32>::Raw;
    DEVICE Raw read(const u8* row, u32 piece, u32) { return Pieces<F32>::read(row, piece); }
    DEVICE void widen(const Raw& raw, float (&values)[RUN]) { Pieces<F32>::widen(raw, 0, 0, values); }
};
template <>
struct ByWords<PoolBf16> {
    using Raw = Pieces<Bf16>::Raw;
    DEVICE Raw read(const u8* row, u32 piece, u32) { return Pieces<Bf16>::read(row, piece); }
    DEVICE void widen(const Raw& raw, float (&values)[RUN]) { Pieces<Bf16>::widen(raw, 0, 0, values); }
};
template <>
struct ByWords<PoolFp8> {
    using Raw = u64;
    DEVICE Raw read(const u8* row, u32 piece, u32) { return reinterpret_cast<const u64*>(row)[piece]; }
    DEVICE void widen(const Raw& raw, float (&values)[RUN]) {
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) values[i] = e4m3_to_f32(static_cast<u8>(raw >> 8 * i));
    }
};

// Or one by one.
template <class Pool>
struct OneByOne {
    struct Raw {
        float values[RUN];
    };
    DEVICE Raw read(const u8* row, u32 piece, u32 head_dim) {
        Raw raw = {};
#pragma unroll
        for (u32 i = 0; i < RUN; ++i)
            if (piece * RUN + i < head_dim) raw.values[i] = Pool::load(row, piece * RUN + i);
        return raw;
    }
    DEVICE void widen(const Raw& raw, float (&values)[RUN]) {
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) values[i] = raw.values[i];
    }
};

// A running softmax over some positions: the largest score, the sum of exponentials under it, and the lane's values under them.
struct Running {
    float largest[HEADS], sum[HEADS];
    float values[HEADS][RUN];
};

// Of a position beyond the end, none.
constexpr u32 NO_SLOT = 0xffffffffu;

DEVICE u32 slot_of(const u32* table, u32 position, u32 end) {
    return position < end ? table[position / BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS : NO_SLOT;
}

// A lane's part of a position's keys and values; zeros where there are none.
template <class Way>
struct Read {
    typename Way::Raw key, value;
};

template <class Pool, class Way>
DEVICE Read<Way> read(const KvLayer& pool, u32 slot, u32 piece) {
    if (slot == NO_SLOT || piece * RUN >= pool.head_dim) return {};
    return {Way::read(kv_row<Pool>(pool, slot, 0, blockIdx.y), piece, pool.head_dim),
            Way::read(kv_row<Pool>(pool, slot, 1, blockIdx.y), piece, pool.head_dim)};
}

// Adds a position to the softmax of the lanes that share it. All lanes of the warp come, whether theirs is there or not.
template <class Way, u32 LANES>
DEVICE void take(Running& running, const Scoring& scoring, const float (&queries)[HEADS][RUN], u32 heads, const Read<Way>& read,
                 bool is_there) {
    float key[RUN], value[RUN];
    Way::widen(read.key, key);
    Way::widen(read.value, value);
#pragma unroll
    for (u32 head = 0; head < HEADS; ++head) {
        if (head >= heads) continue;
        float product = 0.0f;
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) product = fmaf(queries[head][i], key[i], product);
        for (u32 distance = LANES / 2; distance > 0; distance /= 2) product += __shfl_xor_sync(ALL_LANES, product, distance);
        if (!is_there) continue;
        const float score = score_of(scoring, product);
        const float largest = fmaxf(running.largest[head], score);
        const float kept = expf(running.largest[head] - largest), weight = expf(score - largest);
        running.largest[head] = largest;
        running.sum[head] = running.sum[head] * kept + weight;
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) running.values[head][i] = running.values[head][i] * kept + weight * value[i];
    }
}

// Puts the parts of a warp's lanes that have the same eight values of a head together. What has seen no position has a largest
// score of −∞ and counts for nothing.
template <u32 LANES>
DEVICE void gather(Running& running) {
#pragma unroll
    for (u32 head = 0; head < HEADS; ++head) {
        float all = running.largest[head];
        for (u32 distance = LANES; distance < WARP; distance *= 2) all = fmaxf(all, __shfl_xor_sync(ALL_LANES, all, distance));
        const float kept = running.largest[head] == no_score() ? 0.0f : expf(running.largest[head] - all);
        running.largest[head] = all;
        running.sum[head] *= kept;
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) running.values[head][i] *= kept;
        for (u32 distance = LANES; distance < WARP; distance *= 2) {
            running.sum[head] += __shfl_xor_sync(ALL_LANES, running.sum[head], distance);
#pragma unroll
            for (u32 i = 0; i < RUN; ++i)
                running.values[head][i] += __shfl_xor_sync(ALL_LANES, running.values[head][i], distance);
        }
    }
}

// What is a block's: a row, its query heads, and the positions from `begin` on to one before `end`.
struct Task {
    u32 row, first_head, heads, split, begin, end;
};

DEVICE Task task_of(const AttentionArguments& arguments) {
    const u32 group = arguments.query_heads / arguments.pool.kv_heads;
    const u32 row = blockIdx.x / arguments.parts, part = blockIdx.x % arguments.parts, split = blockIdx.z;
    const u32 left = group - part * HEADS;
    const Seen seen = seen_of(arguments.scoring, arguments.positions[row]);
    const u32 end = seen.begin + seen.count;
    Task task = {row, blockIdx.y * group + part * HEADS, left < HEADS ? left : HEADS, split, seen.begin, end};
    if (arguments.splits > 1) {
        const u32 run = run_of(seen.count, arguments.run_min, arguments.splits);
        task.begin = seen.begin + split * run;
        task.end = task.begin + run < end ? task.begin + run : end;
    }
    return task;
}

// Puts the warps' parts together.
template <u32 LANES>
DEVICE void finish(Running& running, const AttentionArguments& arguments, const Task& task, Parts& parts) {
    auto& [largest, sums, values] = parts;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head_dim = arguments.pool.head_dim;
    gather<LANES>(running);
    for (u32 head = 0; head < HEADS && lane < LANES; ++head) {
        if (lane == 0) {
            largest[warp][head] = running.largest[head];
            sums[warp][head] = running.sum[head];
        }
        for (u32 i = 0; i < RUN; ++i) values[warp][head][lane * RUN + i] = running.values[head][i];
    }
    __syncthreads();
    for (u32 index = threadIdx.x; index < task.heads * head_dim; index += THREADS) {
        const u32 head = index / head_dim, place = index % head_dim;
        float all = largest[0][head], sum = 0.0f, value = 0.0f;
        for (u32 other = 1; other < WARPS; ++other) all = fmaxf(all, largest[other][head]);
        for (u32 other = 0; other < WARPS; ++other) {
            const float weight = expf(largest[other][head] - all);
            sum += sums[other][head] * weight;
            value += values[other][head][place] * weight;
        }
        const u64 row = static_cast<u64>(task.row) * arguments.query_heads + task.first_head + head;
        if (arguments.splits == 1) {
            sum += sink_of(arguments.scoring, task.first_head + head, all);
            arguments.out[row * head_dim + place] = value / sum;
            continue;
        }
        float* partial = arguments.partial + (row * arguments.splits + task.split) * (head_dim + 2);
        partial[place] = value;
        if (place == 0) {
            partial[head_dim] = all;
            partial[head_dim + 1] = sum;
        }
    }
}

// `LANES` lanes share a position, as few as have a head's values, eight each; the others of a warp take the positions after it.
template <class Pool, class Way, u32 LANES>
DEVICE void attend(const AttentionArguments& arguments, const Task& task, Parts& parts) {
    constexpr u32 POSITIONS = WARP / LANES;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, piece = lane % LANES;
    const u32 head_dim = arguments.pool.head_dim;
    float queries[HEADS][RUN];
    Running running = {};
#pragma unroll
    for (u32 head = 0; head < HEADS; ++head) {
        const u64 start = (static_cast<u64>(task.row) * arguments.query_heads + task.first_head + head) * head_dim;
#pragma unroll
        for (u32 i = 0; i < RUN; ++i) {
            const u32 place = piece * RUN + i;
            queries[head][i] = head < task.heads && place < head_dim ? arguments.queries[start + place] : 0.0f;
        }
        running.largest[head] = no_score();
    }
    const u32* table = arguments.block_tables + arguments.first_blocks[task.row];
    const u32 first = task.begin + warp * POSITIONS, own = lane / LANES;
    u32 slot = slot_of(table, first + own, task.end);
    for (u32 position = first; position < task.end; position += WARPS * POSITIONS) {
        const Read<Way> at = read<Pool, Way>(arguments.pool, slot, piece);
        const bool is_there = slot != NO_SLOT;
        // Where the next is has come by the time this one is added.
        slot = slot_of(table, position + WARPS * POSITIONS + own, task.end);
        take<Way, LANES>(running, arguments.scoring, queries, task.heads, at, is_there);
    }
    finish<LANES>(running, arguments, task, parts);
}

template <class Pool>
DEVICE void attention(const AttentionArguments& arguments) {
    SHARED Parts parts;
    const Task task = task_of(arguments);
    if (task.begin >= task.end) return;
    const u32 head_dim = arguments.pool.head_dim;
    if (head_dim % RUN != 0)
        attend<Pool, OneByOne<Pool>, HEAD_DIM_MAX / RUN>(arguments, task, parts);
    else if (head_dim <= 8 * RUN)
        attend<Pool, ByWords<Pool>, 8>(arguments, task, parts);
    else if (head_dim <= 16 * RUN)
        attend<Pool, ByWords<Pool>, 16>(arguments, task, parts);
    else
        attend<Pool, ByWords<Pool>, HEAD_DIM_MAX / RUN>(arguments, task, parts);
}

// A block for each row and query head.
KERNEL(attention_combine, THREADS, CombineArguments) {
    const u64 row = static_cast<u64>(blockIdx.x) * arguments.query_heads + blockIdx.y;
    const u32 head_dim = arguments.head_dim, stride = head_dim + 2;
    const u32 all = seen_of(arguments.scoring, arguments.positions[blockIdx.x]).count;
    const u32 run = run_of(all, arguments.run_min, arguments.splits), splits = (all + run - 1) / run;
    const float* partial = arguments.partial + row * arguments.splits * stride;
    float largest = partial[head_dim];
    for (u32 split = 1; split < splits; ++split) largest = fmaxf(largest, partial[split * stride + head_dim]);
    for (u32 place = threadIdx.x; place < head_dim; place += THREADS) {
        float sum = 0.0f, value = 0.0f;
        for (u32 split = 0; split < splits; ++split) {
            const float weight = expf(partial[split * stride + head_dim] - largest);
            sum += partial[split * stride + head_dim + 1] * weight;
            value += partial[split * stride + place] * weight;
        }
        sum += sink_of(arguments.scoring, blockIdx.y, largest);
        arguments.out[row * head_dim + place] = value / sum;
    }
}

#define DEFINE(name, Pool)                                                         \
    KERNEL(kv_write_##name, THREADS, KvWriteArguments) { kv_write<Pool>(arguments); } \
    KERNEL(attention_##name, THREADS, AttentionArguments) { attention<Pool>(arguments); }
FOR_EACH_POOL(DEFINE)
