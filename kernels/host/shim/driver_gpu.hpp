// The GPU of driver.cpp: what is allocated, what waits in its streams, and what it runs at last.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "driver_script.hpp"

extern "C" const char* shim_launch(void (*kernel)(const void*), const unsigned grid[3], const unsigned block[3],
                                   size_t shared_bytes, const void* arguments);
extern "C" void* shim_allocate(size_t bytes);
extern "C" void shim_free(void* memory);

namespace {

// As cuda.h numbers them.
constexpr Status SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
                 NOT_FOUND = 500, LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900,
                 CAPTURE_INVALIDATED = 901;

// A GB10, but for its memory.
constexpr int MAJOR = 12, MINOR = 1, MULTIPROCESSORS = 48, VERSION = 13000;
constexpr size_t L2_BYTES = 24u << 20, MEMORY_BYTES = size_t{1} << 32;

// Of every chip (CUDA C++ Programming Guide, "Compute Capabilities"): blocks in each direction, threads of a block, and shared
// memory of a launch that nobody has asked more for.
constexpr unsigned GRID_MAX[3] = {0x7fffffff, 65535, 65535}, THREADS_MAX = 1024, SHARED_BYTES_UNASKED = 48u << 10;
// And of a GB10, asked for.
constexpr int SHARED_BYTES_MAX = 99 << 10, MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
// What the driver's own pinned memory is aligned to.
constexpr size_t PAGE_BYTES = 4096;

using Work = std::function<void()>;

struct Event {
    // Of all that was ever waited for: later ones are larger. A stream still knows `done` when the event is gone.
    uint64_t recorded = 0;
    std::shared_ptr<uint64_t> done = std::make_shared<uint64_t>(0);
};

struct Function {
    void (*entry)(const void*);
    unsigned argument_bytes, threads_max, shared_bytes_max;
};

struct Launch {
    Function function;
    unsigned grid[3], block[3], shared_bytes;
    // Structures are aligned to 8.
    std::vector<uint64_t> arguments;
};

struct Graph {
    std::vector<Launch> launches;
};

struct Stream {
    std::deque<Work> queue;
    std::unique_ptr<Graph> captured;
    // Only its own thread may not wait or allocate meanwhile.
    std::thread::id captured_by;
    bool broken = false;
};

// One GPU, one context, used by any thread.
std::recursive_mutex everything;
// What a launch has broken stays broken.
Status sticky = SUCCESS;
std::map<const void*, size_t> allocations, pinned;
size_t allocated_bytes;
std::set<Stream*> streams;
std::set<const void*> events, graphs;
uint64_t moment;
int context;
unsigned retained;
thread_local void* current = nullptr;

using Guard = std::lock_guard<std::recursive_mutex>;

void run(const Launch& launch) {
    if (sticky != SUCCESS) return;
    if (const char* failed = shim_launch(launch.function.entry, launch.grid, launch.block, launch.shared_bytes,
                                         launch.arguments.data())) {
        std::fprintf(stderr, "kernel on the shim: %s\n", failed);
        sticky = LAUNCH_FAILED;
    }
}

Status drain(Stream* stream) {
    if (stream->captured) {
        stream->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    while (!stream->queue.empty()) {
        const Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        work();
    }
    return sticky;
}

Status enqueue(Stream* stream, Work work) {
    if (sticky != SUCCESS) return sticky;
    if (stream->captured) {
        stream->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    stream->queue.push_back(std::move(work));
    return SUCCESS;
}

// Whether so many bytes from there lie in one of these.
bool lies_in(const std::map<const void*, size_t>& memories, const void* address, size_t bytes) {
    auto after = memories.upper_bound(address);
    if (after == memories.begin()) return false;
    const auto& [memory, size] = *--after;
    return static_cast<const char*>(address) + bytes <= static_cast<const char*>(memory) + size;
}

bool is_allocated(uint64_t address, size_t bytes) {
    return lies_in(allocations, reinterpret_cast<const void*>(address), bytes);
}

// With what a function that needs a context begins, and one that needs none. `script` may let it fail.
Status begin(const char* function, bool needs_context) {
    if (const Status failed = script(function)) {
        if (is_sticky(failed)) sticky = failed;
        return failed;
    }
    if (!needs_context) return SUCCESS;
    return current == &context && retained > 0 ? sticky : INVALID_CONTEXT;
}

#define BEGIN_ANYWHERE           \
    const Guard guard(everything); \
    if (const Status refused = begin(__func__, false)) return refused
#define BEGIN                    \
    const Guard guard(everything); \
    if (const Status refused = begin(__func__, true)) return refused

}  // namespace
