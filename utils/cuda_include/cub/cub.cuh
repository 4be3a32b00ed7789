// What CUB 3, of CUDA 13, no longer has, and Jittor's argsort and argreduce use.
#pragma once
#include "original/cub/cub.cuh"
#if CUB_VERSION >= 300000
#include <cstddef>
#include <cuda/ptx>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

CUB_NAMESPACE_BEGIN

struct Max {
    template <class A, class B>
    __host__ __device__ auto operator()(const A& a, const B& b) const { return a < b ? b : a; }
};
struct Min {
    template <class A, class B>
    __host__ __device__ auto operator()(const A& a, const B& b) const { return b < a ? b : a; }
};
struct Sum {
    template <class A, class B>
    __host__ __device__ auto operator()(const A& a, const B& b) const { return a + b; }
};

template <class Value, class Offset = std::ptrdiff_t>
using CountingInputIterator = THRUST_NS_QUALIFIER::counting_iterator<Value>;

template <class Value, class Function, class Iterator, class Offset = std::ptrdiff_t>
struct TransformInputIterator : THRUST_NS_QUALIFIER::transform_iterator<Function, Iterator> {
    __host__ __device__ TransformInputIterator(Iterator from, Function function)
        : THRUST_NS_QUALIFIER::transform_iterator<Function, Iterator>(from, function) {}
};

__device__ inline unsigned LaneId() { return ::cuda::ptx::get_sreg_laneid(); }

CUB_NAMESPACE_END
#endif
