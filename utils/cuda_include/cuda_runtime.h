// CUDA 13 took two fields from cudaDeviceProp that Jittor names, in functions that nothing calls: any other number will do for them.
#pragma once
#include "original/cuda_runtime.h"
#if CUDART_VERSION >= 13000
#define computeMode integrated
#define clockRate multiProcessorCount
#endif
