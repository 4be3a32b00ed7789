"""Upsampling by a kernel of its own at each place: x is doubled by nearest neighbour, then each pixel is a weighted sum of those near it.

Written as convolutions are, by unfolding, it would hold K·K copies of the doubled map; as a sum of K·K products, as many products for the
gradient. Here one kernel goes forward, one back to the features and one to the weights, on the CPU and on CUDA (reassembly.cuh), and
nothing but their inputs is kept; not even the doubled map is ever made. The plain-Jittor reference computes the same.
"""

import math

import jittor as jt

from models.ops.kernels import code, cuda_header

# Rows of the doubled map are made as they are met, with zeros beside them, so that all loops run along rows.
CPU_HEADER = r"""
#include <algorithm>
#include <vector>

namespace {

// row[reach + j] = x[j / 2]
inline void double_row(float* __restrict__ row, const float* __restrict__ x, int64_t width, int64_t reach) {
    for (int64_t j = 0; j < width; j++) row[reach + 2 * j] = row[reach + 2 * j + 1] = x[j];
}

inline void add_product(float* __restrict__ sum, const float* __restrict__ a, const float* __restrict__ b, int64_t count) {
    for (int64_t j = 0; j < count; j++) sum[j] += a[j] * b[j];
}

}  // namespace
"""

# x [B, C, h, w], kernels [B, K·K, 2h, 2w], and y or its gradient [B, C, 2h, 2w]
SHAPES = r"""
    int64_t batch = in0_shape0, channels = XSHAPE1, h = XSHAPE2, w = XSHAPE3, rows = 2 * h, columns = 2 * w;
    int64_t size = data["size"], taps = size * size, reach = size / 2;
"""

FORWARD = (
    SHAPES.replace("XSHAPE", "in0_shape")
    + r"""
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * rows; task++) {
        int64_t b = task / rows, i = task % rows;
        std::vector<float> row(columns + 2 * reach, 0.f);
        for (int64_t c = 0; c < channels; c++) {
            float* y = out0_p + ((b * channels + c) * rows + i) * columns;
            std::fill(y, y + columns, 0.f);
            for (int64_t r = 0; r < size; r++) {
                int64_t from = i + r - reach;
                if (from < 0 || from >= rows) continue;
                double_row(row.data(), in0_p + ((b * channels + c) * h + from / 2) * w, w, reach);
                for (int64_t s = 0; s < size; s++)
                    add_product(y, in1_p + ((b * taps + r * size + s) * rows + i) * columns, row.data() + s, columns);
            }
        }
    }
"""
)

# in0 = dy, in1 = kernels, out0 = dx: a task owns a row of dx, which two rows of the doubled map come from
TO_FEATURES = (
    SHAPES.replace("XSHAPE", "out0_shape")
    + r"""
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * h; task++) {
        int64_t b = task / h, q = task % h;
        std::vector<float> row(columns + 2 * reach);
        for (int64_t c = 0; c < channels; c++) {
            std::fill(row.begin(), row.end(), 0.f);
            for (int64_t from = 2 * q; from < 2 * q + 2; from++)
                for (int64_t r = 0; r < size; r++) {
                    int64_t i = from - r + reach;
                    if (i < 0 || i >= rows) continue;
                    const float* dy = in0_p + ((b * channels + c) * rows + i) * columns;
                    for (int64_t s = 0; s < size; s++)
                        add_product(row.data() + s, in1_p + ((b * taps + r * size + s) * rows + i) * columns, dy, columns);
                }
            float* dx = out0_p + ((b * channels + c) * h + q) * w;
            for (int64_t j = 0; j < w; j++) dx[j] = row[reach + 2 * j] + row[reach + 2 * j + 1];
        }
    }
"""
)

