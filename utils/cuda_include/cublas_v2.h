// Where Jittor may use tensor cores it has products of 16-bit numbers added up in 16 bits, which loses digits, and which bfloat16 does not
// have. Here they are added up in float.
#pragma once
#include "original/cublas_v2.h"
#if defined(__cplusplus) && CUDART_VERSION >= 11000
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace shanshui {

struct FloatFactors {
    float alpha, beta;

    static float number(const void* factor, cudaDataType type) {
        return type == CUDA_R_16BF ? __bfloat162float(*(const __nv_bfloat16*)factor) : __half2float(*(const __half*)factor);
    }

    // Where 16-bit sums are asked for, makes float ones of the request.
    FloatFactors(const void*& a, const void*& b, cudaDataType type, cublasComputeType_t& compute) {
        if (compute != CUBLAS_COMPUTE_16F) return;
        alpha = number(a, type), beta = number(b, type);
        a = &alpha, b = &beta, compute = CUBLAS_COMPUTE_32F;
    }
};

inline cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k, const void* alpha,
                           const void* a, cudaDataType type_a, int lda, const void* b, cudaDataType type_b, int ldb, const void* beta,
                           void* c, cudaDataType type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    FloatFactors factors(alpha, beta, type_a, compute);
    return cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c, ldc, compute, algorithm);
}

inline cublasStatus_t batched_gemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                                   const void* alpha, const void* a, cudaDataType type_a, int lda, long long stride_a, const void* b,
                                   cudaDataType type_b, int ldb, long long stride_b, const void* beta, void* c, cudaDataType type_c,
                                   int ldc, long long stride_c, int count, cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    FloatFactors factors(alpha, beta, type_a, compute);
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, stride_a, b, type_b, ldb, stride_b, beta, c,
                                      type_c, ldc, stride_c, count, compute, algorithm);
}

}  // namespace shanshui

#define cublasGemmEx shanshui::gemm
#define cublasGemmStridedBatchedEx shanshui::batched_gemm
#endif
