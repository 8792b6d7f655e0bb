// What becomes of the products with the query, key and value matrices before attention, in one launch.
//
//   x += bias; queries and keys: x = x · 1/√(mean(x²) + epsilon) · weight, then turned by the row's rotation (halves apart: for
//   i < head_dim / 2, (x[i], x[i + half]) = (x[i]·cos − x[i + half]·sin, x[i + half]·cos + x[i]·sin)), each head by itself;
//   keys and values are then rounded to the pool's type and stored in it, queries written back
//
//   queries [rows, query_heads · head_dim] f32; keys, values [rows, kv_heads · head_dim] f32, only read; rotations [rows, head_dim]
//   f32, cosines, then sines; head_dim even, up to 256; biases and weights f32, f16 or bf16, or none
//
// A warp for each head of each row, eight of them in a block: query heads, then key heads, then value heads. A head lies in shared
// memory while it is worked on, as the two values of a pair are different lanes'. Sums and products are those of add_bias,
// head_rms_norm, rope and kv_write, one after the other: the same bits.
#include "formats.cuh"
#include "kv.cuh"
#include "reduce.cuh"

constexpr u32 WARPS = 8;

struct AttentionInputsArguments {
    KvLayer pool;
    float* queries;
    const float* keys;
    const float* values;
    const float* rotations;
    // Block · 16 + place in the block, of each row.
    const u32* slots;
    Vector query_bias;
    Vector key_bias;
    Vector value_bias;
    Vector query_norm;
    Vector key_norm;
    u32 query_heads;
    float epsilon;
};

// A head of one row. `index` is its number among the heads of its kind.
DEVICE void load(float* x, const float* from, const Vector& bias, u32 index, u32 head_dim) {
    for (u32 column = threadIdx.x % WARP; column < head_dim; column += WARP)
        x[column] = bias.values ? from[column] + Vector::at(bias, index * head_dim + column) : from[column];
}

DEVICE void normalise(float* x, const Vector& weight, u32 head_dim, float epsilon) {
    if (!weight.values) return;
    const u32 lane = threadIdx.x % WARP;
    float squares = 0.0f;
    for (u32 column = lane; column < head_dim; column += WARP) squares += x[column] * x[column];
    const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(head_dim) + epsilon);
    for (u32 column = lane; column < head_dim; column += WARP) x[column] *= scale * Vector::at(weight, column);
}

DEVICE void turn(float* x, const float* rotation, u32 head_dim) {
    const u32 half = head_dim / 2;
    __syncwarp();
    for (u32 pair = threadIdx.x % WARP; pair < half; pair += WARP) {
        const float cosine = rotation[pair], sine = rotation[half + pair], first = x[pair], second = x[half + pair];
        x[pair] = first * cosine - second * sine;
        x[half + pair] = second * cosine + first * sine;
    }
    __syncwarp();
}

template <class Pool>
DEVICE void attention_inputs(const AttentionInputsArguments& arguments) {
    SHARED float heads[WARPS][HEAD_DIM_MAX];
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, kind_heads = arguments.pool.kv_heads;
    const u32 head = blockIdx.y * WARPS + warp, query_heads = arguments.query_heads, head_dim = arguments.pool.head_dim;
    if (head >= query_heads + 2 * kind_heads) return;
    const u64 row = blockIdx.x;
    const float* rotation = arguments.rotations + row * head_dim;
    float* x = heads[warp];
    if (head < query_heads) {
        float* query = arguments.queries + (row * query_heads + head) * head_dim;
        load(x, query, arguments.query_bias, head, head_dim);
        normalise(x, arguments.query_norm, head_dim, arguments.epsilon);
        turn(x, rotation, head_dim);
        for (u32 column = lane; column < head_dim; column += WARP) query[column] = x[column];
        return;
    }
    const u32 kind = (head - query_heads) / kind_heads, index = (head - query_heads) % kind_heads;
    const float* from = (kind == 0 ? arguments.keys : arguments.values) + (row * kind_heads + index) * head_dim;
    load(x, from, kind == 0 ? arguments.key_bias : arguments.value_bias, index, head_dim);
    if (kind == 0) {
        normalise(x, arguments.key_norm, head_dim, arguments.epsilon);
        turn(x, rotation, head_dim);
    }
    u8* to = kv_row<Pool>(arguments.pool, arguments.slots[row], kind, index);
    for (u32 column = lane; column < head_dim; column += WARP) Pool::store(to, column, x[column]);
}

#define DEFINE(name, Pool) \
    KERNEL(attention_inputs_##name, WARPS * WARP, AttentionInputsArguments) { attention_inputs<Pool>(arguments); }
FOR_EACH_POOL(DEFINE)
