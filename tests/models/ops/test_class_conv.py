"""A convolution for each class of a mask: the fused kernels against a convolution of masked features for each."""

import jittor as jt
import numpy as np
import pytest

from models.ops.class_conv import class_conv, class_conv_reference


def drawn(*shape):
    return jt.array(np.random.default_rng(shape).standard_normal(shape).astype(np.float32))


def labels(*shape, classes):
    return jt.array(np.random.default_rng(shape).integers(0, classes, shape, np.uint8))


def measured(function, x, mask, weight):
    """The output, and the gradients of its product with fixed numbers."""
    y = function(x, mask, weight)
    return [var.numpy() for var in (y, *jt.grad((y * drawn(*y.shape)).sum(), [x, weight]))]


@pytest.mark.parametrize(
    ("shape", "classes", "size", "outputs"),
    [((2, 8, 9, 12), 5, 7, 3), ((1, 4, 7, 7), 3, 7, 3), ((2, 8, 6, 5), 2, 3, 1)],  # the second has one pixel of result
)
def test_output_and_gradients_are_those_of_masked_convolutions(shape, classes, size, outputs):
    b, c, h, w = shape
    arrays = drawn(*shape), labels(b, h, w, classes=classes + 1), drawn(classes, outputs, c, size, size)  # some pixels have no class
    ours, theirs = (measured(function, *arrays) for function in (class_conv, class_conv_reference))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-5 * np.abs(b).max()


def test_a_class_that_is_nowhere_is_zero_and_learns_nothing():
    x, mask, weight = drawn(2, 8, 9, 12), jt.array(np.full((2, 9, 12), 3, np.uint8)), drawn(5, 3, 8, 7, 7)
    y, _, dweight = measured(class_conv, x, mask, weight)
    assert y[:, 9:12].all() and not np.delete(y, slice(9, 12), axis=1).any()
    assert dweight[3].all() and not np.delete(dweight, 3, axis=0).any()
