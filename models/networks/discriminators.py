"""Discriminators of generative adversarial networks."""

import jittor as jt
from jittor import nn

from models.networks.layers import Conv2d

WIDTH = 64  # channels inside a head


class SpectralConv2d(Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018, "Spectral normalization", algorithm 1).

    The estimate of the left singular vector, `u`, gets better by one power iteration a call; it is a buffer, and goes into checkpoints.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.u = unit(jt.randn(1, out_channels)).stop_grad()

    def execute(self, x: jt.Var) -> jt.Var:
        matrix = self.weight.reshape(self.weight.shape[0], -1)  # [C_out, C_in·k·k]
        with jt.no_grad():
            v = unit(nn.matmul(self.u, matrix))  # [1, C_in·k·k]
            self.u.update(unit(nn.matmul_transpose(v, matrix))).stop_grad()
        u = self.u.detach()
        sigma = (nn.matmul_transpose(v.detach(), matrix) * u).sum()
        return self.convolve(x, self.weight / sigma, self.bias)


def unit(x: jt.Var) -> jt.Var:
    return x / (x.sqr().sum() + 1e-12).sqrt()


def head(channels: int) -> nn.Module:
    """[B, C, h, w] → scores [B, 1, h, w]."""
    layers = [SpectralConv2d(channels, WIDTH, 1), SpectralConv2d(WIDTH, WIDTH, 3, padding=1), SpectralConv2d(WIDTH, 1, 1)]
    return nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.LeakyReLU(0.2), layers[2])


class ProjectedDiscriminator(nn.Module):
    """Scores for each map [B, C_i, h_i, w_i] of a frozen network's features (Sauer et al. 2021, "Projected GANs converge faster")."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.heads = nn.ModuleList([head(width) for width in channels])

    def execute(self, features: list[jt.Var]) -> list[jt.Var]:
        return [scores(x) for scores, x in zip(self.heads, features, strict=True)]
