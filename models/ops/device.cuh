// What the CUDA kernels share: the types they take, launching, and products of small matrices by tensor cores.

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdexcept>
#include <string>

namespace {

typedef __half Half;
typedef __nv_bfloat16 BFloat16;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Half x) { return __half2float(x); }
__device__ inline float to_float(BFloat16 x) { return __bfloat162float(x); }
__device__ inline void store(float* to, float x) { *to = x; }
__device__ inline void store(Half* to, float x) { *to = __float2half_rn(x); }
__device__ inline void store(BFloat16* to, float x) { *to = __float2bfloat16_rn(x); }

// The block's dynamic shared memory, and its size in bytes as an argument of the launch.
__device__ inline uint32_t* shared_memory() {
    extern __shared__ uint4 memory[];
    return (uint32_t*)memory;
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes, Arguments... arguments) {
    // without this a block gets 48 KiB at most
    cudaFuncSetAttribute((const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    kernel<<<blocks, threads, shared_bytes>>>(arguments...);
    cudaError_t error = cudaGetLastError();  // Jittor does not ask, and would go on with whatever is in the outputs
    if (error != cudaSuccess) throw std::runtime_error(std::string("a CUDA kernel was not started: ") + cudaGetErrorString(error));
}

// The x of the lane whose number differs in these bits.
__device__ inline float across_lanes(float x, int lane_bits) { return __shfl_xor_sync(0xffffffff, x, lane_bits); }

// A warp multiplies a [16, 8 words] by b [8 words, 8], where a word of 32 bits holds two numbers of 16 bits or one float. Lane 4·g + t holds
//     of a    words t and t + 4 of rows g and g + 8: a[0] (g, t), a[1] (g + 8, t), a[2] (g, t + 4), a[3] (g + 8, t + 4),
//     of b    words t and t + 4 of column g,
//     of c    c[0], c[1] (g, 2t and 2t + 1), c[2], c[3] (g + 8, the same).
// (NVIDIA, PTX ISA, "Matrix fragments for mma.m16n8k16" and "mma.m16n8k8"; compute capability 8.0 and later.) Here: c += a · b.
__device__ inline void multiply(Half, float* c, const uint32_t* a, const uint32_t* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply(BFloat16, float* c, const uint32_t* a, const uint32_t* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_tf32(float* c, const uint32_t* a, const uint32_t* b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The ten bits of mantissa that tensor cores take of a float, and what is left, of which they take ten more.
template <int N>
__device__ inline void split(const uint32_t* x, uint32_t (&high)[N], uint32_t (&low)[N]) {
    for (int i = 0; i < N; i++) {
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high[i]) : "f"(__uint_as_float(x[i])));
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(low[i]) : "f"(__uint_as_float(x[i]) - __uint_as_float(high[i])));
    }
}

// Three products keep a float's precision but for its last bits (Markidis et al. 2018, "NVIDIA tensor core programmability").
__device__ inline void multiply(float, float* c, const uint32_t* a, const uint32_t* b) {
    uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
    split(a, a_high, a_low);
    split(b, b_high, b_low);
    multiply_tf32(c, a_low, b_high);
    multiply_tf32(c, a_high, b_low);
    multiply_tf32(c, a_high, b_high);
}

}  // namespace