# in0 = x, in1 = dy, out0 = the gradient of the kernels
TO_KERNELS = (
    SHAPES.replace("XSHAPE", "in0_shape")
    + r"""
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * rows; task++) {
        int64_t b = task / rows, i = task % rows;
        std::vector<float> row(columns + 2 * reach, 0.f);
        for (int64_t r = 0; r < size; r++) {
            int64_t from = i + r - reach;
            float* dkernels = out0_p + ((b * taps + r * size) * rows + i) * columns;  // the next tap's is rows · columns behind
            for (int64_t s = 0; s < size; s++) std::fill_n(dkernels + s * rows * columns, columns, 0.f);
            if (from < 0 || from >= rows) continue;
            for (int64_t c = 0; c < channels; c++) {
                double_row(row.data(), in0_p + ((b * channels + c) * h + from / 2) * w, w, reach);
                const float* dy = in1_p + ((b * channels + c) * rows + i) * columns;
                for (int64_t s = 0; s < size; s++) add_product(dkernels + s * rows * columns, dy, row.data() + s, columns);
            }
        }
    }
"""
)

CUDA = r"""
    launch(KERNEL, (out0->num + 255) / 256, 256, 0, (const float*)in0_p, (const float*)in1_p, (float*)out0_p, (int64_t)out0->num,
           (int)CHANNELS, (int)ROWS, (int)COLUMNS, (int)data["size"]);
"""


def cuda(kernel: str, high: str) -> str:
    """The launch of a kernel; `high`: a variable that has the shape of y."""
    values = {"KERNEL": kernel, "CHANNELS": f"{high}_shape1", "ROWS": f"{high}_shape2", "COLUMNS": f"{high}_shape3"}
    source = CUDA
    for name, value in values.items():
        source = source.replace(name, value)
    return source


class FusedReassembly(jt.Function):
    """The kernels, on x [B, C, h, w] and kernels [B, K·K, 2h, 2w], both float32; see `reassemble`. First derivatives only, and once.

    The gradients of features and of kernels are apart, so that only those are computed that are asked for.
    """

    def execute(self, x, kernels):
        self._saved = x, kernels
        self._data = {"size": math.isqrt(kernels.shape[1])}
        b, c, h, w = x.shape
        return self._code((b, c, 2 * h, 2 * w), [x, kernels], FORWARD, cuda("reassemble", "out0"))

    def grad(self, dy):
        (x, kernels), self._saved = self._saved, None  # this object may live longer than they need to
        dx = self._code(x.shape, [dy, kernels], TO_FEATURES, cuda("reassemble_to_features", "in0"))
        return dx, self._code(kernels.shape, [x, dy], TO_KERNELS, cuda("reassemble_to_kernels", "in1"))

    def _code(self, shape: tuple, inputs: list[jt.Var], cpu: str, cuda_source: str) -> jt.Var:
        sides = (CPU_HEADER, cpu), (cuda_header("reassembly.cuh", "float32"), cuda_source)
        return code([shape], ["float32"], inputs, *sides, self._data)[0]


def reassemble_reference(x: jt.Var, kernels: jt.Var) -> jt.Var:
    """The same in plain Jittor."""
    b, c, h, w = x.shape
    size = math.isqrt(kernels.shape[1])
    doubled = x.reshape(b, c, h, 1, w, 1).broadcast([b, c, h, 2, w, 2]).reshape(b, c, 2 * h, 2 * w)
    padded = jt.nn.pad(doubled, [size // 2] * 4)
    taps = ((r, s) for r in range(size) for s in range(size))
    return sum(padded[:, :, r : r + 2 * h, s : s + 2 * w] * kernels[:, n : n + 1] for n, (r, s) in enumerate(taps))


def reassemble(x: jt.Var, kernels: jt.Var) -> jt.Var:
    """y(c, p) = Σ_n kernels(n, p) · x↑(c, p + n): [B, C, h, w] and [B, K·K, 2h, 2w] → [B, C, 2h, 2w] (Wang et al. 2019, "CARAFE", eq. 4).

    x↑ is x doubled by nearest neighbour, zero outside; n runs over the K x K places around p, row by row. Computed in float32, returned in
    x's dtype. The gradient cannot itself be differentiated.
    """
    return FusedReassembly.apply(x.float32(), kernels.float32()).cast(x.dtype)
