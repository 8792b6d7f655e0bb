// What touches each value once.
//
//   add:           x += delta
//   add_bias:      x[r] += bias
//   gate_multiply: gate = function(gate) · up, functions as in gate.cuh
//   gather_rows:   out[i] = x[rows[i]]
//   rope:          halves apart: for i < head_dim / 2 of each head,
//                  (x[i], x[i + half]) = (x[i]·cos − x[i + half]·sin, x[i + half]·cos + x[i]·sin)
//
// All f32 but the bias. A thread for each value (for each pair in rope): bound by memory.
#include "formats.cuh"
#include "gate.cuh"

struct AddArguments {
    float* x;
    const float* delta;
    u64 count;
};

struct AddBiasArguments {
    float* x;
    const u8* bias;
    u64 count;
    u32 width;
};

struct GateMultiplyArguments {
    float* gate;
    const float* up;
    u64 count;
    u32 function;
};

struct GatherRowsArguments {
    const float* x;
    const u32* rows;
    float* out;
    u32 width;
};

struct RopeArguments {
    float* x;
    // [rows, head_dim]: the cosines of a row's position, then the sines.
    const float* rotations;
    // Pairs of all rows together.
    u64 pairs;
    u32 heads;
    u32 head_dim;
};

DEVICE u64 index_of_thread() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }

KERNEL(add, 256, AddArguments) {
    const u64 index = index_of_thread();
    if (index < arguments.count) arguments.x[index] += arguments.delta[index];
}

template <class Format>
DEVICE void add_bias(const AddBiasArguments& arguments) {
    const u64 index = index_of_thread();
    if (index < arguments.count)
        arguments.x[index] += Format::at(arguments.bias, static_cast<u32>(index % arguments.width));
}

KERNEL(add_bias_f32, 256, AddBiasArguments) { add_bias<F32>(arguments); }
KERNEL(add_bias_f16, 256, AddBiasArguments) { add_bias<F16>(arguments); }
KERNEL(add_bias_bf16, 256, AddBiasArguments) { add_bias<Bf16>(arguments); }

KERNEL(gate_multiply, 256, GateMultiplyArguments) {
    const u64 index = index_of_thread();
    if (index >= arguments.count) return;
    arguments.gate[index] = gate_value(arguments.function, arguments.gate[index]) * arguments.up[index];
}

KERNEL(gather_rows, 256, GatherRowsArguments) {
    const float* x = arguments.x + static_cast<u64>(arguments.rows[blockIdx.x]) * arguments.width;
    float* out = arguments.out + static_cast<u64>(blockIdx.x) * arguments.width;
    for (u32 column = threadIdx.x; column < arguments.width; column += blockDim.x) out[column] = x[column];
}

KERNEL(rope, 256, RopeArguments) {
    const u64 index = index_of_thread();
    if (index >= arguments.pairs) return;
    const u32 half = arguments.head_dim / 2, place = static_cast<u32>(index % half);
    const u64 head = index / half, row = head / arguments.heads;
    float* x = arguments.x + head * arguments.head_dim + place;
    const float* rotation = arguments.rotations + row * arguments.head_dim + place;
    const float cosine = rotation[0], sine = rotation[half], first = x[0], second = x[half];
    x[0] = first * cosine - second * sine;
    x[half] = second * cosine + first * sine;
}
