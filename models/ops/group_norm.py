"""Group norm, alone or followed by SiLU, and layer norm: float32 whatever the input, with statistics that are exact.

Jittor's own computes the variance as E[x²] − E[x]², which cancels where the mean is large against the spread. Here a mean is taken
first, and the variance about it. One fused kernel goes forward and one backward, for every shape, with or without SiLU, on the CPU and on
CUDA (group_norm.cuh); the plain-Jittor reference computes the same.
"""

import math

import jittor as jt

from models.ops.kernels import code, cuda_header, on_cuda

# The rows are x [B, G, C/G · S], one for each sample and group: `elementwise` where S = 1, so that a row holds one element of each
# channel and vectors run over channels; else vectors run over the S positions of a channel, which share their weight and bias.
CPU_HEADER = r"""
#include <algorithm>
#include <cmath>
#include <vector>

namespace {

// SiLU's exponential, kept below the overflow of float: the fast division of -Ofast makes 1 / inf a NaN.
inline float sigmoid(float x) { return 1 / (1 + expf(std::min(-x, 80.f))); }

// Σ f(i) for i < n: in float over blocks, so that it vectorises, and in double over those, so that it stays exact.
template <class F>
inline double sum(int64_t n, F f) {
    double total = 0;
    for (int64_t start = 0; start < n; start += 256) {
        int64_t end = std::min(start + 256, n);
        float partial = 0;
        for (int64_t i = start; i < end; i++) partial += f(i);
        total += partial;
    }
    return total;
}

// y = normalised x · weight + bias, and SiLU of that; one row. `statistics` takes its mean, 1 / std, and the
// shift that is left to take from normalised values, because a float cannot hold a large mean well enough.
template <bool silu, bool elementwise>
void forward_row(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                 float* __restrict__ y, float* statistics, int64_t channels, int64_t positions, double eps) {
    int64_t n = channels * positions;
    float mean = sum(n, [&](int64_t i) { return x[i]; }) / n;
    double error = sum(n, [&](int64_t i) { return x[i] - mean; }) / n;
    double squares = sum(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / n;
    float rstd = 1 / std::sqrt(std::max(squares - error * error, 0.) + eps);
    float shift = error * rstd;
    statistics[0] = mean, statistics[1] = rstd, statistics[2] = shift;
    int64_t outer = elementwise ? 1 : channels, inner = elementwise ? channels : positions;
    for (int64_t c = 0; c < outer; c++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t channel = elementwise ? i : c;
            float z = ((x[c * inner + i] - mean) * rstd - shift) * weight[channel] + bias[channel];
            y[c * inner + i] = silu ? z * sigmoid(z) : z;
        }
}

// dz, the derivative by the output before SiLU.
template <bool silu>
inline float before_silu(float dy, float normalized, float weight, float bias) {
    float z = normalized * weight + bias, s = sigmoid(z);
    return silu ? dy * s * (1 + z * (1 - s)) : dy;
}

// dx of one row; its dweight and dbias are added to. dx holds dz between the two passes.
template <bool silu, bool elementwise>
void backward_row(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                  const float* __restrict__ dy, const float* statistics, float* __restrict__ dx, float* __restrict__ dweight,
                  float* __restrict__ dbias, int64_t channels, int64_t positions) {
    int64_t n = channels * positions;
    float mean = statistics[0], rstd = statistics[1], shift = statistics[2];
    double mean_d = 0, mean_dx = 0;  // of weight · dz, and of weight · dz · normalised x
    if (elementwise) {
        float total_d = 0, total_dx = 0;
        for (int64_t i = 0; i < channels; i++) {
            float normalized = (x[i] - mean) * rstd - shift;
            float dz = before_silu<silu>(dy[i], normalized, weight[i], bias[i]);
            dweight[i] += dz * normalized;
            dbias[i] += dz;
            dx[i] = dz;
            total_d += dz * weight[i];
            total_dx += dz * weight[i] * normalized;
        }
        mean_d = total_d / n, mean_dx = total_dx / n;
    } else {
        for (int64_t c = 0; c < channels; c++) {
            const float *xc = x + c * positions, *dyc = dy + c * positions;
            float *dxc = dx + c * positions, w = weight[c], b = bias[c];
            double dw = 0, db = 0;
            for (int64_t start = 0; start < positions; start += 256) {
                int64_t end = std::min(start + 256, positions);
                float partial_dw = 0, partial_db = 0;
                for (int64_t i = start; i < end; i++) {
                    float normalized = (xc[i] - mean) * rstd - shift;
                    float dz = before_silu<silu>(dyc[i], normalized, w, b);
                    partial_dw += dz * normalized;
                    partial_db += dz;
                    dxc[i] = dz;
                }
                dw += partial_dw, db += partial_db;
            }
            dweight[c] += dw, dbias[c] += db;
            mean_d += w * db / n, mean_dx += w * dw / n;
        }
    }
    float a = mean_d, k = mean_dx;
    int64_t outer = elementwise ? 1 : channels, inner = elementwise ? channels : positions;
    for (int64_t c = 0; c < outer; c++)
        for (int64_t i = 0; i < inner; i++) {
            float normalized = (x[c * inner + i] - mean) * rstd - shift;
            dx[c * inner + i] = rstd * (weight[elementwise ? i : c] * dx[c * inner + i] - a - normalized * k);
        }
}

}  // namespace
"""

