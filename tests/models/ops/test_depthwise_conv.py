"""The fused kernels against plain Jittor; against PyTorch they are measured within SegFormer (tests/models/test_segformer.py)."""

import jittor as jt
import numpy as np
import pytest

from models.ops.depthwise_conv import depthwise_conv3x3, depthwise_conv_reference


def drawn(*shape):
    return jt.array(np.random.default_rng(shape).standard_normal(shape).astype(np.float32))


def measured(function, x, weight, bias):
    """The output, and the gradients of its product with fixed numbers."""
    y = function(x, weight, bias)
    return [var.numpy() for var in (y, *jt.grad((y * drawn(*y.shape)).sum(), [x, weight, bias]))]


def reference(x, weight, bias):
    return depthwise_conv_reference(x, weight.reshape(-1, 9).transpose(1, 0), bias)


@pytest.mark.parametrize("shape", [(2, 6, 5, 8), (3, 1, 1, 4), (1, 2, 9, 3)])
def test_output_and_gradients_are_those_of_the_reference(shape):
    x, weight, bias = drawn(*shape), drawn(shape[-1], 1, 3, 3), drawn(shape[-1])
    for ours, theirs in zip(measured(depthwise_conv3x3, x, weight, bias), measured(reference, x, weight, bias), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * max(1, np.abs(theirs).max())


def test_a_single_tap_moves_the_picture():
    x, weight = drawn(1, 4, 5, 2), np.zeros((2, 1, 3, 3), np.float32)
    weight[0, 0, 0, 1] = weight[1, 0, 1, 2] = 1  # from the row above; from the column to the right
    y = depthwise_conv3x3(x, jt.array(weight), jt.zeros(2)).numpy()
    x = x.numpy()
    assert np.array_equal(y[:, 1:, :, 0], x[:, :-1, :, 0]) and not y[:, 0, :, 0].any()
    assert np.array_equal(y[:, :, :-1, 1], x[:, :, 1:, 1]) and not y[:, :, -1, 1].any()
