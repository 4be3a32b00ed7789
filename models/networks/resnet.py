"""Residual blocks and the layers that halve and double the resolution, shared by the autoencoder and the UNet. Names as in diffusers."""

import jittor as jt
from jittor import nn

from models.networks.layers import Conv2d, GroupNorm, Linear


class ResnetBlock2D(nn.Module):
    """[B, C_in, H, W] → [B, C_out, H, W] (He et al. 2016, pre-activation; time embedding as in Ho et al. 2020)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int | None,  # width of the time embedding; None: none
        groups: int,
        eps: float,
    ):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps, silu=True)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = Linear(temb_channels, out_channels) if temb_channels else None
        self.norm2 = GroupNorm(groups, out_channels, eps, silu=True)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def execute(self, x: jt.Var, temb: jt.Var | None = None) -> jt.Var:
        h = self.conv1(self.norm1(x))  # [B, C_out, H, W]
        if temb is not None:
            h = h + self.time_emb_proj(nn.silu(temb)).reshape(x.shape[0], -1, 1, 1)
        h = self.conv2(self.norm2(h))
        return h + (self.conv_shortcut(x) if self.conv_shortcut is not None else x)


class Downsample2D(nn.Module):
    """[B, C, H, W] → [B, C, H/2, W/2]. The autoencoder pads below and on the right only (`asymmetric`)."""

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)
        self._asymmetric = asymmetric

    def execute(self, x: jt.Var) -> jt.Var:
        return self.conv(nn.pad(x, [0, 1, 0, 1]) if self._asymmetric else x)


class Upsample2D(nn.Module):
    """[B, C, H, W] → [B, C, 2H, 2W], nearest neighbour, then a convolution.

    Nothing is doubled before it is convolved: several of the nine taps meet the same pixel of x. Each of the four pixels that one becomes
    is a convolution of 2x2 taps, which are sums of the nine: the same result by 4/9 of the multiplications.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        b, c, h, w = x.shape
        y = self.conv.convolve(x, quarters(self.conv.weight), self.conv.bias.repeat(4))  # [B, 4C, H + 1, W + 1]
        y = y.reshape(b, 2, 2, c, h + 1, w + 1)
        rows = [jt.stack([y[:, r, s, :, r : r + h, s : s + w] for s in (0, 1)], dim=-1) for r in (0, 1)]  # [B, C, H, W, 2] twice
        return jt.stack(rows, dim=3).reshape(b, c, 2 * h, 2 * w)


def quarters(weight: jt.Var) -> jt.Var:
    """[C_out, C_in, 3, 3] → [4·C_out, C_in, 2, 2]: what to convolve with for the upper left, upper right, lower left and lower right
    pixel of every doubled one. Sums of two are the same in whatever order, so that no number of threads changes a picture."""
    kernels = []
    for upper_and_lower in halves(*(weight[:, :, i] for i in range(3))):  # rows of taps [C_out, C_in, 3]
        left_and_right = [halves(*(row[:, :, j] for j in range(3))) for row in upper_and_lower]
        kernels += [jt.stack([jt.stack(list(row[side]), dim=2) for row in left_and_right], dim=2) for side in (0, 1)]
    return jt.concat(kernels, dim=0)


def halves(a: jt.Var, b: jt.Var, c: jt.Var) -> tuple[tuple[jt.Var, jt.Var], tuple[jt.Var, jt.Var]]:
    """Of three taps in a row the sums that meet the same pixel: two taps for the first of two doubled pixels, two for the second."""
    return (a, b + c), (a + b, c)
