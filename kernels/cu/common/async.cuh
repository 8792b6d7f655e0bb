// Copies from memory into shared memory that no register takes part in, and nobody waits for until they are wanted.
//
// A thread's copies come in groups, in their order. A copy has landed once its thread has waited for its group; that the other
// threads see it takes a barrier after that. Until then nobody may touch where it goes.
#pragma once
#include "platform.cuh"

#if defined(SPARKHERD_HOST_SHIM)
// As early and as late as a GPU may be: what was there is gone at once, and what comes is there when it is waited for. Both are
// written here, where the race detector sees it.
DEVICE void copy_16_bytes(u16* to, const u8* from, u32 bytes) {
    *reinterpret_cast<uint4*>(to) = {ALL_LANES, ALL_LANES, ALL_LANES, ALL_LANES};
    shim::copy_later(to, from, bytes);
}

DEVICE void end_copies() { shim::end_copies(); }

template <u32 GROUPS>
DEVICE void wait_for_copies() {
    for (shim::Copy copy; shim::next_landed(GROUPS, copy);) {
        uint4 word = {};
        memcpy(&word, copy.from, copy.bytes);
        *static_cast<uint4*>(copy.to) = word;
    }
}
#else
// To and from multiples of 16 bytes; of `bytes` of them, 16 or fewer, and zeros in place of the rest. Not through the first
// cache: what is copied so is not read again from there.
DEVICE void copy_16_bytes(u16* to, const u8* from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(static_cast<u32>(__cvta_generic_to_shared(to))), "l"(from), "r"(bytes)
                 : "memory");
}

// What was copied since the last one is a group.
DEVICE void end_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits for all groups but the last so many.
template <u32 GROUPS>
DEVICE void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS) : "memory");
}
#endif
