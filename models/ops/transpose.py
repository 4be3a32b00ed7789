"""Exchanging the last two axes."""

import jittor as jt

from models.ops.kernels import on_cuda


def swap_last_axes(x: jt.Var) -> jt.Var:
    """[..., M, N] → [..., N, M].

    Without cuTT Jittor moves the last axis in one thread of the CPU, even where all else is on a GPU, and other axes by a kernel of the
    device: there an axis of one is put behind.
    """
    *leading, m, n = x.shape
    order = [*range(len(leading)), len(leading) + 1, len(leading)]
    if not on_cuda():
        return x.transpose(*order)
    return x.reshape(*x.shape, 1).transpose(*order, len(order)).reshape(*leading, n, m)
