// The CUDA driver's functions over the shim, for tests of what uses a driver: this library is opened as if it were one.
//
// Its GPU is as late as a GPU may be. Copies, launches and events of a stream wait in a queue until somebody waits for the
// stream, so that memory which is used again too early has the wrong content, and a fault is told at the next wait, not where it
// was launched. While a stream is captured nothing waits and nothing is copied. Machine code is any bytes: kernels are known by
// name. It refuses what a driver refuses, and more where a driver would be slow or undefined: memory that is not pinned is not
// copied from, and handles that are gone are known.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "driver_gpu.hpp"

extern "C" {

Status cuInit(unsigned) {
    BEGIN_ANYWHERE;
    return SUCCESS;
}

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

Status cuDeviceGetPCIBusId(char* bus_id, int bytes, int) {
    std::snprintf(bus_id, static_cast<size_t>(bytes), "0000:01:00.0");
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

Status cuDevicePrimaryCtxRetain(void** place, int) {
    BEGIN_ANYWHERE;
    ++retained;
    *place = &context;
    return SUCCESS;
}

Status cuDevicePrimaryCtxRelease_v2(int) {
    const Guard guard(everything);
    if (retained == 0) return INVALID_CONTEXT;
    --retained;
    return SUCCESS;
}

Status cuCtxSetCurrent(void* wanted) {
    const Guard guard(everything);
    if (wanted != nullptr && (wanted != &context || retained == 0)) return INVALID_CONTEXT;
    current = wanted;
    return SUCCESS;
}

Status cuMemGetInfo_v2(size_t* free, size_t* total) {
    BEGIN;
    *free = MEMORY_BYTES - allocated_bytes;
    *total = MEMORY_BYTES;
    return SUCCESS;
}

Status cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    BEGIN;
    if (bytes == 0) return INVALID_VALUE;
    for (const Stream* stream : streams)
        if (stream->captured && stream->captured_by == std::this_thread::get_id()) return CAPTURE_UNSUPPORTED;
    if (bytes > MEMORY_BYTES - allocated_bytes) return OUT_OF_MEMORY;
    void* const memory = shim_allocate(bytes);
    if (memory == nullptr) return OUT_OF_MEMORY;
    allocations[memory] = bytes;
    allocated_bytes += bytes;
    *address = reinterpret_cast<uint64_t>(memory);
    return SUCCESS;
}

Status cuMemFree_v2(uint64_t address) {
    BEGIN;
    const auto found = allocations.find(reinterpret_cast<void*>(address));
    if (found == allocations.end()) return INVALID_VALUE;
    // As the driver does, which waits for whatever may use it.
    for (Stream* stream : streams) drain(stream);
    allocated_bytes -= found->second;
    shim_free(const_cast<void*>(found->first));
    allocations.erase(found);
    return SUCCESS;
}

Status cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    BEGIN;
    if (bytes == 0) return INVALID_VALUE;
    *address = std::aligned_alloc(PAGE_BYTES, (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    if (*address == nullptr) return OUT_OF_MEMORY;
    pinned[*address] = bytes;
    return SUCCESS;
}

// Waits for nobody: a copy that is still to come finds the memory gone.
Status cuMemFreeHost(void* address) {
    BEGIN;
    if (pinned.erase(address) == 0) return INVALID_VALUE;
    std::free(address);
    return SUCCESS;
}

Status cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    BEGIN;
    if (!is_allocated(to, bytes) || !lies_in(pinned, from, bytes)) return INVALID_VALUE;
    if (!streams.count(stream)) return INVALID_HANDLE;
    return enqueue(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
}

Status cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    BEGIN;
    if (!is_allocated(from, bytes) || !lies_in(pinned, to, bytes)) return INVALID_VALUE;
    if (!streams.count(stream)) return INVALID_HANDLE;
    return enqueue(stream, [=] { std::memcpy(to, reinterpret_cast<const void*>(from), bytes); });
}

Status cuStreamCreate(Stream** stream, unsigned) {
    BEGIN;
    *stream = new Stream;
    streams.insert(*stream);
    return SUCCESS;
}

Status cuStreamDestroy_v2(Stream* stream) {
    BEGIN;
    if (streams.erase(stream) == 0) return INVALID_HANDLE;
    delete stream;
    return SUCCESS;
}

Status cuStreamSynchronize(Stream* stream) {
    BEGIN;
    return streams.count(stream) ? drain(stream) : INVALID_HANDLE;
}

Status cuEventCreate(Event** event, unsigned) {
    BEGIN;
    *event = new Event;
    events.insert(*event);
    return SUCCESS;
}

Status cuEventDestroy_v2(Event* event) {
    BEGIN;
    if (events.erase(event) == 0) return INVALID_HANDLE;
    delete event;
    return SUCCESS;
}

Status cuEventRecord(Event* event, Stream* stream) {
    BEGIN;
    if (!events.count(event) || !streams.count(stream)) return INVALID_HANDLE;
    const uint64_t recorded = ++moment;
    event->recorded = recorded;
    return enqueue(stream, [done = event->done, recorded] { *done = recorded; });
}

Status cuEventSynchronize(Event* event) {
    BEGIN;
    if (!events.count(event)) return INVALID_HANDLE;
    for (Stream* stream : streams) {
        while (*event->done < event->recorded && !stream->queue.empty()) {
            const Work work = std::move(stream->queue.front());
            stream->queue.pop_front();
            work();
        }
    }
    return sticky;
}

Status cuEventElapsedTime(float* milliseconds, const Event* start, const Event* end) {
    BEGIN;
    if (!events.count(start) || !events.count(end)) return INVALID_HANDLE;
    if (*start->done == 0 || *end->done == 0) return INVALID_VALUE;
    // Nobody measures the shim.
    *milliseconds = 1.0f;
    return SUCCESS;
}

Status cuModuleLoadData(void** module, const void* image) {
    BEGIN;
    *module = const_cast<void*>(image);
    return SUCCESS;
}

Status cuModuleUnload(void*) { return SUCCESS; }

Status cuModuleGetFunction(Function** function, void*, const char* name) {
    static std::map<std::string, Function> known;
    BEGIN;
    Dl_info own;
    dladdr(reinterpret_cast<const void*>(&cuModuleGetFunction), &own);
    void* const library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return NOT_FOUND;
    const auto number = [&](const char* of) {
        return static_cast<const unsigned*>(dlsym(library, (std::string(name) + of).c_str()));
    };
    void* const entry = dlsym(library, name);
    const unsigned *const bytes = number("_argument_bytes"), *const threads = number("_threads_max");
    if (entry == nullptr || bytes == nullptr || threads == nullptr) return NOT_FOUND;
    const Function found = {reinterpret_cast<void (*)(const void*)>(entry), *bytes, *threads, SHARED_BYTES_UNASKED};
    *function = &known.try_emplace(name, found).first->second;
    return SUCCESS;
}

Status cuFuncLoad(Function*) {
    BEGIN;
    return SUCCESS;
}

Status cuFuncSetAttribute(Function* function, int attribute, int value) {
    BEGIN;
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 || value > SHARED_BYTES_MAX) return INVALID_VALUE;
    function->shared_bytes_max = static_cast<unsigned>(value);
    return SUCCESS;
}

