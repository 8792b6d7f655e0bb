// Kernels that do what a GPU leaves undefined: the shim has to tell.
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
