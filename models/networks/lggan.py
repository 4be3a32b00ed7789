"""The generator of LGGAN with semantic-aware upsampling: a picture from a mask alone (Tang et al. 2020, "Local class-specific and global
image-level generative adversarial networks", and 2022, "Local and global GANs with semantic-aware upsampling").

Two branches paint the whole picture. The global one has seen all of it at once; the local one paints each class with weights of its own.
A third weighs them against each other at every pixel.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.conditioner import one_hot
from models.networks.layers import Conv2d, Linear, leaky_relu, resize_nearest, standardize, upsample_nearest
from models.networks.recompute import recomputed
from models.networks.spade import SPADEResBlock
from models.ops.class_conv import class_conv
from models.ops.reassembly import reassemble

DOWNSCALE = 32  # from the picture to where the global branch begins
TAPS = 5  # a side, of the kernels that semantic-aware upsampling makes for every pixel


@dataclass
class LGGANConfig:
    num_classes: int = 29
    channels: int = 64  # of the finest maps; SPADE's hidden maps have twice as many, the coarsest maps 16 times as many
    blocks: int = 9  # residual blocks of the local branch
    norm: str = "instance"  # of SPADE, one of `layers.NORMS`


class Painted(NamedTuple):
    """What the generator makes of masks; all pictures are in −1..1."""

    final: jt.Var  # [B, 3, H, W]: of these two a weighted mean
    global_: jt.Var  # [B, 3, H, W]
    local: jt.Var  # [B, 3, H, W]
    classes: jt.Var  # [B, 29, 3, H, W]: what each class alone makes
    logits: jt.Var  # [B, 29, 29]: which class the features of each class seem to be of

    @property
    def pictures(self) -> tuple[jt.Var, jt.Var, jt.Var]:
        return self.final, self.global_, self.local


def reflect(x: jt.Var, margin: int) -> jt.Var:
    """[B, C, H, W] → [B, C, H + 2 · margin, W + 2 · margin], continued as in a mirror."""
    return nn.ReflectionPad2d(margin)(x)


def normed(x: jt.Var) -> jt.Var:
    """Instance norm without weights, and ReLU."""
    return leaky_relu(standardize(x, "instance"), 0)


class ReflectConv2d(Conv2d):
    """A convolution that keeps the size, of odd kernel size, with its picture continued as in a mirror."""

    def execute(self, x: jt.Var) -> jt.Var:
        return super().execute(reflect(x, self.weight.shape[-1] // 2))


class ClassConv2d(Conv2d):
    """For each class of a mask a convolution of its own, of the features that lie in it: [B, C, H, W] and uint8 [B, H, W] →
    [B, classes · C_out, H, W]. Features and mask are continued as in a mirror."""

    def __init__(self, classes: int, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels, classes * out_channels, kernel_size)
        self._classes = classes

    def execute(self, x: jt.Var, mask: jt.Var) -> jt.Var:
        margin = self.weight.shape[-1] // 2
        weight = self.weight.reshape(self._classes, -1, *self.weight.shape[1:])
        y = class_conv(reflect(x, margin), reflect(mask.unsqueeze(1), margin).squeeze(1), weight)
        return y + self.bias.reshape(1, -1, 1, 1)


class SemanticAwareUpsampling(nn.Module):
    """[B, C, h, w] → [B, C/2, 2h, 2w], each pixel a mean of those around it, weighted as the features there say (Tang et al. 2022)."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.compress = Conv2d(channels, hidden, 1)
        self.encode = Conv2d(hidden, 4 * TAPS**2, 1)
        self.project = Conv2d(channels, channels // 2, 1)

    def execute(self, x: jt.Var) -> jt.Var:
        kernels = nn.PixelShuffle(2)(self.encode(self.compress(x)))  # [B, TAPS², 2h, 2w]
        return self.project(reassemble(x, nn.softmax(kernels.float32(), dim=1)))


class Doubling(nn.Module):
    """[B, C, h, w] → [B, C/4, 4h, 4w] by two semantic-aware upsamplings, each with instance norm and ReLU."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.upsamplings = nn.ModuleList([SemanticAwareUpsampling(width, hidden) for width in (channels, channels // 2)])

    def execute(self, x: jt.Var) -> jt.Var:
        for upsampling in self.upsamplings:
            x = normed(recomputed(upsampling, x))
        return x


class ResidualBlock(nn.Module):
    """[B, C, H, W] → [B, C, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_0 = ReflectConv2d(channels, channels, 3)
        self.conv_1 = ReflectConv2d(channels, channels, 3)

    def execute(self, x: jt.Var) -> jt.Var:
        return x + standardize(self.conv_1(normed(self.conv_0(x))), "instance")


class Encoder(nn.Module):
    """One-hot masks [B, 29, H, W] → features [B, 4C, H/4, W/4] for all branches, and [B, 16C, H/16, W/16] for the global one."""

    def __init__(self, config: LGGANConfig):
        super().__init__()
        widths = [config.channels * 2**i for i in range(5)]
        downsamplings = [Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)]
        self.convs = nn.ModuleList([ReflectConv2d(config.num_classes, config.channels, 7), *downsamplings])

    def execute(self, label: jt.Var) -> tuple[jt.Var, jt.Var]:
        x, maps = label, []
        for conv in self.convs:
            x = normed(recomputed(conv, x))
            maps.append(x)
        return maps[2], maps[4]


class GlobalBranch(nn.Module):
    """Features [B, 16C, H/16, W/16] and one-hot masks [B, 29, H, W] → pictures [B, 3, H, W]."""

    def __init__(self, config: LGGANConfig):
        super().__init__()
        widths = [config.channels * factor for factor in (16, 16, 16, 16, 8, 4, 2, 1)]
        self.blocks = nn.ModuleList(
            [SPADEResBlock(a, b, config.num_classes, config.norm, hidden=2 * config.channels) for a, b in pairwise(widths)]
        )
        self.conv_img = Conv2d(config.channels, 3, 3, padding=1)

    def execute(self, x: jt.Var, label: jt.Var) -> jt.Var:
        x, label = resize_nearest(x, label.shape[2] // DOWNSCALE, label.shape[3] // DOWNSCALE), label.uint8()  # which needs no gradient
        for i, block in enumerate(self.blocks):
            x = recomputed(block, x if i in (0, 2) else upsample_nearest(x, 2), label)
        return jt.tanh(self.conv_img(leaky_relu(x)).float32())


class LocalBranch(nn.Module):
    """Features [B, 4C, H/4, W/4] and masks uint8 [B, H, W] → pictures [B, 3, H, W], what each class alone makes of them
    [B, 29 · 3, H, W], and the features that it makes this of [B, C, H, W]."""

    def __init__(self, config: LGGANConfig):
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(4 * config.channels) for _ in range(config.blocks)])
        self.doubling = Doubling(4 * config.channels, config.channels)
        self.class_convs = ClassConv2d(config.num_classes, config.channels, 3, 7)
        self.conv_img = Conv2d(3 * config.num_classes, 3, 3, padding=1)

    def execute(self, x: jt.Var, mask: jt.Var) -> tuple[jt.Var, jt.Var, jt.Var]:
        for block in self.blocks:
            x = recomputed(block, x)
        features = self.doubling(x)
        classes = jt.tanh(self.class_convs(features, mask).float32())
        return jt.tanh(self.conv_img(classes).float32()), classes, features.float32()


