// Runs CUDA kernels on the CPU, to test their arithmetic where there is no GPU: takes the place of models/ops/device.cuh.
//
// The threads of a block are coroutines, resumed one after the other, and a synchronisation hands over to the next. So it waits for all
// threads of the block as long as all meet the same synchronisations in the same order, as they must within a warp anyway. Slow, and blind
// to races, to alignment and to what fits a GPU.

#pragma GCC optimize("no-strict-aliasing")  // CUDA code reads words as the numbers in them

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__ static
#define __device__
#define __launch_bounds__(threads)

namespace {

using std::min;

struct uint4 { uint32_t x, y, z, w; };
struct Index { int x; };
Index threadIdx, blockIdx, gridDim, blockDim;

struct Coroutine {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done;
};

ucontext_t scheduler;
std::vector<Coroutine> threads;
std::function<void()> body;
std::vector<uint4> shared_words;

void run_thread() {
    body();
    threads[threadIdx.x].done = true;
}

void __syncthreads() { swapcontext(&threads[threadIdx.x].context, &scheduler); }

uint32_t* shared_memory() { return (uint32_t*)shared_words.data(); }

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int count, int shared_bytes, Arguments... arguments) {
    const size_t STACK = 1 << 18;
    body = [=] { kernel((Parameters)arguments...); };
    shared_words.resize(shared_bytes / 16 + 1);
    threads.resize(count);
    blockDim.x = count, gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (Coroutine& thread : threads) {
            if (!thread.stack) thread.stack.reset(new char[STACK]);
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = STACK;
            thread.context.uc_link = &scheduler;
            thread.done = false;
            makecontext(&thread.context, run_thread, 0);
        }
        for (bool running = true; running;) {
            running = false;
            for (int i = 0; i < count; i++) {
                if (threads[i].done) continue;
                threadIdx.x = i, running = true;
                swapcontext(&scheduler, &threads[i].context);
            }
        }
    }
    threads.clear();
}

// What each thread of the block hands to the others of its warp; read between two synchronisations.
struct Handed {
    float number;
    uint32_t a[4], b[2];
};
std::vector<Handed> handed(1024);

float across_lanes(float x, int lane_bits) {
    handed[threadIdx.x].number = x;
    __syncthreads();
    float other = handed[threadIdx.x ^ lane_bits].number;
    __syncthreads();
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
    __syncthreads();
    const Handed* warp = &handed[threadIdx.x & ~31];
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; i++)
        for (int word = 0; word < 8; word++) {
            uint32_t left = warp[4 * g + word % 4].a[i / 2 + word / 4 * 2], right = warp[4 * (2 * t + i % 2) + word % 4].b[word / 4];
            for (int j = 0; j < int(4 / sizeof(T)); j++) c[i] += number_of<T>(left, j) * number_of<T>(right, j);
        }
    __syncthreads();
}

}  // namespace
