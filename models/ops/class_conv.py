"""A convolution for each class of a mask, of the features where the mask shows that class: the local branch of LGGAN.

Written as it is read, it would be as many convolutions of as many masked copies of the features. But every pixel has one class only, so
that it meets the weights of that class alone: 29 times fewer products, and no copy. One kernel goes forward, one back to the features and
one to the weights, on the CPU and on CUDA (class_conv.cuh); the plain-Jittor reference computes the same.
"""

import jittor as jt

from models.ops.kernels import code, cuda_header
from models.ops.transpose import swap_last_axes

# x [B, h, w, C] and mask [B, h, w], padded by K - 1 in all; y or its gradient [B, N · O, h - K + 1, w - K + 1]. Vectors run over the
# (column, output) pairs of a row of taps, weights [N, K, C, K · O], or over channels, weights [N, K, K · O, C]. A pixel of a class that
# there is not adds nothing.
SHAPES = r"""
    int64_t batch = MASKSHAPE0, h = MASKSHAPE1, w = MASKSHAPE2, rows = h - SIZE + 1, columns = w - SIZE + 1, area = rows * columns;
    int64_t classes = data["classes"];
"""

FORWARD = (
    SHAPES.replace("MASKSHAPE", "in1_shape")
    + r"""
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * rows; task++) {
        int64_t b = task / rows, i = task % rows;
        float* y = out0_p + b * classes * OUTPUTS * area + i * columns;  // the next map's row is `area` behind
        for (int64_t map = 0; map < classes * OUTPUTS; map++) std::fill_n(y + map * area, columns, 0.f);
        for (int64_t r = 0; r < SIZE; r++)
            for (int64_t q = 0; q < w; q++) {
                int64_t place = (b * h + i + r) * w + q, label = in1_p[place];
                if (label >= classes) continue;
                const float *x = in0_p + place * CHANNELS, *weights = in2_p + (label * SIZE + r) * CHANNELS * SIZE * OUTPUTS;
                float sums[SIZE * OUTPUTS] = {0};
                for (int64_t c = 0; c < CHANNELS; c++)
                    for (int64_t k = 0; k < SIZE * OUTPUTS; k++) sums[k] += x[c] * weights[c * SIZE * OUTPUTS + k];
                for (int64_t s = std::max<int64_t>(0, q - columns + 1); s <= std::min<int64_t>(q, SIZE - 1); s++)
                    for (int64_t o = 0; o < OUTPUTS; o++) y[(label * OUTPUTS + o) * area + q - s] += sums[s * OUTPUTS + o];
            }
    }
"""
)

# in0 = dy, in2 = weights [N, K, K · O, C], out0 = dx
TO_FEATURES = (
    SHAPES.replace("MASKSHAPE", "in1_shape")
    + r"""
    #pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < batch * h; task++) {
        int64_t b = task / h, p = task % h;
        for (int64_t q = 0; q < w; q++) {
            int64_t place = task * w + q, label = in1_p[place];
            float sums[CHANNELS] = {0};
            for (int64_t r = std::max<int64_t>(0, p - rows + 1); r <= std::min<int64_t>(p, SIZE - 1) && label < classes; r++)
                for (int64_t s = std::max<int64_t>(0, q - columns + 1); s <= std::min<int64_t>(q, SIZE - 1); s++)
                    for (int64_t o = 0; o < OUTPUTS; o++) {
                        float dy = in0_p[((b * classes + label) * OUTPUTS + o) * area + (p - r) * columns + q - s];
                        const float* weights = in2_p + (((label * SIZE + r) * SIZE + s) * OUTPUTS + o) * CHANNELS;
                        for (int64_t c = 0; c < CHANNELS; c++) sums[c] += dy * weights[c];
                    }
            std::copy(sums, sums + CHANNELS, out0_p + place * CHANNELS);
        }
    }
"""
)