class LGGAN(nn.Module):
    """The generator: masks uint8 [B, H, W], H and W multiples of 32 → what is `Painted`."""

    def __init__(self, config: LGGANConfig):
        super().__init__()
        self._config = config
        self.encoder = Encoder(config)
        self.global_branch = GlobalBranch(config)
        self.local_branch = LocalBranch(config)
        self.class_head = Linear(config.channels, config.num_classes)
        self.fusion = Doubling(4 * config.channels, config.channels)
        self.fusion_weights = Conv2d(config.channels, 2, 1)

    @property
    def config(self) -> LGGANConfig:
        return self._config

    def execute(self, mask: np.ndarray | jt.Var) -> Painted:
        mask = jt.array(mask)
        label = one_hot(mask, self._config.num_classes)  # [B, 29, H, W]
        shared, deep = self.encoder(label)
        global_ = self.global_branch(deep, label)
        local, classes, features = self.local_branch(shared, mask)
        weights = nn.softmax(self.fusion_weights(self.fusion(shared)).float32(), dim=1)
        final = weights[:, :1] * local + weights[:, 1:] * global_
        b, _, h, w = label.shape
        return Painted(final, global_, local, classes.reshape(b, -1, 3, h, w), self.class_head(class_means(features, label)))


def class_means(features: jt.Var, label: jt.Var) -> jt.Var:
    """Means over the whole picture of features [B, C, H, W] as each class alone has them, by one-hot masks [B, N, H, W] → [B, N, C]."""
    (b, n, *size), c = label.shape, features.shape[1]
    area = math.prod(size)
    # a product for each picture: Jittor multiplies only pairs of matrices fast
    products = [nn.matmul_transpose(label[i].reshape(n, area), features[i].reshape(c, area)) for i in range(b)]
    return jt.stack(products) / area
