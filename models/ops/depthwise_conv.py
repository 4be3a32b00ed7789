"""Depthwise 3x3 convolution of channels-last activations, as transformers have them.

Jittor writes a grouped convolution out as a sum over seven axes. Here one kernel goes forward and one backward, on the CPU and on CUDA
(depthwise_conv.cuh), with vectors over channels; the plain-Jittor reference computes the same.
"""

import jittor as jt

from models.ops.kernels import code, cuda_header
from models.ops.transpose import swap_last_axes

# The zeros around the picture are never read: a tap (r, s) is added where its row and column exist.
CPU_HEADER = r"""
#include <algorithm>
#include <vector>

namespace {

// y[i, j, :] += Σ x[i + r - 1, j + s - 1, :] · taps[r, s, :] for one picture [H, W, C]; taps are [9, C].
inline void add_taps(const float* __restrict__ x, const float* __restrict__ taps, float* __restrict__ y, int64_t row, int64_t height,
                     int64_t width, int64_t channels) {
    for (int64_t r = 0; r < 3; r++) {
        int64_t from = row + r - 1;
        if (from < 0 || from >= height) continue;
        for (int64_t j = 0; j < width; j++)
            for (int64_t s = 0; s < 3; s++) {
                int64_t column = j + s - 1;
                if (column < 0 || column >= width) continue;
                const float *in = x + (from * width + column) * channels, *tap = taps + (3 * r + s) * channels;
                float* out = y + j * channels;
                for (int64_t c = 0; c < channels; c++) out[c] += in[c] * tap[c];
            }
    }
}

}  // namespace
"""

FORWARD = r"""
    int64_t batch = in0_shape0, height = in0_shape1, width = in0_shape2, channels = in0_shape3;
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * height; task++) {
        int64_t picture = task / height, row = task % height;
        float* y = out0_p + task * width * channels;
        for (int64_t j = 0; j < width; j++) std::copy(in2_p, in2_p + channels, y + j * channels);
        add_taps(in0_p + picture * height * width * channels, in1_p, y, row, height, width, channels);
    }
"""

# dx is the same convolution of dy with the taps turned round. A task owns one slice of the batch for dtaps and dbias; the slices, which
# depend on the batch alone, are summed in order: the same sums on any number of threads.
BACKWARD = r"""
    int64_t batch = in0_shape0, height = in0_shape1, width = in0_shape2, channels = in0_shape3;
    int64_t slices = std::min<int64_t>(batch, 64);
    std::vector<float> turned(9 * channels), partial(slices * 10 * channels, 0.f);  // [slices, 10, C]: nine taps and the bias
    for (int64_t k = 0; k < 9; k++) std::copy(in1_p + (8 - k) * channels, in1_p + (9 - k) * channels, turned.data() + k * channels);
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * height; task++) {
        int64_t picture = task / height, row = task % height;
        float* dx = out0_p + task * width * channels;
        std::fill(dx, dx + width * channels, 0.f);
        add_taps(in2_p + picture * height * width * channels, turned.data(), dx, row, height, width, channels);
    }
    #pragma omp parallel for schedule(dynamic)
    for (int64_t slice = 0; slice < slices; slice++) {
        float* sums = partial.data() + slice * 10 * channels;
        for (int64_t b = batch * slice / slices; b < batch * (slice + 1) / slices; b++)
            for (int64_t i = 0; i < height; i++)
                for (int64_t j = 0; j < width; j++) {
                    const float* dy = in2_p + ((b * height + i) * width + j) * channels;
                    for (int64_t c = 0; c < channels; c++) sums[9 * channels + c] += dy[c];
                    for (int64_t k = 0; k < 9; k++) {
                        int64_t row = i + k / 3 - 1, column = j + k % 3 - 1;
                        if (row < 0 || row >= height || column < 0 || column >= width) continue;
                        const float* x = in0_p + ((b * height + row) * width + column) * channels;
                        float* sum = sums + k * channels;
                        for (int64_t c = 0; c < channels; c++) sum[c] += dy[c] * x[c];
                    }
                }
    }
    for (int64_t i = 0; i < 10 * channels; i++) {
        double total = 0;
        for (int64_t slice = 0; slice < slices; slice++) total += partial[slice * 10 * channels + i];
        (i < 9 * channels ? out1_p[i] : out2_p[i - 9 * channels]) = total;
    }
"""


CUDA_FORWARD = r"""
    int64_t count = in0->num;
    launch(depthwise_conv, (count + 255) / 256, 256, 0, (const float*)in0_p, (const float*)in1_p, (const float*)in2_p, (float*)out0_p,
           count, (int)in0_shape1, (int)in0_shape2, (int)in0_shape3, false);
"""

CUDA_BACKWARD = r"""
    int64_t count = in0->num;
    int height = in0_shape1, width = in0_shape2, channels = in0_shape3, slices = out3_shape0;
    const float *x = (const float*)in0_p, *dy = (const float*)in2_p;
    float* sums = (float*)out3_p;
    launch(depthwise_conv, (count + 255) / 256, 256, 0, dy, (const float*)in1_p, (const float*)nullptr, (float*)out0_p, count, height,
           width, channels, true);
    launch(depthwise_conv_sums, (channels + 31) / 32 * slices, 256, 10 * 256 * 4, x, dy, sums, count / channels, height, width, channels,
           slices);
    launch(sum_slices, (10 * channels + 127) / 128, 128, 0, (const float*)sums, (float*)out1_p, (float*)out2_p, slices, channels);
"""


class FusedDepthwiseConv(jt.Function):
    """The kernels, on x [B, H, W, C], taps [9, C] and bias [C], all float32. First derivatives only, and once."""

    def execute(self, x, taps, bias):
        self._saved = x, taps, bias
        cuda = cuda_header("depthwise_conv.cuh", "float32"), CUDA_FORWARD
        return code([x.shape], ["float32"], [x, taps, bias], (CPU_HEADER, FORWARD), cuda)[0]

    def grad(self, dy):
        (x, taps, bias), self._saved = self._saved, None  # this object may live longer than they need to
        shapes = [x.shape, taps.shape, bias.shape, (64, 10, x.shape[3])]  # the last is the CUDA kernels' own
        cuda = cuda_header("depthwise_conv.cuh", "float32"), CUDA_BACKWARD
        return code(shapes, ["float32"] * 4, [x, taps, dy], (CPU_HEADER, BACKWARD), cuda)[:3]


def depthwise_conv_reference(x: jt.Var, taps: jt.Var, bias: jt.Var) -> jt.Var:
    """The same in plain Jittor."""
    b, h, w, c = x.shape
    padded = jt.nn.pad(x.reshape(b, h, w * c), [c, c, 1, 1]).reshape(b, h + 2, w + 2, c)
    return sum(padded[:, r : r + h, s : s + w] * taps[3 * r + s] for r in range(3) for s in range(3)) + bias


def depthwise_conv3x3(x: jt.Var, weight: jt.Var, bias: jt.Var) -> jt.Var:
    """Each channel of x [B, H, W, C] convolved with its own 3x3 kernel, zeros around the picture; weight [C, 1, 3, 3], bias [C].

    Computed in float32, returned in x's dtype. The gradient cannot itself be differentiated.
    """
    taps = swap_last_axes(weight.float32().reshape(-1, 9))
    return FusedDepthwiseConv.apply(x.float32(), taps, bias.float32()).cast(x.dtype)
