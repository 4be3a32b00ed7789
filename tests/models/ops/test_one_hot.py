"""What is made of masks without their one-hot maps, against the same by way of the maps."""

import jittor as jt
import numpy as np
import pytest

from datasets import transforms
from models.ops.kernels import on_cuda
from models.ops.one_hot import class_shares, one_hot, one_hot_conv, one_hot_conv_reference

UNKNOWN = 255


def drawn_mask(*shape: int) -> np.ndarray:
    """Classes 0..28, and places that have none."""
    random = np.random.default_rng(0)
    return np.where(random.random(shape) < 0.1, UNKNOWN, random.integers(0, 29, shape)).astype(np.uint8)


@pytest.mark.skipif(on_cuda(), reason="the kernels are the CPU's")
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (1, 1, 0), (5, 2, 0)])
def test_the_convolution_and_its_gradients_are_those_of_the_one_hot_maps(size, stride, padding):
    mask, random = jt.array(drawn_mask(3, 12, 17)), np.random.default_rng(1)
    weight, bias = (jt.array(random.standard_normal(shape).astype(np.float32)) for shape in ((6, 29, size, size), (6,)))

    def measured(function):
        y = function(mask, weight, bias, stride, padding)
        fixed = jt.array(np.random.default_rng(2).standard_normal(y.shape).astype(np.float32))
        return [var.numpy() for var in (y, *jt.grad((y * fixed).sum(), [weight, bias]))]

    for ours, theirs in zip(measured(one_hot_conv), measured(one_hot_conv_reference), strict=True):
        assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_shares_are_means_of_the_one_hot_maps():
    mask = drawn_mask(2, 16, 24)
    maps = one_hot(jt.array(mask), 29).numpy()
    assert np.array_equal(maps.argmax(axis=1)[mask < 29], mask[mask < 29]) and not maps.any(axis=1)[mask == UNKNOWN].any()
    expected = maps.reshape(2, 29, 4, 4, 6, 4).mean(axis=(3, 5))
    assert np.allclose(class_shares(jt.array(mask), 29, 4).numpy(), expected, atol=1e-6)
    assert np.allclose(np.stack([transforms.class_shares(picture, 4) for picture in mask]), expected, atol=1e-6)
