"""What the UNet is told: the mask, which keeps its place, and the reference photo, of which only the style is kept.

The mask reaches the UNet twice. The share of every class in each latent cell is concatenated to the noisy latents, so that a pier one
pixel of the working resolution wide is not lost in the 8-fold reduction, and features of a small convolutional encoder are added at the
input of every level (in the manner of T2I-Adapter, Mou et al. 2023).

The reference reaches it twice as well. Patches of its latents become tokens for cross-attention, without positions: a set of tokens
cannot say where anything was. Statistics of its colours and latents join the time embedding.

Either condition can be left out for guidance: an unknown mask has no class anywhere, an unknown reference is one learnt token.
"""

from dataclasses import dataclass
from itertools import pairwise

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, LayerNorm, Linear, cell_means, zeros_
from models.networks.recompute import block, recomputation
from models.ops.transpose import swap_last_axes

UNKNOWN = 255  # mask value of a pixel without class


@dataclass
class ConditionerConfig:
    num_classes: int = 29
    downscale: int = 8  # pixels a side of one latent cell
    mask_channels: tuple[int, ...] = (32, 64, 128)  # of the mask encoder at 1/2, 1/4, … 1/downscale
    level_channels: tuple[int, ...] = (320, 320, 640, 1280)  # channels at the input of each UNet level
    latent_channels: int = 4
    patch_size: int = 4  # latent cells a side of one reference token
    cross_attention_dim: int = 768
    num_color_statistics: int = 54  # datasets.transforms.color_statistics

    @property
    def num_statistics(self) -> int:
        """Length of the vector that joins the time embedding: mean and std of each latent channel, colours, and whether it is known."""
        return 2 * self.latent_channels + self.num_color_statistics + 1


def one_hot(mask: jt.Var, num_classes: int) -> jt.Var:
    """uint8 [B, H, W] → float32 [B, num_classes, H, W]; no class where the mask is UNKNOWN."""
    classes = jt.array(np.arange(num_classes, dtype=np.uint8)).reshape(1, num_classes, 1, 1)
    return (mask.unsqueeze(1) == classes).float32()


class MaskConv2d(Conv2d):
    """A convolution of the one-hot maps of masks: uint8 [B, H, W] → [B, C_out, H', W']."""

    def execute(self, mask: jt.Var) -> jt.Var:
        return super().execute(one_hot(mask, self.weight.shape[1]))


class MaskEncoder(nn.Module):
    """Masks [B, H, W] → class shares [B, 29, h, w] and one feature map a UNet level, [B, C_i, h/2^i, w/2^i]."""

    def __init__(self, config: ConditionerConfig):
        super().__init__()
        self._config = config
        widths = (config.num_classes, *config.mask_channels)
        first, *others = pairwise(widths)
        convs = [MaskConv2d(*first, 3, stride=2, padding=1), *(Conv2d(a, b, 3, stride=2, padding=1) for a, b in others)]
        self.reduce = nn.ModuleList(convs)
        width, levels = widths[-1], len(config.level_channels)
        self.downsample = nn.ModuleList([Conv2d(width, width, 3, stride=2, padding=1) for _ in range(levels - 1)])
        self.project = nn.ModuleList([zeros_(Conv2d(width, channels, 1)) for channels in config.level_channels])

    def execute(self, mask: jt.Var) -> tuple[jt.Var, list[jt.Var]]:
        shares = cell_means(one_hot(mask, self._config.num_classes), self._config.downscale)  # [B, 29, h, w]
        with recomputation(True):  # one-hot maps are quickly made, and 116 times as large as the mask
            x = nn.silu(block(self.reduce[0], mask))  # [B, C_0, H/2, W/2]
        for conv in list(self.reduce)[1:]:
            x = nn.silu(conv(x))  # → [B, C, h, w]
        features = [self.project[0](x)]
        for downsample, project in zip(self.downsample, list(self.project)[1:], strict=True):
            x = nn.silu(downsample(x))
            features.append(project(x))
        return shares, features


class ReferenceEncoder(nn.Module):
    """Reference latents [B, 4, h, w] → tokens [B, (h/p)(w/p), cross_attention_dim]. No positions: the tokens are a set."""

    def __init__(self, config: ConditionerConfig):
        super().__init__()
        dim, p = config.cross_attention_dim, config.patch_size
        self.patch_embed = Conv2d(config.latent_channels, dim, p, stride=p)
        self.fc1 = Linear(dim, dim)
        self.fc2 = Linear(dim, dim)
        self.norm = LayerNorm(dim)
        self.unknown_token = jt.randn(1, 1, dim)

    def execute(self, latents: jt.Var, known: jt.Var) -> jt.Var:
        x = self.patch_embed(latents)  # [B, D, h/p, w/p]
        x = swap_last_axes(x.reshape(x.shape[0], x.shape[1], -1))  # [B, N, D]
        x = x + self.fc2(nn.silu(self.fc1(x)))
        known = known.reshape(-1, 1, 1)
        return self.norm(x) * known + self.unknown_token * (1 - known)


class Conditioner(nn.Module):
    def __init__(self, config: ConditionerConfig):
        super().__init__()
        self._config = config
        self.mask_encoder = MaskEncoder(config)
        self.reference_encoder = ReferenceEncoder(config)

    @property
    def config(self) -> ConditionerConfig:
        return self._config

    def execute(
        self,
        mask: jt.Var,  # uint8 [B, H, W]: 0..28, UNKNOWN where the class is not told
        reference: jt.Var,  # latents of the reference photo [B, 4, h', w'], h' and w' multiples of the patch size
        colors: jt.Var,  # color statistics of the reference photo [B, 54]
        known: np.ndarray,  # [B], 1 where the reference is told, 0 where it is left out
    ) -> dict[str, jt.Var]:
        """Returns the UNet's conditions by the name of its argument, and `shares` [B, 29, h, w], to be concatenated to the latents."""
        known = jt.array(np.asarray(known, np.float32))
        shares, level_features = self.mask_encoder(mask)
        flat = reference.reshape(*reference.shape[:2], -1)  # [B, 4, h'w']
        mean = flat.mean(dim=2)
        std = ((flat - mean.unsqueeze(2)).sqr().mean(dim=2) + 1e-6).sqrt()
        column = known.reshape(-1, 1)
        statistics = jt.concat([jt.concat([mean, std, colors], dim=1) * column, column], dim=1)
        return {
            "shares": shares,
            "level_features": level_features,
            "encoder_hidden_states": self.reference_encoder(reference, known),
            "class_labels": statistics,
        }


def denoise(unet, sample: jt.Var, timestep: np.ndarray, conditions: dict[str, jt.Var]) -> jt.Var:
    """The UNet's prediction [B, 4, h, w] for noisy latents of the same shape under a `Conditioner`'s conditions."""
    conditions = dict(conditions)
    return unet(jt.concat([sample, conditions.pop("shares")], dim=1), timestep, **conditions)
