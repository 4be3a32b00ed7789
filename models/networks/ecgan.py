"""ECGAN (Tang et al. 2020, "Edge guided GANs with contrastive learning for semantic image synthesis"): a mask and a reference photo in, a
picture out.

The features that SPADE blocks make of the mask and of a style vector go two ways: one paints edges, the other the picture, and what the
first knows of edges strengthens the second. Then the picture is painted once more, from all of that and the mask. Without `edge_branch` it
is a plain SPADE generator with a style encoder (Park et al. 2019).

A style is above all which channels are strong. Instance norm takes just that away, in every block; batch norm, as published, keeps it and
needs large batches; normalisation by groups of channels keeps most of it and needs none.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import jittor as jt
from jittor import nn

from models.networks.conditioner import one_hot
from models.networks.discriminators import SpectralConv2d
from models.networks.layers import Conv2d, Linear, leaky_relu, standardize, upsample_nearest
from models.networks.recompute import recomputed
from models.networks.spade import SPADEResBlock

FIRST_LOGVAR = -4.0  # of styles at the start: drowned in noise, they would be overlooked
LOGVAR_BOUND = 10.0  # log-variances of styles are kept within ±10, so that samples and the KL stay bounded


@dataclass
class ECGANConfig:
    size: tuple[int, int] = (512, 384)  # (width, height) of the pictures
    num_classes: int = 29
    channels: tuple[int, ...] = (1024, 1024, 1024, 512, 256, 128, 64)  # of the blocks; from one to the next the size is doubled
    hidden: int = 128  # channels inside SPADE
    norm: str = "group"  # of SPADE, one of layers.NORMS; published: batch
    edge_branch: bool = True  # edges, and a second picture that is refined by the mask; False: a plain SPADE generator
    style: int = 256  # length of the style vector
    style_channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512)  # of the style encoder's convolutions, each of which halves the size
    style_size: int = 256  # pixels a side of the reference as the style encoder sees it
    style_norm: str = "group"  # of the style encoder, one of layers.NORMS; published: instance

    @property
    def first(self) -> tuple[int, int]:
        """(height, width) of the first block's features."""
        factor = 2 ** (len(self.channels) - 1)
        return self.size[1] // factor, self.size[0] // factor


class Painted(NamedTuple):
    """Pictures [B, 3, H, W]. Without an edge branch there is no edge, and image and result are the same."""

    result: jt.Var  # −1..1
    image: jt.Var  # what it was refined from, −1.74..1.74
    edge: jt.Var | None  # −1..1, as `datasets.transforms.edge_map` has them
    features: jt.Var  # [B, channels[-1], H, W], of which all of these were made


class StyleEncoder(nn.Module):
    """References [B, 3, S, S] in −1..1 → mean and log-variance of their styles, [B, style] each (Park et al. 2019, figure 15).

    Here too instance norm, as published, would take away the mean and contrast of colours (Huang et al. 2018, "Multimodal unsupervised
    image-to-image translation", section 5.1).
    """

    def __init__(self, config: ECGANConfig):
        super().__init__()
        widths, last = pairwise((3, *config.style_channels)), config.style_size >> len(config.style_channels)
        self.convs = nn.ModuleList([SpectralConv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in widths])
        inputs = config.style_channels[-1] * last**2
        self.fc_mu, self.fc_var = Linear(inputs, config.style), Linear(inputs, config.style)
        self.fc_var.bias.update(self.fc_var.bias + FIRST_LOGVAR)
        self._norm = config.style_norm

    def execute(self, reference: jt.Var) -> tuple[jt.Var, jt.Var]:
        x = reference
        for conv in self.convs:
            x = leaky_relu(standardize(conv(x), self._norm))
        x = x.reshape(x.shape[0], -1)
        return self.fc_mu(x).float32(), jt.clamp(self.fc_var(x).float32(), -LOGVAR_BOUND, LOGVAR_BOUND)


