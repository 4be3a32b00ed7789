"""Depthwise convolution of channels-last activations, as transformers have them: each channel by a kernel of its own, K x K.

Jittor writes a grouped convolution out as a sum over seven axes. Here one kernel goes forward, one back to the activations and one to the
weights, on the CPU and on CUDA (depthwise_conv.cuh), with vectors over channels; the plain-Jittor reference computes the same.
"""

import math

import jittor as jt

from models.ops.kernels import code, cuda_header
from models.ops.transpose import swap_last_axes

# The zeros around the picture are never read: of the K x K taps only those are added whose row and column exist.
CPU_HEADER = r"""
#include <algorithm>
#include <vector>

namespace {

// What one row or column of the result is summed up from: the taps `tap`, `tap` + `tap_step`, ... with the places `place`,
// `place` + `place_step`, ... of the source. A convolution takes all taps; its gradient takes those that had met the place at this stride.
struct Reach {
    int64_t tap, tap_step, place, place_step;
    Reach(int64_t i, int64_t stride, int64_t before, bool gradient)
        : tap(gradient ? (i + before) % stride : 0), tap_step(gradient ? stride : 1),
          place(gradient ? (i + before) / stride : i * stride - before), place_step(gradient ? -1 : 1) {}
    void next() { tap += tap_step, place += place_step; }
};

// The source of one result, [height, width, channels], the taps [size · size, channels], and where they lie on it.
struct Convolution {
    const float *source, *taps;
    int64_t height, width, channels, size, stride, before;
    bool gradient;

    // result[k] += Σ over the taps that reach place (i, j), for channels c + k, k < lanes: few enough to be summed in registers.
    template <int lanes>
    inline void add(float* __restrict__ result, int64_t i, int64_t j, int64_t c) const {
        float sums[lanes];
        for (int k = 0; k < lanes; k++) sums[k] = result[k];
        for (Reach down(i, stride, before, gradient); down.tap < size; down.next()) {
            if (down.place < 0 || down.place >= height) continue;
            for (Reach across(j, stride, before, gradient); across.tap < size; across.next()) {
                if (across.place < 0 || across.place >= width) continue;
                const float* __restrict__ in = source + (down.place * width + across.place) * channels + c;
                const float* __restrict__ tap = taps + (down.tap * size + across.tap) * channels + c;
                for (int k = 0; k < lanes; k++) sums[k] += in[k] * tap[k];
            }
        }
        for (int k = 0; k < lanes; k++) result[k] = sums[k];
    }

    // Row i of the result, [columns, channels].
    void add_row(float* result, int64_t i, int64_t columns) const {
        for (int64_t j = 0; j < columns; j++, result += channels) {
            int64_t c = 0;
            for (; c + 64 <= channels; c += 64) add<64>(result + c, i, j, c);
            for (; c + 16 <= channels; c += 16) add<16>(result + c, i, j, c);
            for (; c < channels; c++) add<1>(result + c, i, j, c);
        }
    }
};

}  // namespace
"""

FORWARD = r"""
    int64_t size = data["size"], stride = data["stride"], before = data["before"];
    int64_t height = in0_shape1, width = in0_shape2, channels = in0_shape3, rows = out0_shape1, columns = out0_shape2;
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < out0_shape0 * rows; task++) {
        Convolution picture{in0_p + task / rows * height * width * channels, in1_p, height, width, channels, size, stride, before, false};
        float* y = out0_p + task * columns * channels;
        for (int64_t j = 0; j < columns; j++) std::copy(in2_p, in2_p + channels, y + j * channels);
        picture.add_row(y, task % rows, columns);
    }
"""

TO_ACTIVATIONS = r"""
    int64_t size = data["size"], stride = data["stride"], before = data["before"];
    int64_t height = in0_shape1, width = in0_shape2, channels = in0_shape3, rows = out0_shape1, columns = out0_shape2;
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < out0_shape0 * rows; task++) {
        Convolution picture{in0_p + task / rows * height * width * channels, in1_p, height, width, channels, size, stride, before, true};
        float* dx = out0_p + task * columns * channels;
        std::fill(dx, dx + columns * channels, 0.f);
        picture.add_row(dx, task % rows, columns);
    }
"""

# A task owns one slice of the batch; the slices, which depend on the batch alone, are summed in order: the same sums on any number of
# threads.
TO_WEIGHTS = r"""
    int64_t size = data["size"], stride = data["stride"], before = data["before"];
    int64_t batch = in0_shape0, height = in0_shape1, width = in0_shape2, channels = in0_shape3, taps = size * size;
    int64_t slices = std::min<int64_t>(batch, 64);
    std::vector<float> partial(slices * (taps + 1) * channels, 0.f);  // [slices, size · size + 1, C]: the taps and the bias
    #pragma omp parallel for schedule(dynamic)
    for (int64_t slice = 0; slice < slices; slice++) {
        float* sums = partial.data() + slice * (taps + 1) * channels;
        for (int64_t b = batch * slice / slices; b < batch * (slice + 1) / slices; b++)
            for (int64_t i = 0; i < in1_shape1; i++)
                for (int64_t j = 0; j < in1_shape2; j++) {
                    const float* dy = in1_p + ((b * in1_shape1 + i) * in1_shape2 + j) * channels;
                    for (int64_t c = 0; c < channels; c++) sums[taps * channels + c] += dy[c];
                    for (int64_t k = 0; k < taps; k++) {
                        int64_t row = i * stride - before + k / size, column = j * stride - before + k % size;
                        if (row < 0 || row >= height || column < 0 || column >= width) continue;
                        const float* x = in0_p + ((b * height + row) * width + column) * channels;
                        float* sum = sums + k * channels;
                        for (int64_t c = 0; c < channels; c++) sum[c] += dy[c] * x[c];
                    }
                }
    }
    for (int64_t i = 0; i < (taps + 1) * channels; i++) {
        double total = 0;
        for (int64_t slice = 0; slice < slices; slice++) total += partial[slice * (taps + 1) * channels + i];
        (i < taps * channels ? out0_p[i] : out1_p[i - taps * channels]) = total;
    }
"""


