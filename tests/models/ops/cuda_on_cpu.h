// Runs CUDA kernels on the CPU, to test their arithmetic where there is no GPU: takes the place of models/ops/device.cuh.
//
// The threads of a block are coroutines. One warp after another runs as far as the block's next synchronisation, and its lanes, one after
// another, as far as the warp's, always in another order: what a missing synchronisation leaves to luck comes out wrong. Shared memory
// starts as NaN. Slow, and blind to alignment, to what fits a GPU, and to what one block does to another.

#pragma GCC optimize("no-strict-aliasing")  // CUDA code reads words as the numbers in them

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#define __global__ static
#define __device__
#define __launch_bounds__(threads)

namespace {

using std::min;

struct uint4 { uint32_t x, y, z, w; };
struct Index { int x; };
Index threadIdx, blockIdx, gridDim, blockDim;

enum State { AT_WARP, AT_BLOCK, DONE };

struct Coroutine {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
};

ucontext_t scheduler;
std::vector<Coroutine> threads;
std::function<void()> body;
std::vector<uint4> shared_words;
std::minstd_rand chance;

void run_thread() {
    body();
    threads[threadIdx.x].state = DONE;
}

void wait_at(State state) {
    Coroutine& thread = threads[threadIdx.x];
    thread.state = state;
    swapcontext(&thread.context, &scheduler);
}

void __syncthreads() { wait_at(AT_BLOCK); }

// Runs one(0), one(1), … one(count - 1) in some order; returns the state in which they all end.
template <class One>
State each(int count, One one) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), chance);
    State state = one(order[0]);
    for (int i = 1; i < count; i++)
        if (one(order[i]) != state) throw std::runtime_error("threads that should wait for each other wait in different places");
    return state;
}

State run_warp(int first) {
    State state;
    do state = each(min<int>(32, threads.size() - first), [&](int lane) {
        threadIdx.x = first + lane;
        swapcontext(&scheduler, &threads[first + lane].context);
        return threads[first + lane].state;
    });
    while (state == AT_WARP);
    return state;
}

uint32_t* shared_memory() { return (uint32_t*)shared_words.data(); }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int count, int shared_bytes, Arguments... arguments) {
    const size_t STACK = 1 << 18;
    body = [=] { kernel((Parameters)arguments...); };
    threads.resize(count);
    blockDim.x = count, gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        shared_words.assign(shared_bytes / 16 + 1, {~0u, ~0u, ~0u, ~0u});
        for (Coroutine& thread : threads) {
            if (!thread.stack) thread.stack.reset(new char[STACK]);
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = STACK;
            thread.context.uc_link = &scheduler;
            makecontext(&thread.context, run_thread, 0);
        }
        while (each((count + 31) / 32, [](int warp) { return run_warp(32 * warp); }) != DONE) {}
    }
    threads.clear();
}

// What each thread hands to the others of its warp; read between two synchronisations.
struct Handed {
    float number;
    uint32_t a[4], b[2];
};
std::vector<Handed> handed(1024);

float across_lanes(float x, int lane_bits) {
    handed[threadIdx.x].number = x;
    wait_at(AT_WARP);
    float other = handed[threadIdx.x ^ lane_bits].number;
    wait_at(AT_WARP);
    return other;
}

typedef _Float16 Half;
struct BFloat16 { uint16_t bits; };

float to_float(float x) { return x; }
float to_float(Half x) { return x; }
float to_float(BFloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

void store(float* to, float x) { *to = x; }
void store(Half* to, float x) { *to = x; }
void store(BFloat16* to, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    to->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <class T>
float number_of(uint32_t word, int i) {
    T numbers[4 / sizeof(T)];
    memcpy(numbers, &word, 4);
    return to_float(numbers[i]);
}

template <class T>
void multiply(T, float* c, const uint32_t* a, const uint32_t* b) {
    memcpy(handed[threadIdx.x].a, a, 16), memcpy(handed[threadIdx.x].b, b, 8);
    wait_at(AT_WARP);
    const Handed* warp = &handed[threadIdx.x & ~31];
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++)
        for (int word = 0; word < 8; word++) {
            uint32_t left = warp[4 * g + word % 4].a[i / 2 + word / 4 * 2], right = warp[4 * (2 * t + i % 2) + word % 4].b[word / 4];
            for (int j = 0; j < int(4 / sizeof(T)); j++) c[i] += number_of<T>(left, j) * number_of<T>(right, j);
        }
    wait_at(AT_WARP);
}

}  // namespace
