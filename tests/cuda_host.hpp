// CUDA's few built-ins on a host: enough to run the kernels' own text, a block at a time, a thread a fiber.
//
// Threads run in an order that the caller chooses, each up to its next barrier, so an order that the result depends on
// is a race, and a barrier that some threads never reach is seen. Shared memory starts as rubbish, as on a GPU.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cuda_shared")))

extern "C" char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));

namespace host {

struct Index {
    unsigned x;
};

enum class State { ready, at_warp, at_block, done };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    State state;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline long long exchanged[1024];
inline void (*body)(void* const*);
inline void* const* arguments;

inline void wait(State state) {
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

inline void start() {
    body(arguments);
    fibers[current].state = State::done;
    swapcontext(&fibers[current].context, &scheduler);
}

// Let go those of a warp, or all, if every one that is not done waits there.
inline bool release(unsigned from, unsigned to, State state) {
    bool some = false;
    for (unsigned i = from; i < to; ++i) {
        if (fibers[i].state == State::done) continue;
        if (fibers[i].state != state) return false;
        some = true;
    }
    for (unsigned i = from; some && i < to; ++i)
        if (fibers[i].state == state) fibers[i].state = State::ready;
    return some;
}

inline void publish(long long value) {
    exchanged[current] = value;
    wait(State::at_warp);
}

}  // namespace host

#define threadIdx (host::Index{host::current})
inline host::Index blockIdx;

inline void __syncthreads() { host::wait(host::State::at_block); }
inline void __syncwarp() { host::wait(host::State::at_warp); }

inline unsigned __match_any_sync(unsigned, unsigned value) {
    host::publish(value);
    unsigned same = 0;
    const unsigned warp = host::current / 32 * 32;
    for (unsigned i = 0; i < 32; ++i) same |= static_cast<unsigned>(host::exchanged[warp + i] == value) << i;
    __syncwarp();
    return same;
}

inline int __any_sync(unsigned, int predicate) {
    host::publish(predicate != 0);
    int some = 0;
    const unsigned warp = host::current / 32 * 32;
    for (unsigned i = 0; i < 32; ++i) some |= static_cast<int>(host::exchanged[warp + i]);
    __syncwarp();
    return some;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline int atomicMin(int* address, int value) {
    const int before = *address;
    if (value < before) *address = value;
    return before;
}

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float load(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

inline unsigned short store_half(float value) {
    const _Float16 half = static_cast<_Float16>(value);
    unsigned short bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}

// Run a grid; `order`: 0 threads from the first, 1 from the last, more: shuffled. 1 if threads wait for ever.
inline int run(void (*body)(void* const*), void* const* arguments, unsigned blocks, unsigned threads, unsigned order) {
    using namespace host;
    host::body = body;
    host::arguments = arguments;
    fibers.resize(threads);
    std::vector<unsigned> turns(threads);
    for (unsigned i = 0; i < threads; ++i) turns[i] = order == 1 ? threads - 1 - i : i;
    std::srand(order);
    for (unsigned i = threads; order > 1 && i > 1; --i) std::swap(turns[i - 1], turns[std::rand() % i]);
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        std::memset(__start_cuda_shared, 0xcb, static_cast<size_t>(__stop_cuda_shared - __start_cuda_shared));
        for (Fiber& fiber : fibers) {
            fiber.stack.resize(64 * 1024);
            getcontext(&fiber.context);
            fiber.context.uc_stack = {fiber.stack.data(), 0, fiber.stack.size()};
            fiber.context.uc_link = nullptr;
            fiber.state = State::ready;
            makecontext(&fiber.context, start, 0);
        }
        for (unsigned left = threads; left;) {
            bool moved = false;
            for (unsigned i : turns) {
                if (fibers[i].state != State::ready) continue;
                moved = true;
                current = i;
                swapcontext(&scheduler, &fibers[i].context);
                left -= fibers[i].state == State::done;
            }
            for (unsigned warp = 0; warp < threads; warp += 32) moved |= release(warp, warp + 32, State::at_warp);
            moved |= release(0, threads, State::at_block);
            if (!moved) return 1;
        }
    }
    return 0;
}
