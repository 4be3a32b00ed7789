"""The variational autoencoder (Kingma & Welling 2014) of latent diffusion (Rombach et al. 2022). Names as diffusers' AutoencoderKL."""

import math
from dataclasses import dataclass, field
from itertools import pairwise, product

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.attention import SpatialAttention
from models.networks.layers import Conv2d, GroupNorm, autocast
from models.networks.recompute import recomputed
from models.networks.resnet import Downsample2D, ResnetBlock2D, Upsample2D

EPS = 1e-6  # of every group norm in the autoencoder
LOGVAR_RANGE = (-30.0, 20.0)  # the clamp that published weights were trained with


@dataclass
class AutoencoderKLConfig:
    """Fields of diffusers' config.json."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)  # one level each, finest first; every level but the last halves the size
    layers_per_block: int = 2  # residual blocks a level in the encoder; the decoder has one more
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float | None = 0.18215  # 1 / std of the latents over the training set; None: not measured yet
    down_block_types: tuple[str, ...] = field(init=False)  # the only kind of level there is here, but diffusers wants it named
    up_block_types: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        levels = len(self.block_out_channels)
        self.down_block_types = ("DownEncoderBlock2D",) * levels
        self.up_block_types = ("UpDecoderBlock2D",) * levels

    @property
    def downscale(self) -> int:
        """Pixels a side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)


class Level(nn.Module):
    """Residual blocks at one resolution: diffusers' DownEncoderBlock2D and UpDecoderBlock2D."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int):
        super().__init__()
        widths = [in_channels] + [out_channels] * layers
        self.resnets = nn.ModuleList([ResnetBlock2D(a, b, None, groups, EPS) for a, b in pairwise(widths)])

    def execute(self, x: jt.Var) -> jt.Var:
        for resnet in self.resnets:
            x = recomputed(resnet, x)
        return x


class MidBlock(nn.Module):
    """Residual block, self-attention, residual block, at the coarsest resolution."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock2D(channels, channels, None, groups, EPS) for _ in range(2)])
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups, EPS)])

    def execute(self, x: jt.Var) -> jt.Var:
        for layer in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x = recomputed(layer, x)
        return x


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(channels):
            level = Level(channels[max(i - 1, 0)], width, config.layers_per_block, groups)
            if i < len(channels) - 1:
                level.downsamplers = nn.ModuleList([Downsample2D(width, asymmetric=True)])
            self.down_blocks.append(level)
        self.mid_block = MidBlock(channels[-1], groups)
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS, silu=True)
        self.conv_out = Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.conv_in(x)  # [B, C_0, H, W]
        for i, level in enumerate(self.down_blocks):
            x = level(x)  # [B, C_i, H/2^i, W/2^i]
            if i < len(self.down_blocks) - 1:
                x = recomputed(level.downsamplers[0], x)
        x = self.mid_block(x)
        return self.conv_out(self.conv_norm_out(x))  # [B, 2·latent, H/f, W/f]


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups  # coarsest first
        self.conv_in = Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = MidBlock(channels[0], groups)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(channels):
            level = Level(channels[max(i - 1, 0)], width, config.layers_per_block + 1, groups)
            if i < len(channels) - 1:
                level.upsamplers = nn.ModuleList([Upsample2D(width)])
            self.up_blocks.append(level)
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS, silu=True)
        self.conv_out = Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def execute(self, z: jt.Var) -> jt.Var:
        x = self.mid_block(self.conv_in(z))  # [B, C_last, H/f, W/f]
        for i, level in enumerate(self.up_blocks):
            x = level(x)
            if i < len(self.up_blocks) - 1:
                x = recomputed(level.upsamplers[0], x)  # → [B, C_0, H, W]
        return self.conv_out(self.conv_norm_out(x))


class AutoencoderKL(nn.Module):
    """Pictures [B, 3, H, W] in −1..1 ↔ latents [B, 4, H/f, W/f] of about unit variance. H and W are multiples of f = `config.downscale`."""

    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        self._config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)

    @property
    def config(self) -> AutoencoderKLConfig:
        return self._config

    def posterior(self, x: jt.Var) -> tuple[jt.Var, jt.Var]:
        """Mean and log-variance [B, 4, H/f, W/f] of the unscaled latents' Gaussian, float32."""
        mean, logvar = self.quant_conv(self.encoder(x)).float32().chunk(2, dim=1)
        return mean, jt.clamp(logvar, *LOGVAR_RANGE)

    def reconstruct(self, z: jt.Var) -> jt.Var:
        """Unscaled latents [B, 4, H/f, W/f] → pictures [B, 3, H, W], float32, nominally −1..1 but not clipped."""
        return self.decoder(self.post_quant_conv(z)).float32()

    @autocast("float32")
    def encode(self, x: jt.Var) -> tuple[jt.Var, jt.Var]:
        """Mean and standard deviation [B, 4, H/f, W/f] of the latents' Gaussian, scaled to about unit variance.

        In float32, within `autocast` too: what is learnt of latents holds wherever they are encoded.
        """
        mean, logvar = self.posterior(x)
        return mean * self.config.scaling_factor, jt.exp(0.5 * logvar) * self.config.scaling_factor

    def decode(self, z: jt.Var) -> jt.Var:
        """Scaled latents [B, 4, H/f, W/f] → pictures [B, 3, H, W]."""
        return self.reconstruct(z / self.config.scaling_factor)

    def decode_in_tiles(self, z: jt.Var, tile: int) -> np.ndarray:
        """Scaled latents [B, 4, H/f, W/f] → pictures [B, 3, H, W], about those of `decode`, in the memory that one tile takes.

        Tiles have `tile` latent cells a side, or as many as there are, overlap by a quarter and more, and fade into each other linearly.
        Group norms see one tile alone and know nothing of the rest: the smaller the tiles, the more their tones drift apart.
        """
        f, (height, width) = self.config.downscale, (min(tile, cells) for cells in z.shape[2:])
        ramps = [np.minimum(np.arange(n), np.arange(n)[::-1]) + 1 for n in (height * f, width * f)]  # two of them add up to a constant
        weight = np.outer(*ramps).astype(np.float32)
        picture = np.zeros((z.shape[0], self.config.out_channels, z.shape[2] * f, z.shape[3] * f), np.float32)
        total = np.zeros_like(picture[0, 0])
        for top, left in product(tile_starts(z.shape[2], height), tile_starts(z.shape[3], width)):
            here = (..., slice(top * f, (top + height) * f), slice(left * f, (left + width) * f))
            picture[here] += weight * self.decode(z[:, :, top : top + height, left : left + width]).numpy()
            total[here] += weight
        return picture / total


def tile_starts(cells: int, tile: int) -> list[int]:
    """Where the fewest tiles begin that cover `cells` and overlap by a quarter, spread evenly."""
    count = 1 + math.ceil((cells - tile) / (tile * 3 / 4))
    return [round(start) for start in np.linspace(0, cells - tile, count)]
