// CUDA's names for kernels that run on the host, for tests.
//
// A launch runs its blocks one after the other. The threads of a block are fibres on one thread of the host: each runs until
// it waits at a barrier or for its warp, in the order of their numbers: always the same one, so that a run can be repeated. What a GPU leaves
// undefined is an error here: a barrier that some threads of a block do not reach, lanes of a warp that wait for different
// things, dynamic shared memory beyond what the launch asked for.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shim {

struct Dimensions {
    unsigned x, y, z;
};

struct Thread {
    Dimensions thread, block, block_size, grid_size;
};

// Of the fibre that runs.
extern Thread current;

// Waits for all threads of the block.
void barrier();

// Gives `bytes` of this lane to its warp, waits for the others of `mask`, and returns those of lane 0; lane i's are
// `SLOT_BYTES` · i behind. They are there until this thread waits for its warp the next time but one.
constexpr size_t SLOT_BYTES = 64;
const unsigned char* exchange(const char* what, unsigned mask, const void* value, size_t bytes);

// As many bytes as the launch asked for.
unsigned char* dynamic_shared();

// Where in the block's shared memory an address is, static and dynamic counted on; SIZE_MAX elsewhere.
size_t place_in_shared(const void* address);

// What lies between accesses of shared memory. No two blocks have a count of barriers in common.
struct Moment {
    unsigned thread;
    unsigned long long barriers;
    // Of this thread's warp, whole.
    unsigned warp_barriers;
};
Moment now();

// A copy of up to 16 bytes that a thread has begun; see common/async.cuh.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
};
void copy_later(void* to, const void* from, unsigned bytes);
// Ends a group of this thread's copies.
void end_copies();
// The next copy of any but the last `groups` of them; false when there is none left.
bool next_landed(unsigned groups, Copy& copy);

// Adds, and returns what was there. The detector of races does not see it: such additions are in no order.
unsigned add(unsigned* place, unsigned value);

// Ends the launch with an error.
[[noreturn]] void fail(const char* what);

inline float f16_to_f32(unsigned short bits) {
    _Float16 half;
    std::memcpy(&half, &bits, sizeof half);
    return static_cast<float>(half);
}

template <class T>
T from_lane(const char* what, unsigned mask, T value, unsigned lane) {
    static_assert(sizeof(T) <= SLOT_BYTES);
    const unsigned char* slots = exchange(what, mask, &value, sizeof value);
    if (lane >= 32 || !(mask >> lane & 1)) fail("shuffle from a lane that takes no part");
    T result;
    std::memcpy(&result, slots + SLOT_BYTES * lane, sizeof result);
    return result;
}

inline unsigned lane() { return current.thread.x % 32; }

// See common/mma.cuh for who holds what.
void mma_16_8_16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
// See common/mma.cuh; `row` is this lane's own.
void load_matrices(unsigned (&to)[4], const void* row, bool transposed);
// See common/fp4.cuh; the last two widen a number and a scale.
void mma_nvfp4_16_8_64(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2], unsigned scales_a,
                       unsigned scales_b, float (*number)(unsigned), float (*scale)(unsigned));

}  // namespace shim

#define DEVICE [[maybe_unused]] static inline
// shared.ld gathers them: the shim fills them with NaNs before each block, so that no block reads what another wrote.
#define SHARED static

#define __align__(bytes) __attribute__((aligned(bytes)))

#define KERNEL(name, threads, Arguments)                                              \
    static void name##_body(const Arguments& arguments);                              \
    extern "C" void name(const void* arguments) {                                     \
        name##_body(*static_cast<const Arguments*>(arguments));                       \
    }                                                                                 \
    extern "C" const unsigned name##_threads_max = threads;                           \
    extern "C" const unsigned name##_argument_bytes = sizeof(Arguments);              \
    static void name##_body(const Arguments& arguments)

// Fibres do not share registers.
#define KERNEL_RESIDENT(name, threads, blocks, Arguments) KERNEL(name, threads, Arguments)

#define threadIdx (shim::current.thread)
#define blockIdx (shim::current.block)
#define blockDim (shim::current.block_size)
#define gridDim (shim::current.grid_size)

inline void __syncthreads() { shim::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::exchange("syncwarp", mask, nullptr, 0); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned distance) {
    return shim::from_lane("shfl_xor", mask, value, shim::lane() ^ distance);
}
template <class T>
T __shfl_sync(unsigned mask, T value, unsigned lane) {
    return shim::from_lane("shfl", mask, value, lane % 32);
}

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline unsigned atomicAdd(unsigned* place, unsigned value) { return shim::add(place, value); }

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = static_cast<unsigned long long>(high) << 32 | low;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return result;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) >> (shift & 31));
}

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
