// Finds threads of a block that touch the same byte of shared memory, one of them writing, with nothing that orders them.
//
// The kernels are compiled with gcc's `-fsanitize=thread`, which calls a function before each access, and are linked with
// the functions here instead of with libtsan. Since fibres take turns in one order, a race does no harm on the host, ever:
// what tells of it is that no barrier was counted between the two accesses. Two threads are ordered by a barrier of the block,
// or, in one warp, by `__syncwarp` of all its lanes; shuffles order no memory.
//
// Not seen: copies that the compiler makes by calling memcpy.
#include <cstdio>
#include <vector>

#include "shim.hpp"

namespace {

constexpr unsigned LANES = 32;

// What the block has done to a byte since its last barrier.
struct Byte {
    unsigned long long barriers = 0;
    bool written = false, several_warps_read = false;
    unsigned writer = 0, writer_moment = 0;
    // Lanes of one warp that have read it since that warp's last `__syncwarp`, and that warp.
    unsigned readers = 0, readers_warp = 0, readers_moment = 0;
};

// As large as the largest launch so far: places of other blocks have other counts of barriers.
std::vector<Byte> bytes;

[[noreturn]] void tell(const char* what, size_t place, unsigned first, unsigned second) {
    char text[160];
    std::snprintf(text, sizeof text, "no barrier between %s byte %zu of shared memory, threads %u and %u", what, place, first,
                  second);
    shim::fail(text);
}

// Whether `thread`, which touched it at `moment`, and the thread that runs are in no order.
bool is_unordered(const shim::Moment& now, unsigned thread, unsigned moment) {
    if (thread == now.thread) return false;
    return thread / LANES != now.thread / LANES || moment == now.warp_barriers;
}

void read(Byte& byte, size_t place, const shim::Moment& now) {
    if (byte.written && is_unordered(now, byte.writer, byte.writer_moment))
        tell("writing and reading", place, byte.writer, now.thread);
    const unsigned warp = now.thread / LANES;
    if (byte.readers == 0 || byte.readers_warp != warp || byte.readers_moment != now.warp_barriers) {
        byte.several_warps_read |= byte.readers != 0 && byte.readers_warp != warp;
        byte.readers = 0;
        byte.readers_warp = warp;
        byte.readers_moment = now.warp_barriers;
    }
    byte.readers |= 1u << now.thread % LANES;
}

void write(Byte& byte, size_t place, const shim::Moment& now) {
    if (byte.written && is_unordered(now, byte.writer, byte.writer_moment))
        tell("two writes of", place, byte.writer, now.thread);
    const unsigned warp = now.thread / LANES, others = byte.readers & ~(1u << now.thread % LANES);
    const unsigned reader = byte.readers_warp * LANES + (others ? __builtin_ctz(others) : __builtin_ctz(byte.readers | 1u << 31));
    if (byte.several_warps_read || (byte.readers && byte.readers_warp != warp) ||
        (others && byte.readers_moment == now.warp_barriers))
        tell("reading and writing", place, reader, now.thread);
    byte.written = true;
    byte.writer = now.thread;
    byte.writer_moment = now.warp_barriers;
    byte.readers = 0;
}

void touch(const void* address, size_t count, void (*access)(Byte&, size_t, const shim::Moment&)) {
    const size_t first = shim::place_in_shared(address);
    if (first == SIZE_MAX) return;
    const shim::Moment now = shim::now();
    if (bytes.size() < first + count) bytes.resize(first + count);
    for (size_t place = first; place < first + count; ++place) {
        Byte& byte = bytes[place];
        if (byte.barriers != now.barriers) {
            byte = Byte();
            byte.barriers = now.barriers;
        }
        access(byte, place, now);
    }
}

}  // namespace

// Names and types are gcc's.
#define ACCESSES(count)                                                                          \
    extern "C" void __tsan_read##count(void* address) { touch(address, count, read); }           \
    extern "C" void __tsan_write##count(void* address) { touch(address, count, write); }         \
    extern "C" void __tsan_volatile_read##count(void* address) { touch(address, count, read); }  \
    extern "C" void __tsan_volatile_write##count(void* address) { touch(address, count, write); } \
    extern "C" void __tsan_unaligned_read##count(void* address) { touch(address, count, read); } \
    extern "C" void __tsan_unaligned_write##count(void* address) { touch(address, count, write); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

extern "C" void __tsan_read_range(void* address, size_t count) { touch(address, count, read); }
extern "C" void __tsan_write_range(void* address, size_t count) { touch(address, count, write); }
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
