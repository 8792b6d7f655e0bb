// What a chip can do at most, to hold other kernels against.
//
//   read_words: out[thread] = xor of the words it read; all threads together read `words` words of 16 bytes once, each its own
//               share in steps of the whole grid
//   multiply:   `rounds` · CHAINS products of 16 × 16 by 16 × 8 in bf16 by each warp, which wait for none but their own chain's;
//               out[thread] = the sum of its values
#include "mma.cuh"

constexpr u32 THREADS = 256;
// Loads of a thread under way at once: enough to cover the latency of memory with few warps.
constexpr u32 LOADS = 8;
// A product takes some 16 to 32 cycles, a multiprocessor begins one every few.
constexpr u32 CHAINS = 8;

struct ReadWordsArguments {
    const uint4* from;
    u32* out;
    u64 words;
};

struct MultiplyArguments {
    float* out;
    u32 rounds;
    u32 _end;
};

DEVICE u32 fold(const uint4& word) { return word.x ^ word.y ^ word.z ^ word.w; }

KERNEL(read_words, THREADS, ReadWordsArguments) {
    const u64 thread = static_cast<u64>(blockIdx.x) * THREADS + threadIdx.x;
    const u64 stride = static_cast<u64>(gridDim.x) * THREADS;
    u32 sum = 0;
    u64 word = thread;
    for (; word + (LOADS - 1) * stride < arguments.words; word += LOADS * stride) {
        uint4 words[LOADS];
#pragma unroll
        for (u32 load = 0; load < LOADS; ++load) words[load] = arguments.from[word + load * stride];
#pragma unroll
        for (u32 load = 0; load < LOADS; ++load) sum ^= fold(words[load]);
    }
    for (; word < arguments.words; word += stride) sum ^= fold(arguments.from[word]);
    arguments.out[thread] = sum;
}

KERNEL(multiply, THREADS, MultiplyArguments) {
    // 1.0 in bf16, twice: a product adds 16 to each sum.
    const u32 a[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
    const u32 b[2] = {0x3f803f80u, 0x3f803f80u};
    float sums[CHAINS][4] = {};
    for (u32 round = 0; round < arguments.rounds; ++round) {
#pragma unroll
        for (u32 chain = 0; chain < CHAINS; ++chain) mma_16_8_16(sums[chain], a, b);
    }
    float sum = 0.0f;
#pragma unroll
    for (u32 chain = 0; chain < CHAINS; ++chain) {
#pragma unroll
        for (u32 value = 0; value < 4; ++value) sum += sums[chain][value];
    }
    arguments.out[static_cast<u64>(blockIdx.x) * THREADS + threadIdx.x] = sum;
}