FORWARD = r"""
    int64_t batch = in0_shape0, channels = in0_shape1, positions = in0_shape2;
    int64_t groups = data["groups"], width = channels / groups, row = width * positions;
    double eps = data["eps"];
    bool silu = data["silu"], elementwise = positions == 1;
    auto forward = silu ? (elementwise ? forward_row<true, true> : forward_row<true, false>)
                        : (elementwise ? forward_row<false, true> : forward_row<false, false>);
    #pragma omp parallel for schedule(dynamic)
    for (int64_t r = 0; r < batch * groups; r++) {
        int64_t c = r % groups * width;
        forward(in0_p + r * row, in1_p + c, in2_p + c, out0_p + r * row, out1_p + 3 * r, width, positions, eps);
    }
"""

# A task owns the channels of one group in one slice of the batch, and goes through its samples in order; then the slices are summed in
# order. The slices depend on the batch alone: the same sums on any number of threads.
BACKWARD = r"""
    int64_t batch = in0_shape0, channels = in0_shape1, positions = in0_shape2;
    int64_t groups = data["groups"], width = channels / groups, row = width * positions;
    bool silu = data["silu"], elementwise = positions == 1;
    auto backward = silu ? (elementwise ? backward_row<true, true> : backward_row<true, false>)
                         : (elementwise ? backward_row<false, true> : backward_row<false, false>);
    int64_t slices = std::min<int64_t>(batch, 64);
    std::vector<float> partial(slices * 2 * channels, 0.f);  // [slices, 2, C]: dweight and dbias
    #pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < slices * groups; task++) {
        int64_t slice = task / groups, group = task % groups, c = group * width;
        float* dweight = partial.data() + slice * 2 * channels + c;
        for (int64_t b = batch * slice / slices; b < batch * (slice + 1) / slices; b++) {
            int64_t r = b * groups + group;
            backward(in0_p + r * row, in1_p + c, in2_p + c, in3_p + r * row, in4_p + 3 * r, out0_p + r * row,
                     dweight, dweight + channels, width, positions);
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        double dweight = 0, dbias = 0;
        for (int64_t slice = 0; slice < slices; slice++) {
            dweight += partial[slice * 2 * channels + c];
            dbias += partial[slice * 2 * channels + channels + c];
        }
        out1_p[c] = dweight, out2_p[c] = dbias;
    }
"""


CUDA_FORWARD = r"""
    int64_t batch = in0_shape0;
    int positions = in0_shape2, groups = data["groups"], width = in0_shape1 / groups;
    bool large = (int64_t)width * positions > 8192;
    launch(data["silu"] ? group_norm_forward<T, true> : group_norm_forward<T, false>, batch * groups, large ? 512 : 128, 32 * 4,
           (const T*)in0_p, (const float*)in1_p, (const float*)in2_p, (T*)out0_p, (float*)out1_p, groups, width, positions,
           (float)data["eps"]);
"""

CUDA_BACKWARD = r"""
    int64_t batch = in0_shape0;
    int channels = in0_shape1, positions = in0_shape2, groups = data["groups"], width = channels / groups, slices = out3_shape0;
    bool silu = data["silu"], large = (int64_t)width * positions > 8192;
    const T *x = (const T*)in0_p, *dy = (const T*)in3_p;
    const float *weight = (const float*)in1_p, *bias = (const float*)in2_p, *statistics = (const float*)in4_p;
    T* dx = (T*)out0_p;
    float* sums = (float*)out3_p;
    if (data["layer"]) {
        launch(silu ? layer_norm_backward<T, true> : layer_norm_backward<T, false>, batch, 128, 32 * 4, x, weight, bias, dy, statistics,
               dx, channels);
        launch(silu ? layer_norm_sums<T, true> : layer_norm_sums<T, false>, (channels + 31) / 32 * slices, 256, 2 * 256 * 4, x, weight,
               bias, dy, statistics, sums, batch, channels, slices);
    } else {
        int shared_bytes = (32 + 2 * width * ((positions + PIECE - 1) / PIECE)) * 4;
        launch(silu ? group_norm_backward<T, true> : group_norm_backward<T, false>, batch * groups, large ? 512 : 128, shared_bytes, x,
               weight, bias, dy, statistics, dx, sums, groups, width, positions);
    }
    launch(sum_slices, (channels + 127) / 128, 128, 0, (const float*)sums, (float*)out1_p, (float*)out2_p, slices, channels);
"""


