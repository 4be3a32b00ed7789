"""RCAN, a residual channel attention network for super-resolution (Zhang et al. 2018, "Image super-resolution using very deep residual
channel attention networks"). Names of weights are those of the authors' files, in which `body.3.body.7` is the eighth block of the fourth
group.
"""

from dataclasses import dataclass

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, autocast, freeze
from models.networks.recompute import recomputed
from models.networks.tiles import in_tiles

MEAN = np.array([0.4488, 0.4371, 0.4040], np.float32) * 255  # red, green and blue of DIV2K, on which published weights were trained
SCALE = 2
BORDER = 2  # pixels that a picture is continued by: the network's own zeros around it would darken or tint its border


@dataclass
class RCANConfig:
    """Fields in the authors' words; the defaults are the published network for a doubling of each side."""

    n_resgroups: int = 10
    n_resblocks: int = 20  # a group
    n_feats: int = 64
    reduction: int = 16  # of the features inside a channel attention


class MeanShift(Conv2d):
    """[B, 3, H, W] plus a constant a channel. In published files it is a 1x1 convolution, which was not trained."""

    def __init__(self, shift: np.ndarray):
        super().__init__(3, 3, 1)
        self.weight.update(jt.array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)))
        self.bias.update(jt.array(shift))


class CALayer(nn.Module):
    """Channel attention: [B, C, H, W] → the same, each channel times a factor in 0..1 that follows from the means of all (section 3.3)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        narrow = channels // reduction
        self.conv_du = nn.Sequential(Conv2d(channels, narrow, 1), nn.ReLU(), Conv2d(narrow, channels, 1), nn.Sigmoid())

    def execute(self, x: jt.Var) -> jt.Var:
        # Sums and the sigmoid in float32, and sums by rows first: added up one by one, the values of a large map would be lost to rounding.
        means = x.float32().mean(dim=3, keepdims=True).mean(dim=2, keepdims=True)  # [B, C, 1, 1]
        with autocast("float32"):
            factors = self.conv_du(means)
        return x * factors.cast(x.dtype)


class RCAB(nn.Module):
    """Residual channel attention block: [B, C, H, W] → the same (section 3.4)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        first, second = (Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second, CALayer(channels, reduction))

    def execute(self, x: jt.Var) -> jt.Var:
        return self.body(x) + x


class ResidualGroup(nn.Module):
    """Blocks and a convolution, with a skip around them: [B, C, H, W] → the same (section 3.2)."""

    def __init__(self, config: RCANConfig):
        super().__init__()
        blocks = [RCAB(config.n_feats, config.reduction) for _ in range(config.n_resblocks)]
        self.body = nn.Sequential(*blocks, Conv2d(config.n_feats, config.n_feats, 3, padding=1))

    def execute(self, x: jt.Var) -> jt.Var:
        y = x
        for layer in self.body:
            y = recomputed(layer, y)
        return y + x


class PixelShuffle(nn.Module):
    """[B, 4C, H, W] → [B, C, 2H, 2W]: four channels become the four pixels of a cell (Shi et al. 2016, equation 4)."""

    def execute(self, x: jt.Var) -> jt.Var:
        b, c, h, w = x.shape
        x = x.reshape(b, c // SCALE**2, SCALE, SCALE, h, w, 1)  # the axis of one stays behind, as moving the last axis is slow in Jittor
        return x.transpose(0, 1, 4, 2, 5, 3, 6).reshape(b, c // SCALE**2, SCALE * h, SCALE * w)


class RCAN(nn.Module):
    """Pictures [B, 3, H, W], values 0..255 → pictures [B, 3, 2H, 2W], float32, nominally 0..255 but not clipped.

    In mixed precision head, tail and skips stay float32: the features that carry the picture itself need more than the 8 bits of bfloat16,
    and nearly all of the work is inside the blocks.
    """

    def __init__(self, config: RCANConfig):
        super().__init__()
        self._config, width = config, config.n_feats
        self.sub_mean, self.add_mean = freeze(MeanShift(-MEAN)), freeze(MeanShift(MEAN))
        self.head = nn.Sequential(Conv2d(3, width, 3, padding=1))
        groups = [ResidualGroup(config) for _ in range(config.n_resgroups)]
        self.body = nn.Sequential(*groups, Conv2d(width, width, 3, padding=1))
        upsampler = nn.Sequential(Conv2d(width, SCALE**2 * width, 3, padding=1), PixelShuffle())
        self.tail = nn.Sequential(upsampler, Conv2d(width, 3, 3, padding=1))

    @property
    def config(self) -> RCANConfig:
        return self._config

    def execute(self, x: jt.Var) -> jt.Var:
        with autocast("float32"):
            x = self.head(self.sub_mean(x))  # [B, C, H, W]
        x = self.body(x) + x
        with autocast("float32"):
            return self.add_mean(self.tail(x))


def double(network: RCAN, picture: np.ndarray, tile: int = 0) -> np.ndarray:
    """A picture uint8 [H, W, 3] at twice its size, uint8 [2H, 2W, 3]; in tiles of so many of its pixels a side, or at once.

    The channel attention of a tile sees the means of that tile, not of the picture, so that results differ a little from those at once.
    """
    continued = np.pad(picture, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="symmetric")
    x, cut = jt.array(np.float32(continued.transpose(2, 0, 1)[None])), slice(SCALE * BORDER, -SCALE * BORDER)
    with jt.no_grad():
        large = in_tiles(network, x, tile + 2 * BORDER, SCALE, margin=tile // 16) if tile else network(x).numpy()
    return np.uint8(np.rint(np.clip(large[0, :, cut, cut].transpose(1, 2, 0), 0, 255)))
