// Kernels that do what a GPU leaves undefined: the shim has to tell.
#include "async.cuh"
#include "reduce.cuh"

struct FaultArguments {
    float* out;
};

KERNEL(fault_barrier, 64, FaultArguments) {
    if (threadIdx.x < WARP) __syncthreads();
    arguments.out[threadIdx.x] = 1.0f;
}

KERNEL(fault_lane, 64, FaultArguments) {
    if (threadIdx.x % WARP < 31) arguments.out[threadIdx.x] = warp_sum(1.0f);
}

KERNEL(fault_purposes, 64, FaultArguments) {
    if (threadIdx.x % 2 == 0)
        arguments.out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.0f, 2u);
    else
        __syncwarp();
}

// What another block left in shared memory is not there.
KERNEL(fault_uninitialised, 64, FaultArguments) {
    SHARED float left[64];
    if (blockIdx.x == 0) left[threadIdx.x] = 1.0f;
    arguments.out[threadIdx.x] = left[threadIdx.x];
}

// Nor where a template has it.
template <class Value>
DEVICE void uninitialised_of(const FaultArguments& arguments) {
    SHARED Value left[64];
    if (blockIdx.x == 0) left[threadIdx.x] = 1.0f;
    arguments.out[threadIdx.x] = left[threadIdx.x];
}

KERNEL(fault_uninitialised_in_template, 64, FaultArguments) { uninitialised_of<float>(arguments); }

// Each thread reads what the one before it wrote. On the host that one always comes first: only the race detector tells.
KERNEL(fault_race, 64, FaultArguments) {
    SHARED float left[64];
    left[threadIdx.x] = 1.0f;
    arguments.out[threadIdx.x] = left[threadIdx.x == 0 ? 0 : threadIdx.x - 1];
}

// Each thread overwrites what the one before it has read.
KERNEL(fault_race_after_read, 64, FaultArguments) {
    SHARED float left[64];
    left[threadIdx.x] = 1.0f;
    __syncthreads();
    arguments.out[threadIdx.x] = left[threadIdx.x];
    if (threadIdx.x > 0) left[threadIdx.x - 1] = 2.0f;
}

KERNEL(fault_race_of_writes, 64, FaultArguments) {
    SHARED float left[32];
    left[threadIdx.x % 32] = 1.0f;
    __syncthreads();
    arguments.out[threadIdx.x] = left[threadIdx.x % 32];
}

// A shuffle orders no memory.
KERNEL(fault_race_beside_shuffle, 64, FaultArguments) {
    SHARED float left[64];
    left[threadIdx.x] = 1.0f;
    const float sum = warp_sum(1.0f);
    arguments.out[threadIdx.x] = left[threadIdx.x ^ 1] * sum / 32.0f;
}

// Zeros, copied in place of 16 bytes each.
DEVICE void copy_zeros(float* left, const FaultArguments& arguments) {
    u16* to = reinterpret_cast<u16*>(left + 4 * threadIdx.x);
    copy_16_bytes(to, reinterpret_cast<const u8*>(arguments.out), 0);
    end_copies();
}

KERNEL(fault_copy_not_waited_for, 64, FaultArguments) {
    SHARED __align__(16) float left[4 * 64];
    copy_zeros(left, arguments);
    wait_for_copies<1>();
    arguments.out[threadIdx.x] = 1.0f + left[4 * threadIdx.x];
}

// Each thread reads what the one before it copied, and has waited for.
KERNEL(fault_race_of_copies, 64, FaultArguments) {
    SHARED __align__(16) float left[4 * 64];
    copy_zeros(left, arguments);
    wait_for_copies<0>();
    arguments.out[threadIdx.x] = 1.0f + left[threadIdx.x == 0 ? 0 : 4 * threadIdx.x - 4];
}

// No fault.
KERNEL(fault_none_of_copies, 64, FaultArguments) {
    SHARED __align__(16) float left[4 * 64];
    copy_zeros(left, arguments);
    wait_for_copies<0>();
    __syncthreads();
    arguments.out[threadIdx.x] = 1.0f + left[4 * (threadIdx.x ^ 1)];
}

// Within a warp this is enough: no fault.
KERNEL(fault_none, 64, FaultArguments) {
    SHARED float left[64];
    left[threadIdx.x] = 1.0f;
    __syncwarp();
    arguments.out[threadIdx.x] = left[threadIdx.x ^ 1];
    __syncthreads();
    left[63 - threadIdx.x] = 2.0f;
}

// What only sanitizers tell, of a read just behind a place.
KERNEL(fault_past_memory, 64, FaultArguments) {
    const u8* bytes = reinterpret_cast<const u8*>(arguments.out);
    arguments.out[threadIdx.x] = bytes[64 * sizeof(float) + threadIdx.x];
}

// Where a pointer comes from is hidden from the compiler, which would tell of these itself.
DEVICE const u8* hidden(const u8* bytes) {
    asm("" : "+r"(bytes));
    return bytes;
}

KERNEL(fault_past_shared, 64, FaultArguments) {
    SHARED u8 left[64];
    left[threadIdx.x] = 1;
    __syncthreads();
    arguments.out[threadIdx.x] = hidden(left)[threadIdx.x + 1];
}

KERNEL(fault_past_local, 64, FaultArguments) {
    u8 values[64] = {};
    const u8* bytes = hidden(values);
    __syncthreads();
    arguments.out[threadIdx.x] = bytes[threadIdx.x + 1];
}

KERNEL(fault_shift, 64, FaultArguments) { arguments.out[threadIdx.x] = static_cast<float>(1u << threadIdx.x); }
