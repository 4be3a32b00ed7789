"""Spatially-adaptive normalisation: blocks through which a mask shapes a picture (Park et al. 2019, "Semantic image synthesis with
spatially-adaptive normalization"). Names as published."""

import jittor as jt
from jittor import nn

from models.networks.discriminators import SpectralConv2d
from models.networks.layers import Conv2d, leaky_relu, resize_nearest, standardize


class SPADE(nn.Module):
    """Features x [B, C, h, w] and a one-hot label map [B, label_channels, H, W], float32 or uint8 → [B, C, h, w] (equation 1).

    x is normalised without weights, by statistics that `norm`, one of `layers.NORMS`, names; then scale and shift come from the label map,
    by two convolutions, for each place and channel.
    """

    def __init__(self, channels: int, label_channels: int, hidden: int = 128, norm: str = "instance"):
        super().__init__()
        self.mlp_shared = nn.ModuleList([Conv2d(label_channels, hidden, 3, padding=1)])
        self.mlp_gamma = Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = Conv2d(hidden, channels, 3, padding=1)
        self._norm = norm

    def execute(self, x: jt.Var, label: jt.Var) -> jt.Var:
        hidden = leaky_relu(self.mlp_shared[0](resize_nearest(label, *x.shape[2:]).float32()), 0)
        return (standardize(x, self._norm) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)).cast(x.dtype)


class SPADEResBlock(nn.Module):
    """[B, C_in, h, w] and a label map → [B, C_out, h, w]: two convolutions, each after SPADE and leaky ReLU, around which x is added; where
    the widths differ, by way of SPADE and a 1x1 convolution (figure 4). The convolutions of features have spectral normalisation."""

    def __init__(self, in_channels: int, out_channels: int, label_channels: int, norm: str = "instance", hidden: int = 128):
        super().__init__()
        middle = min(in_channels, out_channels)
        self.norm_0 = SPADE(in_channels, label_channels, hidden, norm)
        self.conv_0 = SpectralConv2d(in_channels, middle, 3, padding=1)
        self.norm_1 = SPADE(middle, label_channels, hidden, norm)
        self.conv_1 = SpectralConv2d(middle, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.norm_s = SPADE(in_channels, label_channels, hidden, norm)
            self.conv_s = SpectralConv2d(in_channels, out_channels, 1, bias=False)
        self._same_width = in_channels == out_channels

    def execute(self, x: jt.Var, label: jt.Var) -> jt.Var:
        y = self.conv_0(leaky_relu(self.norm_0(x, label)))
        y = self.conv_1(leaky_relu(self.norm_1(y, label)))
        return y + (x if self._same_width else self.conv_s(self.norm_s(x, label)))
