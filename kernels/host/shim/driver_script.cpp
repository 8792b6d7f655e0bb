// Faults that a test asks for, and what is taken of the GPU and of pinned memory.
//
// A test in the same process asks for its own thread, since others run beside it. One that starts a process asks by environment:
// `SPARKHERD_HOST_DRIVER_FAULT=FUNCTION:STATUS:CALL` makes the CALLth call of a function fail, and each call that takes something
// adds its name as a line to the file `SPARKHERD_HOST_DRIVER_TAKINGS`.
#include "driver_script.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Fault {
    std::string function;
    Status status = 0;
    // Calls until then; 0: never.
    unsigned call = 0;

    Status count(const char* called) {
        if (call == 0 || function != called) return 0;
        return --call == 0 ? status : 0;
    }
};

// What takes memory, or may.
constexpr const char* TAKING[] = {"cuDevicePrimaryCtxRetain", "cuMemAlloc_v2",  "cuMemHostAlloc",
                                  "cuStreamCreate",           "cuEventCreate",  "cuModuleLoadData",
                                  "cuFuncLoad",               "cuStreamBeginCapture_v2",
                                  "cuGraphInstantiateWithFlags"};

Fault of_environment() {
    const char* const text = std::getenv("SPARKHERD_HOST_DRIVER_FAULT");
    if (text == nullptr) return {};
    char function[64];
    Fault fault;
    if (std::sscanf(text, "%63[^:]:%d:%u", function, &fault.status, &fault.call) != 3) std::abort();
    fault.function = function;
    return fault;
}

thread_local Fault of_thread;
thread_local unsigned taken;

}  // namespace

// Under the driver's lock.
Status script(const char* function) {
    static Fault of_process = of_environment();
    static const char* const file = std::getenv("SPARKHERD_HOST_DRIVER_TAKINGS");
    const auto is_it = [=](const char* taking) { return std::strcmp(taking, function) == 0; };
    if (std::any_of(std::begin(TAKING), std::end(TAKING), is_it)) {
        ++taken;
        if (std::FILE* const notes = file ? std::fopen(file, "a") : nullptr) {
            std::fprintf(notes, "%s\n", function);
            std::fclose(notes);
        }
    }
    if (const Status failed = of_thread.count(function)) return failed;
    return of_process.count(function);
}

bool is_sticky(Status status) {
    return status == 214 || status == 999 || (status >= 700 && status < 720 && status != 701);
}

extern "C" {

// Makes the `call`th call of a function fail in this thread.
void host_driver_fail(const char* function, Status status, unsigned call) { of_thread = {function, status, call}; }

// How often this thread has called what takes memory.
unsigned host_driver_taken() { return taken; }

}  // extern "C"
