"""One-hot maps of masks, and what is made of them without writing them down: they are 116 times as large as the mask.

A convolution of a one-hot map only adds up weights, one a tap, which the value of the mask chooses: the CPU does just that here. CUDA
convolves fast enough that the maps are made, and made again for the gradient.
"""

import jittor as jt
import numpy as np
from jittor import nn

from models.ops.kernels import code, on_cuda

CPU_HEADER = r"""
#include <algorithm>
#include <vector>

namespace {

// For every tap of a k x k convolution that reaches a place of the result: meet(tap, class there). Values that are no class are left out.
template <class Meet>
inline void taps(const uint8_t* mask, int64_t height, int64_t width, int64_t classes, int64_t k, int64_t top, int64_t left, Meet meet) {
    for (int64_t r = 0; r < k; r++) {
        int64_t row = top + r;
        if (row < 0 || row >= height) continue;
        for (int64_t s = 0; s < k; s++) {
            int64_t column = left + s;
            if (column < 0 || column >= width) continue;
            int64_t label = mask[row * width + column];
            if (label < classes) meet(r * k + s, label);
        }
    }
}

}  // namespace
"""

# in0: mask [B, H, W]; in1: table [k · k, classes, C]; in2: bias [C] → out0 [B, h, w, C]
FORWARD = r"""
    int64_t k = data["size"], stride = data["stride"], padding = data["padding"];
    int64_t height = in0_shape1, width = in0_shape2, classes = in1_shape1, channels = in1_shape2, rows = out0_shape1, columns = out0_shape2;
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < out0_shape0 * rows; task++) {
        const uint8_t* mask = in0_p + task / rows * height * width;
        float* y = out0_p + task * columns * channels;
        for (int64_t j = 0; j < columns; j++, y += channels) {
            std::copy(in2_p, in2_p + channels, y);
            taps(mask, height, width, classes, k, task % rows * stride - padding, j * stride - padding, [&](int64_t tap, int64_t label) {
                const float* __restrict__ weight = in1_p + (tap * classes + label) * channels;
                for (int64_t c = 0; c < channels; c++) y[c] += weight[c];
            });
        }
    }
"""

# in0: mask; in1: dy [B, h, w, C] → out0: dtable. A task owns a slice of the batch; the slices, which depend on the batch alone, are summed
# in order: the same sums on any number of threads.
TO_TABLE = r"""
    int64_t k = data["size"], stride = data["stride"], padding = data["padding"];
    int64_t batch = in0_shape0, height = in0_shape1, width = in0_shape2, classes = out0_shape1, channels = out0_shape2;
    int64_t slices = std::min<int64_t>(batch, 16), rows = in1_shape1, columns = in1_shape2, size = out0->num;
    std::vector<float> partial(slices * size, 0.f);
    #pragma omp parallel for schedule(dynamic)
    for (int64_t slice = 0; slice < slices; slice++) {
        float* sums = partial.data() + slice * size;
        for (int64_t b = batch * slice / slices; b < batch * (slice + 1) / slices; b++)
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < columns; j++) {
                    const float* __restrict__ dy = in1_p + ((b * rows + i) * columns + j) * channels;
                    taps(in0_p + b * height * width, height, width, classes, k, i * stride - padding, j * stride - padding,
                         [&](int64_t tap, int64_t label) {
                             float* __restrict__ sum = sums + (tap * classes + label) * channels;
                             for (int64_t c = 0; c < channels; c++) sum[c] += dy[c];
                         });
                }
    }
    for (int64_t i = 0; i < size; i++) {
        double total = 0;
        for (int64_t slice = 0; slice < slices; slice++) total += partial[slice * size + i];
        out0_p[i] = total;
    }
"""

# in0: mask [B, H, W] → out0: shares [B, classes, H/cell, W/cell]
SHARES = r"""
    int64_t cell = data["cell"], height = in0_shape1, width = in0_shape2, classes = out0_shape1, rows = out0_shape2, columns = out0_shape3;
    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < out0_shape0; b++) {
        float* shares = out0_p + b * classes * rows * columns;
        std::fill(shares, shares + classes * rows * columns, 0.f);
        for (int64_t i = 0; i < rows * cell; i++)
            for (int64_t j = 0; j < columns * cell; j++) {
                int64_t label = in0_p[(b * height + i) * width + j];
                if (label < classes) shares[(label * rows + i / cell) * columns + j / cell] += 1;
            }
        for (int64_t i = 0; i < classes * rows * columns; i++) shares[i] /= cell * cell;
    }
"""


def one_hot(mask: jt.Var, num_classes: int) -> jt.Var:
    """uint8 [B, H, W] → float32 [B, num_classes, H, W]; nothing where the mask's value is no class."""
    classes = jt.array(np.arange(num_classes, dtype=np.uint8)).reshape(1, num_classes, 1, 1)
    return (mask.unsqueeze(1) == classes).float32()


def class_shares(mask: jt.Var, num_classes: int, cell: int) -> jt.Var:
    """The share of every class in each cell of `cell` pixels a side: uint8 [B, H, W] → float32 [B, num_classes, H/cell, W/cell]."""
    b, h, w = mask.shape
    if on_cuda():
        return one_hot(mask, num_classes).reshape(b, num_classes, h // cell, cell, w // cell, cell).mean(dims=(3, 5))
    shape = [b, num_classes, h // cell, w // cell]
    return code([shape], ["float32"], [mask], (CPU_HEADER, SHARES), ("", ""), {"cell": cell})[0].stop_grad()


class OneHotConv(jt.Function):
    """On a mask [B, H, W], a table of the weights [K · K, classes, C] and a bias [C]. First derivatives only, and once."""

    def __init__(self, stride: int, padding: int):
        self._stride, self._padding = stride, padding

    def execute(self, mask, table, bias):
        b, h, w = mask.shape
        size = round(table.shape[0] ** 0.5)
        self._saved, self._shape = mask, table.shape
        self._data = {"size": size, "stride": self._stride, "padding": self._padding}
        rows, columns = ((length + 2 * self._padding - size) // self._stride + 1 for length in (h, w))
        return self._code([b, rows, columns, table.shape[2]], [mask, table, bias], FORWARD)

    def grad(self, dy):
        mask, self._saved = self._saved, None  # this object may live longer than it is needed
        return None, self._code(self._shape, [mask, dy], TO_TABLE), dy.sum(dims=(0, 1, 2))

    def _code(self, shape: list, inputs: list[jt.Var], body: str) -> jt.Var:
        return code([shape], ["float32"], inputs, (CPU_HEADER, body), ("", ""), self._data)[0]


def one_hot_conv(mask: jt.Var, weight: jt.Var, bias: jt.Var, stride: int, padding: int) -> jt.Var:
    """On the CPU: the convolution of a mask's one-hot maps, uint8 [B, H, W] → float32 [B, C_out, H', W'].

    weight [C_out, classes, K, K], bias [C_out], float32. The gradient cannot itself be differentiated.
    """
    channels, classes, size, _ = weight.shape
    table = weight.transpose(2, 3, 1, 0).reshape(size * size, classes, channels)
    y = OneHotConv(stride, padding)(mask, table, bias)  # [B, H', W', C_out]
    return y.transpose(0, 3, 1, 2)


def one_hot_conv_reference(mask: jt.Var, weight: jt.Var, bias: jt.Var, stride: int, padding: int) -> jt.Var:
    """The same in plain Jittor, by way of the maps."""
    return nn.conv2d(one_hot(mask, weight.shape[1]), weight, bias, stride, padding)