class FusedGroupNorm(jt.Function):
    """The kernels, on x [B, C, S], weight [C] and bias [C]; weight and bias float32, on the CPU x too. First derivatives only, and once."""

    def execute(self, x, num_groups, weight, bias, eps, silu):
        layer = num_groups * x.shape[2] == 1  # layer norm: on CUDA it has kernels of its own for the gradient
        self._data = {"groups": float(num_groups), "eps": float(eps), "silu": float(silu), "layer": float(layer)}
        shapes, dtypes = [x.shape, (x.shape[0], num_groups, 3)], [x.dtype, "float32"]
        cuda = cuda_header("group_norm.cuh", str(x.dtype)), CUDA_FORWARD
        y, statistics = code(shapes, dtypes, [x, weight, bias], (CPU_HEADER, FORWARD), cuda, self._data)
        self._saved = x, weight, bias, statistics
        return y

    def grad(self, dy):
        (x, weight, bias, statistics), self._saved = self._saved, None  # this object may live longer than they need to
        batch, channels, _ = x.shape
        sums = (min(batch, 64) if self._data["layer"] else batch, channels, 2)  # the CUDA kernels' own
        shapes, dtypes = [x.shape, weight.shape, bias.shape, sums], [x.dtype] + ["float32"] * 3
        cuda = cuda_header("group_norm.cuh", str(x.dtype)), CUDA_BACKWARD
        inputs = [x, weight, bias, dy.cast(x.dtype), statistics]  # a product with float32 has a float32 derivative
        grads = code(shapes, dtypes, inputs, (CPU_HEADER, BACKWARD), cuda, self._data)
        return grads[0], None, grads[1], grads[2], None, None


def group_norm_reference(x: jt.Var, num_groups: int, weight: jt.Var, bias: jt.Var, eps: float, silu: bool) -> jt.Var:
    """Group norm of x [B, C, S], weight [C] and bias [C], all float32, in plain Jittor."""
    rows = x.reshape(x.shape[0] * num_groups, -1)
    rows = rows - rows.mean(dim=1, keepdims=True)
    rows = rows - rows.mean(dim=1, keepdims=True).stop_grad()  # what rounding left of a large mean; zero but for that
    rows = rows / jt.sqrt((rows * rows).mean(dim=1, keepdims=True) + eps)
    y = rows.reshape(x.shape) * weight.reshape(1, -1, 1) + bias.reshape(1, -1, 1)
    return y * jt.sigmoid(y) if silu else y


def group_norm(x: jt.Var, num_groups: int, weight: jt.Var, bias: jt.Var, eps: float = 1e-5, silu: bool = False) -> jt.Var:
    """Group normalisation (Wu & He 2018) of x [B, C, ...], then SiLU if asked for; weight and bias [C].

    Each sample's C / num_groups channels of a group are brought to mean 0 and variance 1 (`eps` is added to the variance), then scaled
    and shifted by channel. Computed in float32, returned in x's dtype. Raises ValueError if num_groups does not divide C.

    The gradient cannot itself be differentiated; that of `group_norm_reference` can.
    """
    batch, channels, *spatial = x.shape
    if channels % num_groups:
        raise ValueError(f"group_norm: {channels} channels do not divide into {num_groups} groups")
    rows = x.cast(x.dtype if on_cuda() else "float32").reshape(batch, channels, math.prod(spatial))
    y = FusedGroupNorm.apply(rows, num_groups, weight.float32(), bias.float32(), eps, silu)
    return y.reshape(x.shape).cast(x.dtype)


def layer_norm(x: jt.Var, weight: jt.Var, bias: jt.Var, eps: float = 1e-5) -> jt.Var:
    """Layer normalisation (Ba et al. 2016) of x [..., C] over its last dimension; weight and bias [C].

    It is group norm with one group and no positions. Computed in float32, returned in x's dtype.
    """
    return group_norm(x.reshape(-1, x.shape[-1]), 1, weight, bias, eps).reshape(x.shape)
