"""Exchanging the last two axes."""

import jittor as jt


def swap_last_axes(x: jt.Var) -> jt.Var:
    """[..., M, N] → [..., N, M].

    By way of [..., M, N, 1]: without cuTT Jittor moves the last axis in one thread of the CPU, even where it computes on a GPU, and all
    others by a kernel of the device.
    """
    *leading, m, n = x.shape
    k = len(leading)
    return x.reshape(*leading, m, n, 1).transpose(*range(k), k + 1, k, k + 2).reshape(*leading, n, m)
