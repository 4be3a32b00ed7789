"""Residual blocks and the layers that halve and double the resolution, shared by the autoencoder and the UNet. Names as in diffusers."""

import jittor as jt
from jittor import nn

from models.networks.layers import Conv2d, GroupNorm, Linear, upsample_nearest


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
    """[B, C, H, W] → [B, C, 2H, 2W], nearest neighbour, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.conv(upsample_nearest(x, 2))
