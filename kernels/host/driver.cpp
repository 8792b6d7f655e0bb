// The CUDA driver's functions over the shim, for tests of what uses a driver: this library is opened as if it were one.
//
// Its GPU is as late as a GPU may be. Copies, launches and events of a stream wait in a queue until somebody waits for the
// stream, so that memory which is used again too early has the wrong content, and a fault is told at the next wait, not where it
// was launched. While a stream is captured nothing waits and nothing is copied. Machine code is any bytes: kernels are known by
// name.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

extern "C" const char* shim_launch(void (*kernel)(const void*), const unsigned grid[3], const unsigned block[3],
                                   size_t shared_bytes, const void* arguments);
extern "C" void* shim_allocate(size_t bytes);
extern "C" void shim_free(void* memory);

namespace {

using Status = int;
// As cuda.h numbers them.
constexpr Status SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500,
                 LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901;

// A GB10, but for its memory.
constexpr int MAJOR = 12, MINOR = 1, MULTIPROCESSORS = 48, VERSION = 13000;
constexpr size_t L2_BYTES = 24u << 20, MEMORY_BYTES = size_t{1} << 32;

using Work = std::function<void()>;

struct Event {
    // Of all that was ever waited for: later ones are larger.
    uint64_t recorded = 0, done = 0;
};

struct Function {
    void (*entry)(const void*);
    unsigned argument_bytes;
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
    bool broken = false;
};

// One GPU, one context, used by any thread.
std::recursive_mutex everything;
// What a launch has broken stays broken.
Status sticky = SUCCESS;
std::map<void*, size_t> allocations;
size_t allocated_bytes;
std::set<Stream*> streams;
uint64_t moment;
int context;
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
    if (current == nullptr) return INVALID_CONTEXT;
    if (sticky != SUCCESS) return sticky;
    if (stream->captured) {
        stream->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    stream->queue.push_back(std::move(work));
    return SUCCESS;
}

// Whether so many bytes from there lie in one allocation.
bool is_allocated(uint64_t address, size_t bytes) {
    auto* const start = reinterpret_cast<char*>(address);
    auto after = allocations.upper_bound(start);
    if (after == allocations.begin()) return false;
    const auto& [memory, size] = *--after;
    return start + bytes <= static_cast<char*>(memory) + size;
}

}  // namespace

extern "C" {

Status cuInit(unsigned) { return SUCCESS; }

Status cuDriverGetVersion(int* version) {
    *version = VERSION;
    return SUCCESS;
}

Status cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}

Status cuDeviceGet(int* device, int ordinal) {
    if (ordinal != 0) return 101;
    *device = 0;
    return SUCCESS;
}

Status cuDeviceGetName(char* name, int bytes, int) {
    std::snprintf(name, static_cast<size_t>(bytes), "host shim");
    return SUCCESS;
}

Status cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = MEMORY_BYTES;
    return SUCCESS;
}

Status cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = MULTIPROCESSORS; break;
        case 18: *value = 1; break;
        case 38: *value = L2_BYTES; break;
        case 75: *value = MAJOR; break;
        case 76: *value = MINOR; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

Status cuDevicePrimaryCtxRetain(void** retained, int) {
    *retained = &context;
    return SUCCESS;
}

Status cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

Status cuCtxSetCurrent(void* wanted) {
    current = wanted;
    return SUCCESS;
}

Status cuMemGetInfo_v2(size_t* free, size_t* total) {
    const Guard guard(everything);
    if (current == nullptr) return INVALID_CONTEXT;
    *free = MEMORY_BYTES - allocated_bytes;
    *total = MEMORY_BYTES;
    return SUCCESS;
}

Status cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    const Guard guard(everything);
    if (current == nullptr) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    for (const Stream* stream : streams)
        if (stream->captured) return CAPTURE_UNSUPPORTED;
    if (bytes > MEMORY_BYTES - allocated_bytes) return OUT_OF_MEMORY;
    void* const memory = shim_allocate(bytes);
    if (memory == nullptr) return OUT_OF_MEMORY;
    allocations[memory] = bytes;
    allocated_bytes += bytes;
    *address = reinterpret_cast<uint64_t>(memory);
    return SUCCESS;
}

Status cuMemFree_v2(uint64_t address) {
    const Guard guard(everything);
    const auto found = allocations.find(reinterpret_cast<void*>(address));
    if (found == allocations.end()) return INVALID_VALUE;
    // As the driver does, which waits for whatever may use it.
    for (Stream* stream : streams) drain(stream);
    allocated_bytes -= found->second;
    shim_free(found->first);
    allocations.erase(found);
    return SUCCESS;
}