class EdgeGuidedBranches(nn.Module):
    """Features [B, C, H, W] → edge and image [B, 3, H, W]. Three times the image's features are strengthened where the edge's are strong
    (equations 1 to 4)."""

    def __init__(self, channels: int):
        super().__init__()
        widths = (channels, channels // 2, channels // 4, channels // 8, 3)
        self.edge = nn.ModuleList([Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)])
        self.image = nn.ModuleList([Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)])

    def execute(self, features: jt.Var) -> tuple[jt.Var, jt.Var]:
        edge = image = features
        for i in range(3):
            edge, image = self.edge[i](leaky_relu(edge)), self.image[i](leaky_relu(image))
            image = image + image * jt.sigmoid(edge)
        edge = picture_of(self.edge[3], edge)
        return edge, picture_of(self.image[3], image) * (1 + jt.sigmoid(edge))


class SemanticRefinement(nn.Module):
    """Features, image, edge and one-hot mask side by side, [B, C, H, W] → [B, 3, H, W], by way of one channel a class; each is weighted
    by its mean (equation 5)."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.squeeze = Conv2d(channels, num_classes, 3, padding=1)
        self.expand = Conv2d(num_classes, channels, 3, padding=1)
        self.paint = Conv2d(channels, 3, 3, padding=1)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.squeeze(leaky_relu(x))
        x = x * (1 + jt.sigmoid(x.float32().mean(dims=(2, 3), keepdims=True)))
        return picture_of(self.paint, self.expand(leaky_relu(x)))


def spread_evenly(fc: Linear, channels: int) -> Linear:
    """Starts a linear map to features [channels, h, w] with the same weights for all places: at first a style is the same everywhere."""
    rows, style = fc.weight.shape
    first = Linear(style, channels).weight.reshape(channels, 1, style)
    fc.weight.update(first.broadcast([channels, rows // channels, style]).reshape(rows, style))
    return fc


def picture_of(conv: Conv2d, x: jt.Var) -> jt.Var:
    """[B, C, H, W] → [B, 3, H, W] in −1..1, float32."""
    return jt.tanh(conv(leaky_relu(x)).float32())


class ECGAN(nn.Module):
    def __init__(self, config: ECGANConfig):
        super().__init__()
        self._config = config
        for sides, halvings in ((config.size, len(config.channels) - 1), ((config.style_size,), len(config.style_channels))):
            if any(side < 1 or side % 2**halvings for side in sides):
                raise ValueError(f"a picture of {sides} pixels cannot be halved {halvings} times")
        widths, classes = config.channels, config.num_classes
        self.encoder = StyleEncoder(config)
        self.fc = spread_evenly(Linear(config.style, widths[0] * config.first[0] * config.first[1]), widths[0])
        pairs = pairwise((widths[0], *widths))
        self.blocks = nn.ModuleList([SPADEResBlock(a, b, classes, config.norm, config.hidden) for a, b in pairs])
        if config.edge_branch:
            self.branches = EdgeGuidedBranches(widths[-1])
            self.refinement = SemanticRefinement(widths[-1] + 6 + classes, classes)
        else:
            self.conv_img = Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def config(self) -> ECGANConfig:
        return self._config

    def execute(self, mask: jt.Var, style: jt.Var) -> Painted:
        """mask: uint8 [B, H, W], values 0..28; style: [B, style], as sampled from what the encoder says of a reference."""
        label = one_hot(mask, self.config.num_classes)
        x = self.fc(style).reshape(-1, self.config.channels[0], *self.config.first)
        for i, block in enumerate(self.blocks):
            x = recomputed(block, upsample_nearest(x, 2) if i else x, label.uint8())
        if not self.config.edge_branch:
            image = picture_of(self.conv_img, x)
            return Painted(image, image, None, x)
        edge, image = self.branches(x)
        result = self.refinement(jt.concat([x.float32(), image, edge, label], dim=1))
        return Painted(result, image, edge, x)


def sampled(mean: jt.Var, logvar: jt.Var, noise: jt.Var) -> jt.Var:
    """A style vector for each mean, log-variance and normal noise [B, style]."""
    return mean + (0.5 * logvar).exp() * noise


class PixelProjection(nn.Module):
    """Features of pixels [M, C] → [M, D] of length 1, in which pixels of a class are to lie together."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.fc1, self.fc2 = Linear(channels, channels), Linear(channels, dim)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.fc2(leaky_relu(self.fc1(x), 0)).float32()
        return x / (x.sqr().sum(dim=1, keepdims=True) + 1e-6).sqrt()
