"""RCAN, a residual channel attention network for super-resolution (Zhang et al. 2018, "Image super-resolution using very deep residual
channel attention networks"). Names of weights are those of the authors' files, in which `body.3.body.7` is the eighth block of the fourth
group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, ReLU, autocast, freeze
from models.networks.recompute import recomputed

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
        self.conv_du = nn.Sequential(Conv2d(channels, narrow, 1), ReLU(), Conv2d(narrow, channels, 1), nn.Sigmoid())

    def execute(self, x: jt.Var) -> jt.Var:
        # by rows first: added up one by one in float32, the values of a large map would be lost to rounding
        wide = x.float32()
        means = wide.mean(dim=3, keepdims=True).mean(dim=2, keepdims=True)
        return (wide * self.factors(means)).cast(x.dtype)  # a sigmoid that is rounded to float16 goes wrong in some of Jittor's kernels

    def factors(self, means: jt.Var) -> jt.Var:
        """Means [B, C, 1, 1] → factors [B, C, 1, 1], both float32."""
        with autocast("float32"):
            return self.conv_du(means)


class RCAB(nn.Module):
    """Residual channel attention block: [B, C, H, W] → the same (section 3.4)."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        first, second = (Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, ReLU(), second, CALayer(channels, reduction))

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
        x = self.features(x)
        return self.picture(self.body(x) + x)

    def features(self, x: jt.Var) -> jt.Var:
        """Pictures [B, 3, H, W] → features [B, C, H, W]."""
        with autocast("float32"):
            return self.head(self.sub_mean(x))

    def picture(self, x: jt.Var) -> jt.Var:
        """Features [B, C, H, W] → pictures [B, 3, 2H, 2W]."""
        with autocast("float32"):
            return self.add_mean(self.tail(x))


def double(network: RCAN, picture: np.ndarray, tile: int = 0) -> np.ndarray:
    """A picture uint8 [H, W, 3] at twice its size, uint8 [2H, 2W, 3]; in tiles of so many of its pixels a side, or at once."""
    continued = np.pad(picture, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="symmetric")
    x, cut = np.float32(continued.transpose(2, 0, 1)[None]), slice(SCALE * BORDER, -SCALE * BORDER)
    with jt.no_grad():
        large = double_in_tiles(network, x, tile) if tile else network(jt.array(x)).numpy()
    return np.uint8(np.rint(np.clip(large[0, :, cut, cut].transpose(1, 2, 0), 0, 255)))


def double_in_tiles(network: RCAN, x: np.ndarray, tile: int) -> np.ndarray:
    """network(x), float32 [B, 3, 2H, 2W], up to rounding, in the device's memory of one tile.

    Channel attention goes by the means of a whole picture: tiles that went by their own would differ in contrast, with seams between them.
    So the tiles are put together after every block, in the host's memory, which holds a few maps [B, C, H, W].
    """
    *groups, last = network.body
    x = in_tiles(network.features, x, tile, sees=1)
    y = x
    for group in groups:
        *blocks, closing = group.body
        z = y
        for block in blocks:
            *convolutions, attention = block.body
            residual = in_tiles(nn.Sequential(*convolutions), z, tile, sees=2)
            means = residual.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
            z = z + residual * attention.factors(jt.array(np.float32(means))).numpy()
        y = y + in_tiles(closing, z, tile, sees=1)
    x = x + in_tiles(last, y, tile, sees=1)
    return in_tiles(network.picture, x, tile, sees=2, scale=SCALE)


def in_tiles(compute: Callable[[jt.Var], jt.Var], x: np.ndarray, tile: int, sees: int, scale: int = 1) -> np.ndarray:
    """compute(x), float32 [B, C', H·scale, W·scale], of a map [B, C, H, W], where a place of the result depends on `sees` cells around it.

    Each tile is computed with so many cells more on each side, which are then cut off.
    """
    rows, columns = x.shape[2:]
    result = None
    for top, left in product(range(0, rows, tile), range(0, columns, tile)):
        above, before = min(sees, top), min(sees, left)
        part = x[:, :, top - above : top + tile + sees, left - before : left + tile + sees]
        part = compute(jt.array(part)).float32().numpy()[:, :, above * scale :, before * scale :][:, :, : tile * scale, : tile * scale]
        if result is None:
            result = np.empty((*part.shape[:2], rows * scale, columns * scale), np.float32)
        result[:, :, top * scale : (top + tile) * scale, left * scale : (left + tile) * scale] = part
    return result