# in0 = x, in2 = dy, out0 = the gradient of weights [N, K, K · O, C]: a task owns one tap, and adds up in order
TO_WEIGHTS = (
    SHAPES.replace("MASKSHAPE", "in1_shape")
    + r"""
    #pragma omp parallel for schedule(dynamic)
    for (int64_t tap = 0; tap < SIZE * SIZE; tap++) {
        for (int64_t label = 0; label < classes; label++)
            std::fill_n(out0_p + (label * SIZE * SIZE + tap) * OUTPUTS * CHANNELS, OUTPUTS * CHANNELS, 0.f);
        for (int64_t b = 0; b < batch; b++)
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < columns; j++) {
                    int64_t place = (b * h + i + tap / SIZE) * w + j + tap % SIZE, label = in1_p[place];
                    if (label >= classes) continue;
                    const float *x = in0_p + place * CHANNELS, *dy = in2_p + (b * classes + label) * OUTPUTS * area + i * columns + j;
                    float* dweights = out0_p + (label * SIZE * SIZE + tap) * OUTPUTS * CHANNELS;
                    for (int64_t o = 0; o < OUTPUTS; o++)
                        for (int64_t c = 0; c < CHANNELS; c++) dweights[o * CHANNELS + c] += dy[o * area] * x[c];
                }
    }
"""
)

CUDA = r"""
    int64_t threads = THREADS;
    launch(KERNEL, (threads + 127) / 128, 128, 0, (const float*)in0_p, (const unsigned char*)in1_p, (const float*)in2_p,
           (float*)out0_p, (int)in1_shape0, (int)in1_shape1, (int)in1_shape2, (int)data["classes"]);
"""
CUDA_FORWARD = CUDA.replace("KERNEL", "class_conv<SIZE, OUTPUTS, CHANNELS>").replace("THREADS", "out0->num / out0_shape1")
CUDA_TO_FEATURES = CUDA.replace("KERNEL", "class_conv_to_features<SIZE, OUTPUTS, CHANNELS>").replace("THREADS", "out0->num")
CUDA_TO_WEIGHTS = CUDA.replace("KERNEL", "class_conv_to_weights<SIZE, OUTPUTS, CHANNELS>").replace("THREADS", "out0->num")


class FusedClassConv(jt.Function):
    """The kernels, on x [B, h, w, C] float32, mask [B, h, w] uint8 and weights [N, K, K, O, C] float32; see `class_conv`. First
    derivatives only, and once."""

    def execute(self, x, mask, weights):
        self._saved = x, mask, weights
        b, h, w, c = x.shape
        n, k, _, o, _ = weights.shape
        self._constants, self._data = {"SIZE": k, "OUTPUTS": o, "CHANNELS": c}, {"classes": n}
        rows_of_taps = swap_last_axes(weights.reshape(n, k, k * o, c))
        return self._code((b, n * o, h - k + 1, w - k + 1), [x, mask, rows_of_taps], FORWARD, CUDA_FORWARD)

    def grad(self, dy):
        (x, mask, weights), self._saved = self._saved, None  # this object may live longer than they need to
        dx = self._code(x.shape, [dy, mask, weights], TO_FEATURES, CUDA_TO_FEATURES)
        return dx, None, self._code(weights.shape, [x, mask, dy], TO_WEIGHTS, CUDA_TO_WEIGHTS)

    def _code(self, shape: tuple, inputs: list[jt.Var], cpu: str, cuda: str) -> jt.Var:
        named = "".join(f"const int {name} = {value};\n" for name, value in self._constants.items())
        header = f"#include <algorithm>\nnamespace {{\n{named}}}\n"
        sides = (header, cpu), (cuda_header("class_conv.cuh", "float32", **self._constants), cuda)
        return code([shape], ["float32"], inputs, *sides, self._data)[0]


def class_conv_reference(x: jt.Var, mask: jt.Var, weight: jt.Var) -> jt.Var:
    """The same as `class_conv` in plain Jittor, class by class."""
    masked = (x * (mask == label).float32().unsqueeze(1) for label in range(weight.shape[0]))
    return jt.concat([jt.nn.conv2d(features, own) for features, own in zip(masked, weight, strict=True)], dim=1)


def class_conv(x: jt.Var, mask: jt.Var, weight: jt.Var) -> jt.Var:
    """For each of N classes, the features of its pixels convolved with its own weights, without padding.

    x [B, C, h, w]; mask uint8 [B, h, w], of which values of N and more are no class; weight [N, O, C, K, K] → [B, N · O, h - K + 1,
    w - K + 1]. Computed in float32, returned in x's dtype. The gradient cannot itself be differentiated.
    """
    (b, c, h, w), (n, o, _, k, _) = x.shape, weight.shape
    channels_last = swap_last_axes(x.float32().reshape(b, c, h * w)).reshape(b, h, w, c)
    taps = weight.float32().reindex([n, k, k, o, c], ["i0", "i3", "i4", "i1", "i2"])
    return FusedClassConv.apply(channels_last, mask, taps).cast(x.dtype)