CUDA_FORWARD = r"""
    int64_t count = out0->num;
    launch(depthwise_conv<false>, (count + 255) / 256, 256, 0, (const float*)in0_p, (const float*)in1_p, (const float*)in2_p,
           (float*)out0_p, count, (int)in0_shape1, (int)in0_shape2, (int)out0_shape1, (int)out0_shape2, (int)out0_shape3,
           (int)data["size"], (int)data["stride"], (int)data["before"]);
"""

CUDA_TO_ACTIVATIONS = r"""
    int64_t count = out0->num;
    launch(depthwise_conv<true>, (count + 255) / 256, 256, 0, (const float*)in0_p, (const float*)in1_p, (const float*)nullptr,
           (float*)out0_p, count, (int)in0_shape1, (int)in0_shape2, (int)out0_shape1, (int)out0_shape2, (int)out0_shape3,
           (int)data["size"], (int)data["stride"], (int)data["before"]);
"""

CUDA_TO_WEIGHTS = r"""
    int channels = in0_shape3, slices = out2_shape0, sums = SIZE * SIZE + 1;
    launch(depthwise_conv_sums<SIZE>, (channels + 31) / 32 * slices, 256, sums * 256 * 4, (const float*)in0_p, (const float*)in1_p,
           (float*)out2_p, in1->num / channels, (int)in0_shape1, (int)in0_shape2, (int)in1_shape1, (int)in1_shape2, channels,
           (int)data["stride"], (int)data["before"], slices);
    launch(sum_slices, (sums * channels + 127) / 128, 128, 0, (const float*)out2_p, (float*)out0_p, (float*)out1_p, slices, channels,
           sums);
"""


class FusedDepthwiseConv(jt.Function):
    """The kernels, on x [B, H, W, C], taps [K · K, C] and bias [C], all float32; see `depthwise_conv`. First derivatives only, and once.

    The gradients of activations and of weights are apart, so that only those are computed that are asked for.
    """

    def __init__(self, stride: int, padding: tuple[int, int]):
        self._stride, self._padding = stride, padding

    def execute(self, x, taps, bias):
        self._saved = x, taps, bias
        b, h, w, c = x.shape
        size = math.isqrt(taps.shape[0])
        self._data = {"size": size, "stride": self._stride, "before": self._padding[0]}
        shape = [b, *((length + sum(self._padding) - size) // self._stride + 1 for length in (h, w)), c]
        return self._code([shape], [x, taps, bias], FORWARD, CUDA_FORWARD)[0]

    def grad(self, dy):
        (x, taps, bias), self._saved = self._saved, None  # this object may live longer than they need to
        (dx,) = self._code([x.shape], [dy, taps], TO_ACTIVATIONS, CUDA_TO_ACTIVATIONS)
        sums = (64, taps.shape[0] + 1, x.shape[3])  # the CUDA kernels' own
        dtaps, dbias, _ = self._code([taps.shape, bias.shape, sums], [x, dy], TO_WEIGHTS, CUDA_TO_WEIGHTS)
        return dx, dtaps, dbias

    def _code(self, shapes: list, inputs: list[jt.Var], cpu: str, cuda: str) -> list[jt.Var]:
        header = cuda_header("depthwise_conv.cuh", "float32", SIZE=self._data["size"])
        return code(shapes, ["float32"] * len(shapes), inputs, (CPU_HEADER, cpu), (header, cuda), self._data)


def depthwise_conv_reference(x: jt.Var, taps: jt.Var, bias: jt.Var, stride: int, padding: tuple[int, int]) -> jt.Var:
    """The same in plain Jittor."""
    b, h, w, c = x.shape
    size, (before, after) = math.isqrt(taps.shape[0]), padding
    padded = jt.nn.pad(x.reshape(b, h, w * c), [before * c, after * c, before, after]).reshape(b, h + before + after, w + before + after, c)
    rows, columns = (length + before + after - size + 1 for length in (h, w))
    parts = (padded[:, r : r + rows : stride, s : s + columns : stride] * taps[size * r + s] for r in range(size) for s in range(size))
    return sum(parts) + bias


def depthwise_conv(x: jt.Var, weight: jt.Var, bias: jt.Var, stride: int, padding: tuple[int, int]) -> jt.Var:
    """Each channel of x [B, H, W, C] convolved with its own kernel; weight [C, 1, K, K], bias [C].

    padding: rows and columns of zeros before (above, to the left) and after. Computed in float32, returned in x's dtype. The gradient
    cannot itself be differentiated.
    """
    taps = swap_last_axes(weight.float32().reshape(weight.shape[0], -1))
    return FusedDepthwiseConv(stride, padding)(x.float32(), taps, bias.float32()).cast(x.dtype)