Status cuLaunchKernel(const Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream* stream, void** arguments,
                      void**) {
    BEGIN;
    if (!streams.count(stream)) return INVALID_HANDLE;
    Launch launch{*function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, {}};
    for (int axis = 0; axis < 3; ++axis)
        if (launch.grid[axis] == 0 || launch.grid[axis] > GRID_MAX[axis] || launch.block[axis] == 0) return INVALID_VALUE;
    const uint64_t threads = uint64_t{block_x} * block_y * block_z;
    if (threads > THREADS_MAX || shared_bytes > function->shared_bytes_max) return INVALID_VALUE;
    if (threads > function->threads_max) return LAUNCH_OUT_OF_RESOURCES;
    launch.arguments.resize((function->argument_bytes + 7) / 8);
    std::memcpy(launch.arguments.data(), arguments[0], function->argument_bytes);
    if (stream->captured) {
        stream->captured->launches.push_back(std::move(launch));
        return SUCCESS;
    }
    return enqueue(stream, [launch = std::move(launch)] { run(launch); });
}

Status cuStreamBeginCapture_v2(Stream* stream, unsigned) {
    BEGIN;
    if (!streams.count(stream)) return INVALID_HANDLE;
    stream->captured = std::make_unique<Graph>();
    stream->captured_by = std::this_thread::get_id();
    stream->broken = false;
    return SUCCESS;
}

Status cuStreamEndCapture(Stream* stream, Graph** graph) {
    BEGIN;
    if (!streams.count(stream) || !stream->captured) return INVALID_VALUE;
    *graph = stream->broken ? nullptr : stream->captured.release();
    stream->captured.reset();
    if (*graph == nullptr) return CAPTURE_INVALIDATED;
    graphs.insert(*graph);
    return SUCCESS;
}

Status cuGraphInstantiateWithFlags(Graph** executable, const Graph* graph, unsigned long long) {
    BEGIN;
    if (!graphs.count(graph)) return INVALID_VALUE;
    *executable = new Graph(*graph);
    graphs.insert(*executable);
    return SUCCESS;
}

Status cuGraphDestroy(Graph* graph) {
    BEGIN;
    if (graphs.erase(graph) == 0) return INVALID_VALUE;
    delete graph;
    return SUCCESS;
}

Status cuGraphUpload(Graph* executable, Stream*) {
    BEGIN;
    return graphs.count(executable) ? SUCCESS : INVALID_VALUE;
}

Status cuGraphLaunch(Graph* executable, Stream* stream) {
    BEGIN;
    if (!graphs.count(executable) || !streams.count(stream)) return INVALID_HANDLE;
    return enqueue(stream, [launches = executable->launches] {
        for (const Launch& launch : launches) run(launch);
    });
}

Status cuGraphExecDestroy(Graph* executable) {
    BEGIN;
    if (graphs.erase(executable) == 0) return INVALID_VALUE;
    delete executable;
    return SUCCESS;
}

Status cuGetErrorName(Status status, const char** name) {
    switch (status) {
        case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
        case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
        case 700: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        case CAPTURE_INVALIDATED: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
        default: return INVALID_VALUE;
    }
    return SUCCESS;
}

}  // extern "C"
