// What a kernel needs of the machine under it: a GPU, or the host shim that runs the same source on a CPU.
//
// No header of CUDA's is included: NVRTC knows the built-in variables and functions used here without any, and the host
// shim provides the same names (kernels/host/shim/shim.hpp).
#pragma once

#if defined(SPARKHERD_HOST_SHIM)
#include "shim.hpp"
#else

#define DEVICE static __device__ __forceinline__
#define SHARED __shared__

// A kernel takes one structure by value; `kernels/src` has the same one in Rust, and a test compares their sizes.
#define KERNEL(name, threads, Arguments) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Arguments arguments)

// Of which a multiprocessor is to hold so many blocks at once: a thread gets no more registers than that leaves it.
#define KERNEL_RESIDENT(name, threads, blocks, Arguments) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)

#endif

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using u32 = unsigned int;
using i32 = int;
using u64 = unsigned long long;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8, "sizes of the host's structures");

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
