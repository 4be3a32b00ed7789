"""Discriminators of generative adversarial networks."""

from itertools import pairwise

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, leaky_relu, standardize

WIDTH = 64  # channels inside a head


class SpectralConv2d(Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018, "Spectral normalization", algorithm 1).

    The estimate of the left singular vector, `u`, gets better by one power iteration a call; it is a buffer, and goes into checkpoints.
    Where no gradient is kept (in validation, in painting, and in the first of the two passes of `recomputed`) a call computes the same, and
    leaves `u` as it was: looking at a network does not change it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias)
        self.u = unit(jt.randn(1, out_channels)).stop_grad()

    def execute(self, x: jt.Var) -> jt.Var:
        matrix = self.weight.reshape(self.weight.shape[0], -1)  # [C_out, C_in·k·k]
        training = not jt.flags.no_grad
        with jt.no_grad():
            v = unit(nn.matmul(self.u, matrix))  # [1, C_in·k·k]
            u = unit(nn.matmul_transpose(v, matrix))
            if training:
                self.u.update(u).stop_grad()
        sigma = (nn.matmul_transpose(v.detach(), matrix) * u.detach()).sum()
        return self.convolve(x, self.weight / sigma, self.bias)


def unit(x: jt.Var) -> jt.Var:
    return x / (x.sqr().sum() + 1e-12).sqrt()


def head(channels: int) -> nn.Module:
    """[B, C, h, w] → scores [B, 1, h, w]."""
    layers = [SpectralConv2d(channels, WIDTH, 1), SpectralConv2d(WIDTH, WIDTH, 3, padding=1), SpectralConv2d(WIDTH, 1, 1)]
    return nn.Sequential(layers[0], leaky_relu, layers[1], leaky_relu, layers[2])


class ProjectedDiscriminator(nn.Module):
    """Scores for each map [B, C_i, h_i, w_i] of a frozen network's features (Sauer et al. 2021, "Projected GANs converge faster")."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.heads = nn.ModuleList([head(width) for width in channels])

    def execute(self, features: list[jt.Var]) -> list[jt.Var]:
        return [scores(x) for scores, x in zip(self.heads, features, strict=True)]


class PatchDiscriminator(nn.Module):
    """Pictures [B, C, H, W] → the maps that its layers put out, the last the scores [B, 1, h, w] of patches (Isola et al. 2017).

    Widths grow from `base` to at most 512; strides are 2, and 1 in the last but one and the last layer. The inner layers have spectral
    and instance normalisation, and so no bias.
    """

    def __init__(self, in_channels: int, base: int, layers: int):
        super().__init__()
        widths = [min(base * 2**i, 512) for i in range(layers)]
        inner = [
            SpectralConv2d(a, b, 4, stride=2 if i < layers - 2 else 1, padding=2, bias=False) for i, (a, b) in enumerate(pairwise(widths))
        ]
        self.convs = nn.ModuleList(
            [Conv2d(in_channels, base, 4, stride=2, padding=2), *inner, Conv2d(widths[-1], 1, 4, stride=1, padding=2)]
        )

    def execute(self, x: jt.Var) -> list[jt.Var]:
        first, *inner, last = self.convs
        maps = [leaky_relu(first(x))]
        for conv in inner:
            maps.append(leaky_relu(standardize(conv(maps[-1]), "instance")))
        return [*maps, last(maps[-1])]


class MultiscaleDiscriminator(nn.Module):
    """Pictures with their one-hot label maps [B, C, H, W] → for each scale the maps of a discriminator of its own, scores last (Wang et al.
    2018, "High-resolution image synthesis"). From one scale to the next the size is halved."""

    def __init__(self, in_channels: int, base: int = 64, layers: int = 4, scales: int = 2):
        super().__init__()
        self.discriminators = nn.ModuleList([PatchDiscriminator(in_channels, base, layers) for _ in range(scales)])

    def execute(self, x: jt.Var) -> list[list[jt.Var]]:
        outputs = []
        for i, discriminator in enumerate(self.discriminators):
            x = halved(x) if i else x
            outputs.append(discriminator(x))
        return outputs


def halved(x: jt.Var) -> jt.Var:
    """[B, C, H, W] → [B, C, ⌈H/2⌉, ⌈W/2⌉]: means over windows of 3x3, at the border of what of them lies within."""

    def share_within(length: int) -> np.ndarray:  # of each window's three rows or columns
        first = np.arange(-1, length - 1, 2)
        return (np.minimum(first + 3, length) - np.maximum(first, 0)) / np.float32(3)

    # Jittor counts the padding, whether it is told to or not.
    return nn.AvgPool2d(3, stride=2, padding=1)(x) / jt.array(np.outer(*map(share_within, x.shape[2:])).astype(np.float32))
