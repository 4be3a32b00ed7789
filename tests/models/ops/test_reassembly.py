"""Upsampling by kernels of the place: the fused kernels against plain Jittor; against PyTorch they are measured within LGGAN."""

import jittor as jt
import numpy as np
import pytest

from models.ops.reassembly import reassemble, reassemble_reference


def drawn(*shape):
    return jt.array(np.random.default_rng(shape).standard_normal(shape).astype(np.float32))


def measured(function, x, kernels):
    """The output, and the gradients of its product with fixed numbers."""
    y = function(x, kernels)
    return [var.numpy() for var in (y, *jt.grad((y * drawn(*y.shape)).sum(), [x, kernels]))]


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 4, 5), 5), ((1, 4, 1, 2), 5), ((2, 2, 3, 3), 3)])
def test_output_and_gradients_are_those_of_the_reference(shape, size):
    b, _, h, w = shape
    arrays = drawn(*shape), drawn(b, size * size, 2 * h, 2 * w)
    ours, theirs = (measured(function, *arrays) for function in (reassemble, reassemble_reference))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max() < 1e-5 * np.abs(b).max()


def test_the_middle_tap_alone_doubles_the_map_and_another_moves_it():
    x = drawn(1, 2, 3, 4)
    doubled = x.numpy().repeat(2, axis=2).repeat(2, axis=3)
    for tap, rows in ((12, slice(0, 6)), (2, slice(2, 6))):  # the second is two rows above
        kernels = np.zeros((1, 25, 6, 8), np.float32)
        kernels[:, tap] = 1
        y = reassemble(x, jt.array(kernels)).numpy()
        assert np.array_equal(y[:, :, rows], doubled[:, :, : rows.stop - rows.start]) and not y[:, :, : rows.start].any()


def test_nothing_but_its_inputs_is_kept():
    """In units of y: the inputs, the output and their gradients; 25 products would be 25 more. (Jittor's profiler knows a maximum since
    the process began, so another test may have had more: the difference between one map and two is looked at.)"""

    def peak(channels):
        x, kernels = drawn(1, channels, 96, 128), drawn(1, 25, 192, 256)
        loss = reassemble(x, kernels).sqr().mean()
        loss.sync()
        jt.sync(jt.grad(loss, [x, kernels], retain_graph=False))
        return int(jt.core.get_max_memory_info().partition("[")[0]) / (4 * 192 * 256)

    jt.flags.profile_memory_enable = 1
    try:
        few, many = peak(32), peak(96)
    finally:
        jt.flags.profile_memory_enable = 0
    assert few > 32 and many - few < 4 * 64
