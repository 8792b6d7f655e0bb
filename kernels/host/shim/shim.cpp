// See shim.hpp.
#include "shim.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Shared memory of all kernels; shared.ld gives its ends.
extern "C" __attribute__((visibility("hidden"))) unsigned char shim_shared_start[], shim_shared_stop[];

namespace shim {

namespace {

// What a kernel of many local variables takes, several times over; ASan's frames are larger.
constexpr size_t STACK_BYTES = 128 << 10;
constexpr unsigned THREADS_MAX = 1024;
constexpr unsigned LANES = 32;
constexpr unsigned ALL = 0xffffffffu;

enum class State { READY, AT_BARRIER, AT_WARP, DONE };

#if defined(__SANITIZE_ADDRESS__)
// Of the thread that launches. Each fibre notes it when it begins, which it does once for each block.
const void* host_stack;
size_t host_stack_bytes;
#endif

// A place to go on from.
struct Place {
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
#endif
};

struct Fibre {
    Place place;
    unsigned char* stack;
    State state;
};

struct Warp {
    const char* what = nullptr;
    unsigned mask = 0, arrived = 0, turn = 0, barriers = 0;
    unsigned char slots[2][LANES * SLOT_BYTES];
};

// A thread's copies that have not landed, each with the number of its group.
struct Copies {
    std::deque<std::pair<unsigned, Copy>> waiting;
    unsigned ended = 0;
};

// A launch under way. One at a time: `launching` is held.
std::mutex launching;
std::vector<Fibre> fibres;
std::vector<Warp> warps;
std::vector<Copies> copies;
unsigned threads, running;
unsigned long long barriers;
Dimensions thread_size;
Place scheduler;
void (*entry)(const void*);
const void* launch_arguments;
std::vector<unsigned char> dynamic;
std::string error;

#if defined(__x86_64__)
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.text
.globl shim_switch
.hidden shim_switch
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

void go(Place& from, Place& to, [[maybe_unused]] const unsigned char* stack, [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, stack ? stack : host_stack,
                                   stack ? STACK_BYTES : host_stack_bytes);
#endif
#if defined(__x86_64__)
    shim_switch(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void enter(Fibre& fibre) { go(scheduler, fibre.place, fibre.stack, false); }

void leave(State state) {
    Fibre& fibre = fibres[running];
    fibre.state = state;
    go(fibre.place, scheduler, nullptr, state == State::DONE);
}

void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
    entry(launch_arguments);
    leave(State::DONE);
    std::abort();
}

void prepare(Fibre& fibre) {
    fibre.state = State::READY;
#if defined(__SANITIZE_ADDRESS__)
    // Functions that did not return left the places around their variables marked.
    ASAN_UNPOISON_MEMORY_REGION(fibre.stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
    // As `shim_switch` leaves a stack: six registers and where to return to. Functions begin 8 bytes off a multiple of 16.
    void** top = reinterpret_cast<void**>(fibre.stack + STACK_BYTES) - 2;
    *top = reinterpret_cast<void*>(run_thread);
    for (int saved = 1; saved <= 6; ++saved) top[-saved] = nullptr;
    fibre.place.stack_pointer = top - 6;
#else
    getcontext(&fibre.place.context);
    fibre.place.context.uc_stack.ss_sp = fibre.stack;
    fibre.place.context.uc_stack.ss_size = STACK_BYTES;
    fibre.place.context.uc_link = nullptr;
    makecontext(&fibre.place.context, run_thread, 0);
#endif
}

unsigned char* new_stack() {
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    return static_cast<unsigned char*>(stack);
}

// Lets every thread that can go on do so. Tells whether any did.
bool round() {
    bool any = false;
    for (unsigned thread = 0; thread < threads && error.empty(); ++thread) {
        if (fibres[thread].state != State::READY) continue;
        any = true;
        running = thread;
        const Dimensions size = thread_size;
        current.thread = {thread % size.x, thread / size.x % size.y, thread / (size.x * size.y)};
        enter(fibres[thread]);
    }
    return any;
}

unsigned count(State state) {
    unsigned all = 0;
    for (unsigned thread = 0; thread < threads; ++thread) all += fibres[thread].state == state;
    return all;
}

// ASan guards what is around variables, and a call of memset would meet that.
#if defined(__SANITIZE_ADDRESS__)
__attribute__((no_sanitize("address", "undefined")))
#endif
void fill_static_shared() {
    for (unsigned char* byte = shim_shared_start; byte != shim_shared_stop; ++byte) {
        *byte = 0xff;
        // Keeps the compiler from making it a call of memset.
        asm volatile("" : : : "memory");
    }
}

void run_block() {
    for (unsigned thread = 0; thread < threads; ++thread) prepare(fibres[thread]);
    warps.assign((threads + LANES - 1) / LANES, Warp());
    // What a thread does not wait for never comes.
    copies.assign(threads, Copies());
    std::fill(dynamic.begin(), dynamic.end(), 0xff);
    fill_static_shared();
    ++barriers;
    for (;;) {
        while (round()) {
        }
        if (!error.empty()) return;
        const unsigned at_barrier = count(State::AT_BARRIER);
        if (count(State::DONE) == threads) return;
        if (at_barrier != threads) {
            error = at_barrier ? "a barrier is not reached by all threads of its block"
                               : "lanes wait for others of their warp that do not come";
            return;
        }
        for (unsigned thread = 0; thread < threads; ++thread) fibres[thread].state = State::READY;
        ++barriers;
    }
}

}  // namespace

Thread current;

void fail(const char* what) {
    if (error.empty()) error = what;
    leave(State::DONE);
    std::abort();
}

void barrier() { leave(State::AT_BARRIER); }

const unsigned char* exchange(const char* what, unsigned mask, const void* value, size_t bytes) {
    const unsigned lane = running % LANES, first = running - lane;
    Warp& warp = warps[running / LANES];
    if (!(mask >> lane & 1)) fail("a lane waits for others that do not count it in");
    if (warp.arrived == 0) {
        warp.what = what;
        warp.mask = mask;
    } else if (warp.mask != mask || std::strcmp(warp.what, what) != 0) {
        fail("lanes of one warp wait for different things");
    }
    unsigned char* slots = warp.slots[warp.turn];
    if (bytes) std::memcpy(slots + SLOT_BYTES * lane, value, bytes);
    warp.arrived |= 1u << lane;
    if (warp.arrived != mask) {
        leave(State::AT_WARP);
        return slots;
    }
    warp.arrived = 0;
    warp.turn ^= 1;
    // A shuffle or a vote gives values, and orders no memory.
    if (mask == ALL && std::strcmp(what, "syncwarp") == 0) ++warp.barriers;
    for (unsigned other = 0; other < LANES; ++other)
        if (mask >> other & 1 && other != lane) fibres[first + other].state = State::READY;
    return slots;
}

void copy_later(void* to, const void* from, unsigned bytes) {
    constexpr unsigned BYTES = 16;
    if (bytes > BYTES || reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % BYTES)
        fail("a copy is of up to 16 bytes, from a multiple of 16 to another");
    copies[running].waiting.push_back({copies[running].ended, {to, from, bytes}});
}

void end_copies() { ++copies[running].ended; }

bool next_landed(unsigned groups, Copy& copy) {
    Copies& own = copies[running];
    if (own.waiting.empty() || own.waiting.front().first + groups >= own.ended) return false;
    copy = own.waiting.front().second;
    own.waiting.pop_front();
    return true;
}

// Fibres do not interrupt each other.
unsigned add(unsigned* place, unsigned value) {
    const unsigned before = *place;
    *place = before + value;
    return before;
}

unsigned char* dynamic_shared() { return dynamic.data(); }

size_t place_in_shared(const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    const auto first = reinterpret_cast<uintptr_t>(shim_shared_start);
    const auto bytes = reinterpret_cast<uintptr_t>(shim_shared_stop) - first;
    if (at - first < bytes) return at - first;
    const uintptr_t place = at - reinterpret_cast<uintptr_t>(dynamic.data());
    return place < dynamic.size() ? bytes + place : SIZE_MAX;
}

Moment now() { return {running, barriers, warps[running / LANES].barriers}; }

}  // namespace shim

// Runs `kernel` for every block of the grid. Returns why it failed, or null; the text is there until the next launch.
extern "C" const char* shim_launch(void (*kernel)(const void*), const unsigned grid[3], const unsigned block[3],
                                   size_t shared_bytes, const void* arguments) {
    using namespace shim;
    const std::lock_guard<std::mutex> guard(launching);
    error.clear();
    threads = block[0] * block[1] * block[2];
    if (threads == 0 || threads > THREADS_MAX) return "a block has 1 to 1024 threads";
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return "a grid has a block at least";
    if (grid[1] > 65535 || grid[2] > 65535) return "a grid has at most 65535 blocks in its second and third dimension";
    thread_size = {block[0], block[1], block[2]};
    entry = kernel;
    launch_arguments = arguments;
    dynamic.resize(shared_bytes);
    while (fibres.size() < threads) fibres.push_back({{}, new_stack(), State::DONE});
    current.block_size = thread_size;
    current.grid_size = {grid[0], grid[1], grid[2]};
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0] && error.empty(); ++x) {
                current.block = {x, y, z};
                run_block();
            }
    // A copy: another launch may fail before this one's caller has read it.
    static thread_local std::string told;
    told = error;
    return told.empty() ? nullptr : told.c_str();
}

extern "C" void* shim_allocate(size_t bytes) {
    void* memory;
    // Not rounded up: ASan sees what is read beyond the end.
    if (posix_memalign(&memory, 256, bytes) != 0) return nullptr;
    std::memset(memory, 0xff, bytes);
    return memory;
}

extern "C" void shim_free(void* memory) { std::free(memory); }
