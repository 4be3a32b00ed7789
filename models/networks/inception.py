"""The Inception v3 of the Fréchet Inception Distance (Szegedy et al. 2016; Heusel et al. 2017), as pytorch-fid ported it from TensorFlow.

It differs from the Inception of torchvision in its weights, in average pooling, which does not count the zeros around the map, and in the
last block, which pools the maximum. Distances are comparable only between features of these very weights. Names as torchvision's, whose
Inception pytorch-fid fills. Inference only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Linear
from models.networks.weights import INCEPTION, SOURCES
from utils.checkpoint import load_frozen, read_weights
from utils.errors import UserError

FEATURES = 2048  # channels of the last block
SIZE = 299  # height and width of what the network takes
EPS = 1e-3  # of every batch norm


class Convolution(nn.Module):
    """[B, C_in, H, W] → [B, C_out, H', W'], without bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], stride: int, padding: tuple[int, int]):
        super().__init__()
        self.weight = jt.zeros((out_channels, in_channels, *kernel_size))
        self._stride, self._padding = stride, padding

    def execute(self, x: jt.Var) -> jt.Var:
        return nn.conv2d(x, self.weight, None, self._stride, self._padding)


class BatchNorm(nn.Module):
    """Batch norm of [B, C, H, W] by the stored statistics (Ioffe & Szegedy 2015), followed by ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = jt.ones(channels), jt.zeros(channels)
        self.running_mean, self.running_var = jt.zeros(channels), jt.ones(channels)

    def execute(self, x: jt.Var) -> jt.Var:
        scale = self.weight / jt.sqrt(self.running_var + EPS)
        shift = self.bias - self.running_mean * scale
        return nn.relu(x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU. Zeros around the map keep its size, or there are none (`padded` False)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], stride: int = 1, padded: bool = True):
        super().__init__()
        kernel = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        self.conv = Convolution(in_channels, out_channels, kernel, stride, (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0))
        self.bn = BatchNorm(out_channels)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.bn(self.conv(x))


def average_pool(x: jt.Var) -> jt.Var:
    """The mean of each 3x3 neighbourhood of [B, C, H, W]; where the border cuts it, of what is left."""
    # Only with ceil_mode, which changes nothing at stride 1, does Jittor heed count_include_pad.
    return nn.avg_pool2d(x, 3, 1, 1, ceil_mode=True, count_include_pad=False)


def maximum_pool(x: jt.Var) -> jt.Var:
    """The maximum of each 3x3 neighbourhood of [B, C, H, W]."""
    return nn.max_pool2d(x, 3, 1, 1)


def halve(x: jt.Var) -> jt.Var:
    """The maximum of every other 3x3 neighbourhood: [B, C, H, W] → [B, C, (H − 1) // 2, (W − 1) // 2]."""
    return nn.max_pool2d(x, 3, 2)


class InceptionA(nn.Module):
    """[B, C_in, H, W] → [B, 224 + C_pool, H, W]."""

    def __init__(self, in_channels: int, pool_features: int):
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 64, 1)
        self.branch5x5_1 = BasicConv2d(in_channels, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(in_channels, pool_features, 1)

    def execute(self, x: jt.Var) -> jt.Var:
        once = self.branch5x5_2(self.branch5x5_1(x))
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jt.concat([self.branch1x1(x), once, twice, self.branch_pool(average_pool(x))], dim=1)


class InceptionB(nn.Module):
    """[B, C_in, H, W] → [B, 480 + C_in, (H − 1) // 2, (W − 1) // 2]."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3 = BasicConv2d(in_channels, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2, padded=False)

    def execute(self, x: jt.Var) -> jt.Var:
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jt.concat([self.branch3x3(x), twice, halve(x)], dim=1)


class InceptionC(nn.Module):
    """[B, C_in, H, W] → [B, 768, H, W], over 7x7 neighbourhoods in rows and columns of `channels_7x7` channels."""

    def __init__(self, in_channels: int, channels_7x7: int):
        super().__init__()
        c = channels_7x7
        self.branch1x1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7_1 = BasicConv2d(in_channels, c, 1)
        self.branch7x7_2 = BasicConv2d(c, c, (1, 7))
        self.branch7x7_3 = BasicConv2d(c, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(in_channels, c, 1)
        self.branch7x7dbl_2 = BasicConv2d(c, c, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(c, c, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(c, c, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(c, 192, (1, 7))
        self.branch_pool = BasicConv2d(in_channels, 192, 1)

    def execute(self, x: jt.Var) -> jt.Var:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return jt.concat([self.branch1x1(x), once, twice, self.branch_pool(average_pool(x))], dim=1)


class InceptionD(nn.Module):
    """[B, C_in, H, W] → [B, 512 + C_in, (H − 1) // 2, (W − 1) // 2]."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = BasicConv2d(in_channels, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2, padded=False)

    def execute(self, x: jt.Var) -> jt.Var:
        small = self.branch3x3_2(self.branch3x3_1(x))
        large = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return jt.concat([small, large, halve(x)], dim=1)


class InceptionE(nn.Module):
    """[B, C_in, H, W] → [B, 2048, H, W]; `pool` smooths what the last branch sees."""

    def __init__(self, in_channels: int, pool: Callable[[jt.Var], jt.Var]):
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 320, 1)
        self.branch3x3_1 = BasicConv2d(in_channels, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(in_channels, 192, 1)
        self._pool = pool

    def execute(self, x: jt.Var) -> jt.Var:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        crosses = [self.branch3x3_2a(once), self.branch3x3_2b(once), self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return jt.concat([self.branch1x1(x), *crosses, self.branch_pool(self._pool(x))], dim=1)


class Inception(nn.Module):
    """Pictures [B, 3, 299, 299] in −1..1 → features [B, 2048], zero or more."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padded=False)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, average_pool)
        self.Mixed_7c = InceptionE(2048, maximum_pool)
        # Never computed. Its 1008 classes are all that tells a file of these weights from one of ImageNet's, with 1000.
        self.fc = Linear(FEATURES, 1008)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # [B, 64, 147, 147]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x)))  # [B, 192, 71, 71]
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halve(x))))  # [B, 288, 35, 35]
        x = self.Mixed_6a(x)  # [B, 768, 17, 17]
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # [B, 2048, 8, 8]
        return x.mean([2, 3])  # [B, 2048]


def load_inception(path: str | Path) -> Inception:
    """The network with pytorch-fid's weights. They take no gradients. Raises UserError."""
    network = Inception()
    try:
        load_frozen(network, read_weights(path), path)
    except UserError as error:
        raise UserError(f"{error}\nFID and KID need the weights {SOURCES[INCEPTION]}{INCEPTION}") from error
    return network


def preprocess(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [H, W, 3], which may differ in size → [B, 3, 299, 299], float32 in −1..1. Raises ValueError for anything else.

    Interpolated between neighbours, not averaged where they shrink: so the published distances are computed.
    """
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"Inception takes pictures uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    resized = [cv2.resize(np.float32(picture) / 255, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for picture in pictures]
    return np.ascontiguousarray(2 * np.stack(resized).transpose(0, 3, 1, 2) - 1)


def inception_features(network: Inception, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The features, float32 [B, 2048], of pictures uint8 [H, W, 3] of any sizes. Raises ValueError for anything else."""
    with jt.no_grad():
        return network(jt.array(preprocess(pictures))).numpy()