Status cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    *address = std::malloc(bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

Status cuMemFreeHost(void* address) {
    std::free(address);
    return SUCCESS;
}

Status cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    const Guard guard(everything);
    if (!is_allocated(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
}

Status cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    const Guard guard(everything);
    if (!is_allocated(from, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] { std::memcpy(to, reinterpret_cast<const void*>(from), bytes); });
}

Status cuStreamCreate(Stream** stream, unsigned) {
    const Guard guard(everything);
    if (current == nullptr) return INVALID_CONTEXT;
    *stream = new Stream;
    streams.insert(*stream);
    return SUCCESS;
}

Status cuStreamDestroy_v2(Stream* stream) {
    const Guard guard(everything);
    streams.erase(stream);
    delete stream;
    return SUCCESS;
}

Status cuStreamSynchronize(Stream* stream) {
    const Guard guard(everything);
    return drain(stream);
}

Status cuEventCreate(Event** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}

Status cuEventDestroy_v2(Event* event) {
    delete event;
    return SUCCESS;
}

Status cuEventRecord(Event* event, Stream* stream) {
    const Guard guard(everything);
    const uint64_t recorded = ++moment;
    event->recorded = recorded;
    return enqueue(stream, [=] { event->done = recorded; });
}

Status cuEventSynchronize(Event* event) {
    const Guard guard(everything);
    for (Stream* stream : streams) {
        while (event->done < event->recorded && !stream->queue.empty()) {
            const Work work = std::move(stream->queue.front());
            stream->queue.pop_front();
            work();
        }
    }
    return sticky;
}

Status cuEventElapsedTime(float* milliseconds, const Event* start, const Event* end) {
    if (start->done == 0 || end->done == 0) return INVALID_VALUE;
    // Nobody measures the shim.
    *milliseconds = 1.0f;
    return SUCCESS;
}

Status cuModuleLoadData(void** module, const void* image) {
    if (current == nullptr) return INVALID_CONTEXT;
    *module = const_cast<void*>(image);
    return SUCCESS;
}

Status cuModuleUnload(void*) { return SUCCESS; }

Status cuModuleGetFunction(Function** function, void*, const char* name) {
    static std::map<std::string, Function> known;
    const Guard guard(everything);
    Dl_info own;
    dladdr(reinterpret_cast<const void*>(&cuModuleGetFunction), &own);
    void* const library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return NOT_FOUND;
    void* const entry = dlsym(library, name);
    const void* const bytes = dlsym(library, (std::string(name) + "_argument_bytes").c_str());
    if (entry == nullptr || bytes == nullptr) return NOT_FOUND;
    known[name] = {reinterpret_cast<void (*)(const void*)>(entry), *static_cast<const unsigned*>(bytes)};
    *function = &known[name];
    return SUCCESS;
}

Status cuLaunchKernel(const Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream* stream, void** arguments,
                      void**) {
    const Guard guard(everything);
    if (current == nullptr) return INVALID_CONTEXT;
    Launch launch{*function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, {}};
    launch.arguments.resize((function->argument_bytes + 7) / 8);
    std::memcpy(launch.arguments.data(), arguments[0], function->argument_bytes);
    if (stream->captured) {
        stream->captured->launches.push_back(std::move(launch));
        return SUCCESS;
    }
    return enqueue(stream, [launch = std::move(launch)] { run(launch); });
}

Status cuStreamBeginCapture_v2(Stream* stream, unsigned) {
    const Guard guard(everything);
    stream->captured = std::make_unique<Graph>();
    stream->broken = false;
    return SUCCESS;
}

Status cuStreamEndCapture(Stream* stream, Graph** graph) {
    const Guard guard(everything);
    if (!stream->captured) return INVALID_VALUE;
    *graph = stream->broken ? nullptr : stream->captured.release();
    stream->captured.reset();
    return *graph ? SUCCESS : CAPTURE_INVALIDATED;
}

Status cuGraphInstantiateWithFlags(Graph** executable, const Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    return SUCCESS;
}

Status cuGraphDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}

Status cuGraphUpload(Graph*, Stream*) { return SUCCESS; }

Status cuGraphLaunch(Graph* executable, Stream* stream) {
    const Guard guard(everything);
    return enqueue(stream, [launches = executable->launches] {
        for (const Launch& launch : launches) run(launch);
    });
}

Status cuGraphExecDestroy(Graph* executable) {
    delete executable;
    return SUCCESS;
}

Status cuGetErrorName(Status status, const char** name) {
    switch (status) {
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        case CAPTURE_INVALIDATED: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

}  // extern "C"
