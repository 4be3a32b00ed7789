"""The fused kernels against plain Jittor; against PyTorch they are measured within SegFormer and EfficientNet-lite (../networks)."""

import jittor as jt
import numpy as np
import pytest

from models.ops.depthwise_conv import depthwise_conv, depthwise_conv_reference


def drawn(*shape):
    return jt.array(np.random.default_rng(shape).standard_normal(shape).astype(np.float32))


def measured(function, x, weight, bias, *how):
    """The output, and the gradients of its product with fixed numbers."""
    y = function(x, weight, bias, *how)
    return [var.numpy() for var in (y, *jt.grad((y * drawn(*y.shape)).sum(), [x, weight, bias]))]


def reference(x, weight, bias, *how):
    return depthwise_conv_reference(x, weight.reshape(weight.shape[0], -1).transpose(1, 0), bias, *how)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [
        ((2, 6, 5, 8), 3, 1, (1, 1)),
        ((3, 1, 1, 4), 3, 1, (1, 1)),
        ((1, 2, 9, 3), 3, 1, (1, 1)),
        ((2, 7, 8, 40), 3, 2, (0, 1)),  # more channels than are summed at once
        ((1, 9, 6, 32), 5, 1, (2, 2)),
        ((2, 8, 7, 4), 5, 2, (1, 2)),
        ((2, 3, 4, 4), 5, 2, (2, 2)),
    ],
)
def test_output_and_gradients_are_those_of_the_reference(shape, size, stride, padding):
    arrays = drawn(*shape), drawn(shape[-1], 1, size, size), drawn(shape[-1])
    ours, theirs = (measured(function, *arrays, stride, padding) for function in (depthwise_conv, reference))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-5 * max(1, np.abs(b).max())


def test_a_single_tap_moves_the_picture():
    x, weight = drawn(1, 4, 5, 2), np.zeros((2, 1, 3, 3), np.float32)
    weight[0, 0, 0, 1] = weight[1, 0, 1, 2] = 1  # from the row above; from the column to the right
    y = depthwise_conv(x, jt.array(weight), jt.zeros(2), 1, (1, 1)).numpy()
    x = x.numpy()
    assert np.array_equal(y[:, 1:, :, 0], x[:, :-1, :, 0]) and not y[:, 0, :, 0].any()
    assert np.array_equal(y[:, :, :-1, 1], x[:, :, 1:, 1]) and not y[:, :, -1, 1].any()


def test_weights_that_are_frozen_cost_no_gradient(monkeypatch):
    monkeypatch.setattr("models.ops.depthwise_conv.TO_WEIGHTS", "this does not compile")
    x, weight = drawn(1, 4, 5, 2), drawn(2, 1, 3, 3).stop_grad()
    y = depthwise_conv(x, weight, jt.zeros(2).stop_grad(), 1, (1, 1))
    assert np.isfinite(jt.grad(y.sum(), x).numpy()).all()
