// Jittor describes a convolution of 16-bit numbers as adding up in 16 bits, keeps its gradient off the tensor cores, and lets cuDNN round
// floats to 16 bits where it asks for them. Here sums are float, and tensor cores take numbers as they are (floats, as in PyTorch, with
// the ten bits of TF32). Of recurrent networks, cuDNN 9 lacks what Jittor calls.
#pragma once
#include "original/cudnn.h"
#ifdef __cplusplus

namespace shanshui {

inline cudnnStatus_t set_convolution(cudnnConvolutionDescriptor_t descriptor, int dimensions, const int* padding, const int* stride,
                                     const int* dilation, cudnnConvolutionMode_t mode, cudnnDataType_t sums) {
    bool halves = sums == CUDNN_DATA_HALF || sums == CUDNN_DATA_BFLOAT16;
    if (halves) sums = CUDNN_DATA_FLOAT;
    cudnnStatus_t status = cudnnSetConvolutionNdDescriptor(descriptor, dimensions, padding, stride, dilation, mode, sums);
    return halves && status == CUDNN_STATUS_SUCCESS ? cudnnSetConvolutionMathType(descriptor, CUDNN_TENSOR_OP_MATH) : status;
}

inline cudnnStatus_t set_math(cudnnConvolutionDescriptor_t descriptor, cudnnMathType_t type) {
    return cudnnSetConvolutionMathType(descriptor, type == CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION ? CUDNN_TENSOR_OP_MATH : type);
}

}  // namespace shanshui

#define cudnnSetConvolutionNdDescriptor shanshui::set_convolution
#define cudnnSetConvolutionMathType shanshui::set_math

#if CUDNN_MAJOR >= 9
#define SHANSHUI_MISSING(function) \
    template <class... Arguments>  \
    cudnnStatus_t function(Arguments&&...) { return CUDNN_STATUS_NOT_SUPPORTED; }
SHANSHUI_MISSING(cudnnSetRNNDescriptor_v6)
SHANSHUI_MISSING(cudnnGetRNNParamsSize)
SHANSHUI_MISSING(cudnnGetRNNWorkspaceSize)
SHANSHUI_MISSING(cudnnGetRNNTrainingReserveSize)
SHANSHUI_MISSING(cudnnGetRNNLinLayerMatrixParams)
SHANSHUI_MISSING(cudnnGetRNNLinLayerBiasParams)
SHANSHUI_MISSING(cudnnRNNForwardTraining)
SHANSHUI_MISSING(cudnnRNNForwardInference)
SHANSHUI_MISSING(cudnnRNNBackwardData)
SHANSHUI_MISSING(cudnnRNNBackwardWeights)
#undef SHANSHUI_MISSING
#endif
#endif
