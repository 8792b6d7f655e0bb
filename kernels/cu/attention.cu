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
// Attention: a block for each row, key head and part of its query heads; its warps take positions in turns, with a running softmax
// each, and put theirs together in the order of the warps. Where there are too few rows to fill the chip, the positions of a row
// are cut into runs with a block each, and `combine` does the same for them. How long runs are depends on nothing but how many
// positions the row itself reads.
//
//   partial [rows, query_heads, splits] of head_dim values, the largest score and the sum of exponentials
#include "kv.cuh"
#include "reduce.cuh"
#include "scoring.cuh"

constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / WARP;
// Query heads of a block: keys and values are read once for all of them.
constexpr u32 HEADS = 4;
constexpr u32 LANE_VALUES = HEAD_DIM_MAX / WARP;

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

// A running softmax over some positions: the largest score, the sum of exponentials under it, and the values under them.
struct Running {
    float largest[HEADS], sum[HEADS];
    float values[HEADS][LANE_VALUES];
};

template <class Pool>
DEVICE void take(Running& running, const AttentionArguments& arguments, const float (*queries)[LANE_VALUES], u32 slot) {
    const KvLayer& pool = arguments.pool;
    const u32 lane = threadIdx.x % WARP;
    const u8* key = kv_row<Pool>(pool, slot, 0, blockIdx.y);
    const u8* value = kv_row<Pool>(pool, slot, 1, blockIdx.y);
    float k[LANE_VALUES], v[LANE_VALUES];
#pragma unroll
    for (u32 i = 0; i < LANE_VALUES; ++i) {
        const bool inside = lane + i * WARP < pool.head_dim;
        k[i] = inside ? Pool::load(key, lane + i * WARP) : 0.0f;
        v[i] = inside ? Pool::load(value, lane + i * WARP) : 0.0f;
    }
#pragma unroll
    for (u32 head = 0; head < HEADS; ++head) {
        float product = 0.0f;
#pragma unroll
        for (u32 i = 0; i < LANE_VALUES; ++i) product = fmaf(queries[head][i], k[i], product);
        const float score = score_of(arguments.scoring, warp_sum(product));
        const float largest = fmaxf(running.largest[head], score);
        const float kept = expf(running.largest[head] - largest), weight = expf(score - largest);
        running.largest[head] = largest;
        running.sum[head] = running.sum[head] * kept + weight;
#pragma unroll
        for (u32 i = 0; i < LANE_VALUES; ++i) running.values[head][i] = running.values[head][i] * kept + weight * v[i];
    }
}

// Where a block is in the grid: its query heads, and the positions from `begin` on to one before `end`.
struct Task {
    u32 first_head, heads, split, begin, end;
};

DEVICE Task task_of(const AttentionArguments& arguments) {
    const u32 group = arguments.query_heads / arguments.pool.kv_heads;
    const u32 part = blockIdx.z % arguments.parts, split = blockIdx.z / arguments.parts, left = group - part * HEADS;
    const Seen seen = seen_of(arguments.scoring, arguments.positions[blockIdx.x]);
    const u32 end = seen.begin + seen.count;
    Task task = {blockIdx.y * group + part * HEADS, left < HEADS ? left : HEADS, split, seen.begin, end};
    if (arguments.splits > 1) {
        const u32 run = run_of(seen.count, arguments.run_min, arguments.splits);
        task.begin = seen.begin + split * run;
        task.end = task.begin + run < end ? task.begin + run : end;
    }
    return task;
}

// Puts the warps' parts together; a warp without any position has a largest score of −∞ and counts for nothing.
DEVICE void finish(const Running& running, const AttentionArguments& arguments, const Task& task) {
    SHARED float largest[WARPS][HEADS], sums[WARPS][HEADS], values[WARPS][HEADS][HEAD_DIM_MAX];
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head_dim = arguments.pool.head_dim;
    for (u32 head = 0; head < HEADS; ++head) {
        if (lane == 0) {
            largest[warp][head] = running.largest[head];
            sums[warp][head] = running.sum[head];
        }
        for (u32 i = 0; i < LANE_VALUES; ++i) values[warp][head][lane + i * WARP] = running.values[head][i];
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
        const u64 row = static_cast<u64>(blockIdx.x) * arguments.query_heads + task.first_head + head;
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

template <class Pool>
DEVICE void attention(const AttentionArguments& arguments) {
    const u32 row = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const u32 head_dim = arguments.pool.head_dim;
    const Task task = task_of(arguments);
    if (task.begin >= task.end) return;
    float queries[HEADS][LANE_VALUES];
    Running running;
    for (u32 head = 0; head < HEADS; ++head) {
        const u64 start = (static_cast<u64>(row) * arguments.query_heads + task.first_head + head) * head_dim;
        for (u32 i = 0; i < LANE_VALUES; ++i) {
            const u32 place = lane + i * WARP;
            queries[head][i] = head < task.heads && place < head_dim ? arguments.queries[start + place] : 0.0f;
            running.values[head][i] = 0.0f;
        }
        running.largest[head] = __uint_as_float(0xff800000u);
        running.sum[head] = 0.0f;
    }
    const u32* table = arguments.block_tables + arguments.first_blocks[row];
    for (u32 position = task.begin + warp; position < task.end; position += WARPS) {
        const u32 slot = table[position / BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS;
        take<Pool>(running, arguments, queries, slot);
    }
    finish(running, arguments, task);
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
