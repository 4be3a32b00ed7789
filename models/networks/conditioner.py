"""What the UNet is told: the mask, which keeps its place, the reference photo, of which only the style is kept, and words.

Each condition has an encoder of its own, which gives a part of the `Conditions`; what several give of one kind is joined.

The mask reaches the UNet twice. The share of every class in each latent cell is concatenated to the noisy latents, so that a pier one
pixel of the working resolution wide is not lost in the 8-fold reduction, and features of a small convolutional encoder are added at the
input of every level (in the manner of T2I-Adapter, Mou et al. 2023).

The reference reaches it twice as well. Patches of its latents become tokens for cross-attention, without positions: a set of tokens
cannot say where anything was. Statistics of its colours and latents join the time embedding.

Words reach it twice too: the hidden states of a text encoder (models/networks/text_encoder.py), one for each token of the caption, stand
beside the reference's tokens, and the state at the end of the caption says what the statistics of a reference would be, which stands in for
them where none is told, in the linear start too. In training that is compared with the photo that is described.

Any condition can be left out for guidance, picture by picture: an unknown mask has no class anywhere, an unknown reference is one learnt
token (`LEFT_OUT`), and a caption that is not told is the empty one, for which the text encoder has states as for any other. A conditioner
whose configuration names fewer conditions does without their encoders.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from operator import add
from typing import NamedTuple

import jittor as jt
import numpy as np
from jittor import nn

from models.diffusion.schedule import NoiseSchedule
from models.networks.layers import Conv2d, LayerNorm, Linear, zeros_
from models.networks.linear_start import LinearStart, expected
from models.networks.pretrained import YOUNGER
from models.networks.recompute import recomputation, recomputed
from models.ops.kernels import on_cuda
from models.ops.one_hot import class_shares, one_hot, one_hot_conv
from models.ops.transpose import swap_last_axes

Given = dict[str, dict[str, np.ndarray | jt.Var]]  # for each condition, what its encoder takes, by the names of its arguments
UNKNOWN = 255  # mask value of a pixel without class


@dataclass
class ConditionerConfig:
    conditions: tuple[str, ...] = ("mask", "reference")  # keys of ENCODERS
    num_classes: int = 29
    downscale: int = 8  # pixels a side of one latent cell
    mask_channels: tuple[int, ...] = (32, 64, 128)  # of the mask encoder at 1/2, 1/4, … 1/downscale
    level_channels: tuple[int, ...] = (320, 320, 640, 1280)  # channels at the input of each UNet level
    latent_channels: int = 4
    patch_size: int = 4  # latent cells a side of one reference token
    cross_attention_dim: int = 768
    num_color_statistics: int = 54  # datasets.transforms.color_statistics
    linear_start: tuple[int, int] | None = None  # (h, w) of the latents that it is measured on; None: there is none
    for_painting: bool | None = field(default=None, metadata=YOUNGER)  # True: painting alone starts there, and the UNet predicts all
    text_channels: int | None = field(default=None, metadata=YOUNGER)  # of the text encoder's states; None: no words

    @property
    def num_statistics(self) -> int:
        """Length of the vector that joins the time embedding: mean and std of each latent channel, colours, and whether it is known."""
        return 2 * self.latent_channels + self.num_color_statistics + 1


class Conditions(NamedTuple):
    """What the UNet is told; what no condition gives is None."""

    shares: jt.Var | None = None  # of each class in each latent cell, [B, 29, h, w]: concatenated to the latents
    level_features: list[jt.Var] | None = None  # for each UNet level, finest first, [B, C_i, h/2^i, w/2^i]: added to its input
    tokens: jt.Var | None = None  # [B, M, cross_attention_dim]: attended to
    statistics: jt.Var | None = None  # [B, S]: joins the time embedding
    # What the latents are expected to be, mean and power [B, 4, h, w] each (models/networks/linear_start.py)
    prior: tuple[jt.Var, jt.Var] | None = None  # of which the UNet predicts the rest
    estimate: tuple[jt.Var, jt.Var] | None = None  # from which painting alone starts


def joined(parts: list[Conditions]) -> Conditions:
    """The parts that several encoders give as one: tokens side by side, all else added up."""

    first, *others = parts
    for other in others:
        first = Conditions(
            shares=together(first.shares, other.shares, add),
            level_features=together(first.level_features, other.level_features, lambda a, b: [x + y for x, y in zip(a, b, strict=True)]),
            tokens=together(first.tokens, other.tokens, lambda a, b: jt.concat([a, b], dim=1)),
            statistics=together(first.statistics, other.statistics, add),
        )
    return first


def together(a, b, join):
    """join(a, b) where both are given, else the one that is."""
    if a is None or b is None:
        return b if a is None else a
    return join(a, b)


class MaskConv2d(Conv2d):
    """A convolution of the one-hot maps of masks: uint8 [B, H, W] → [B, C_out, H', W']."""

    def execute(self, mask: jt.Var) -> jt.Var:
        if on_cuda():
            return super().execute(one_hot(mask, self.weight.shape[1]))
        return one_hot_conv(mask, self.weight, self.bias, self._stride, self._padding)


class MaskEncoder(nn.Module):
    """Masks uint8 [B, H, W], 0..28 and UNKNOWN where the class is not told → class shares, and one feature map a UNet level."""

    def __init__(self, config: ConditionerConfig):
        super().__init__()
        self._config = config
        if config.downscale != 2 ** len(config.mask_channels):
            raise ValueError(f"downscale is {config.downscale}, with {len(config.mask_channels)} mask_channels")
        widths = (config.num_classes, *config.mask_channels)
        first, *others = pairwise(widths)
        convs = [MaskConv2d(*first, 3, stride=2, padding=1), *(Conv2d(a, b, 3, stride=2, padding=1) for a, b in others)]
        self.reduce = nn.ModuleList(convs)
        width, levels = widths[-1], len(config.level_channels)
        self.downsample = nn.ModuleList([Conv2d(width, width, 3, stride=2, padding=1) for _ in range(levels - 1)])
        self.project = nn.ModuleList([zeros_(Conv2d(width, channels, 1)) for channels in config.level_channels])

    def execute(self, mask: jt.Var) -> Conditions:
        shares = class_shares(mask, self._config.num_classes, self._config.downscale)  # [B, 29, h, w]
        with recomputation(True):  # on CUDA by way of one-hot maps: quickly made, and 116 times as large as the mask
            x = nn.silu(recomputed(self.reduce[0], mask))  # [B, C_0, H/2, W/2]
        for conv in list(self.reduce)[1:]:
            x = nn.silu(conv(x))  # → [B, C, h, w]
        features = [self.project[0](x)]
        for downsample, project in zip(self.downsample, list(self.project)[1:], strict=True):
            x = nn.silu(downsample(x))
            features.append(project(x))
        return Conditions(shares=shares, level_features=features)


def reference_statistics(latents: jt.Var, colors: jt.Var, known: jt.Var) -> jt.Var:
    """[B, S] of latents [B, 4, h, w] and colours [B, 54] of photos: mean and standard deviation of each latent channel, the colours, and 1
    for a photo that is told; all of them 0 where `known` [B] is."""
    flat = latents.reshape(*latents.shape[:2], -1)  # [B, 4, hw]
    mean = flat.mean(dim=2)
    std = ((flat - mean.unsqueeze(2)).sqr().mean(dim=2) + 1e-6).sqrt()
    column = known.reshape(-1, 1)
    return jt.concat([jt.concat([mean, std, colors], dim=1) * column, column], dim=1)


class ReferenceEncoder(nn.Module):
    """Latents of the reference photo [B, 4, h, w], h and w multiples of the patch size, its colours and whether it is known → tokens and
    statistics. The (h/p)(w/p) tokens have no positions: they are a set."""

    def __init__(self, config: ConditionerConfig):
        super().__init__()
        dim, p = config.cross_attention_dim, config.patch_size
        self.patch_embed = Conv2d(config.latent_channels, dim, p, stride=p)
        self.fc1 = Linear(dim, dim)
        self.fc2 = Linear(dim, dim)
        self.norm = LayerNorm(dim)
        self.unknown_token = jt.randn(1, 1, dim)

    def execute(
        self,
        latents: jt.Var,
        colors: jt.Var,  # color statistics [B, 54]
        known: jt.Var,  # float32 [B], 1 where the reference is told, 0 where it is left out
    ) -> Conditions:
        return Conditions(tokens=self.tokens(latents, known.reshape(-1, 1, 1)), statistics=reference_statistics(latents, colors, known))

    def tokens(self, latents: jt.Var, known: jt.Var) -> jt.Var:
        x = self.patch_embed(latents)  # [B, D, h/p, w/p]
        x = swap_last_axes(x.reshape(x.shape[0], x.shape[1], -1))  # [B, N, D]
        x = x + self.fc2(nn.silu(self.fc1(x)))
        return self.norm(x) * known + self.unknown_token * (1 - known)


class WordsEncoder(nn.Module):
    """Hidden states of a caption's tokens [B, L, C], and of these that at its end [B, C] → tokens, and what the statistics of a photo that
    looks so are expected to be, as in `reference_statistics`.

    Where the UNet attends to as many channels as there are, the states start as they are: a published UNet knows them.
    """

    def __init__(self, config: ConditionerConfig):
        super().__init__()
        channels, dim = config.text_channels, config.cross_attention_dim
        self.project = Linear(channels, dim)
        if channels == dim:
            self.project.weight.update(jt.array(np.eye(dim, dtype=np.float32)))
            self.project.bias.update(jt.zeros(dim))
        self.pooled = zeros_(Linear(channels, config.num_statistics))

    def execute(self, states: jt.Var, pooled: jt.Var) -> Conditions:
        return Conditions(tokens=self.project(states).float32(), statistics=self.told_statistics(pooled))  # as the reference's are

    def told_statistics(self, pooled: jt.Var) -> jt.Var:
        return self.pooled(pooled).float32()


# By condition; what each is given, by the names of its arguments
ENCODERS = {"mask": MaskEncoder, "reference": ReferenceEncoder, "words": WordsEncoder}

# What a condition's encoder is given where the condition is left out; instead of words, those of the empty caption
LEFT_OUT = {
    "mask": lambda given: {"mask": np.full_like(given["mask"], UNKNOWN)},
    "reference": lambda given: given | {"known": np.zeros_like(given["known"])},
}


def as_var(x: np.ndarray | jt.Var) -> jt.Var:
    return x if isinstance(x, jt.Var) else jt.array(x)


class Conditioner(nn.Module):
    def __init__(self, config: ConditionerConfig):
        super().__init__()
        self._config = config
        for name in config.conditions:
            setattr(self, f"{name}_encoder", ENCODERS[name](config))
        if config.linear_start:
            self.linear_start = LinearStart(config.latent_channels, config.num_classes, config.linear_start)

    @property
    def config(self) -> ConditionerConfig:
        return self._config

    def execute(self, given: Given) -> Conditions:
        """`given`: for each condition of the configuration, the arrays that its encoder takes, or Vars to which a gradient goes."""
        parts = {}
        for name in self.config.conditions:
            arrays = {argument: as_var(array) for argument, array in given[name].items()}
            parts[name] = getattr(self, f"{name}_encoder")(**arrays)
        expected_mean = None
        if {"reference", "words"} <= parts.keys():  # one set of statistics, and not the sum of two
            told, unknown = parts["words"].statistics, 1 - as_var(given["reference"]["known"]).reshape(-1, 1)
            parts["words"] = parts["words"]._replace(statistics=told * unknown)
            expected_mean = self.expected_mean(told) if self.config.linear_start else None
        conditions = joined(list(parts.values()))
        if self.config.linear_start:
            latents, known = (jt.array(given["reference"][name]) for name in ("latents", "known"))
            mean = latents.reshape(*latents.shape[:2], -1).mean(dim=2)
            prior = self.linear_start.prior(conditions.shares, mean, known, expected_mean)
            conditions = conditions._replace(**{"estimate" if self.config.for_painting else "prior": prior})
        return conditions

    def expected_mean(self, told: jt.Var) -> jt.Var:
        """The mean of a picture's latents [B, 4] by the statistics [B, S] that words tell. The last of these is about 1 where a caption
        describes a photo and 0 for the empty one, for which the training set's mean stands. No gradient passes: photos teach words this."""
        told = told.detach()
        return told[:, : self.config.latent_channels] + self.linear_start.mean.unsqueeze(0) * (1 - told[:, -1:])


def denoise(
    unet,
    sample: jt.Var,  # noisy latents [B, 4, h, w]
    timestep: np.ndarray,  # [B]
    conditions: Conditions,
    schedule: NoiseSchedule,
    prediction_type: str,  # one of PREDICTION_TYPES
) -> jt.Var:
    """The prediction [B, 4, h, w] for noisy latents under a `Conditioner`'s conditions: the UNet's, and where they have a prior, its
    expectation, of which the UNet has learnt the rest."""
    inputs = sample if conditions.shares is None else jt.concat([sample, conditions.shares], dim=1)
    output = unet(inputs, timestep, conditions.tokens, class_labels=conditions.statistics, level_features=conditions.level_features)
    if conditions.prior is None:
        return output
    x0, noise = expected(sample, schedule.alpha(timestep), schedule.sigma(timestep), *conditions.prior)
    return output + schedule.target(x0, noise, timestep, prediction_type)
