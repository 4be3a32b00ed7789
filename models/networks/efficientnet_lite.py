"""EfficientNet-lite 0 and 1 (Tan & Le 2019, in the form for phones: no squeeze-and-excitation, ReLU6 in place of swish).

A classifier of ImageNet whose features serve to compare pictures. Names and padding as in the package efficientnet-lite-pytorch. Each batch
norm is folded into the convolution before it when the weights are loaded, so a convolution here has a bias and there is no batch norm.
The weights take no gradients, pictures do. All is computed in float32, within `autocast` too: in 16 bits the gradients would be rough.
Inside, channels come last: 1x1 convolutions, which are most of the work, are linear maps.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, Linear, autocast, freeze
from models.ops.depthwise_conv import depthwise_conv
from models.ops.transpose import swap_last_axes
from utils.checkpoint import check_fit, load_strict, read_weights

LITE = {"lite0": (1.0, 224), "lite1": (1.1, 240)}  # how many times deeper than the table, and the resolution of its training
BLOCKS = (  # one after the other: how many, kernel size, stride of the first, expansion of the channels inside, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32  # channels before the blocks; these, the first and the last row of BLOCKS, and FEATURES are never scaled
FEATURES = 1280  # channels of the last map
EPS = 1e-3  # of every batch norm
SIZE = (256, 192)  # (width, height) to which pictures are resized before they are compared


def same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, such that ⌈length / stride⌉ places come out: TensorFlow's "SAME"."""
    total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def relu6(x: jt.Var) -> jt.Var:
    return jt.minimum(jt.maximum(x, 0.0), 6.0)


class DepthwiseConv(nn.Module):
    """[B, H, W, C] → [B, H', W', C], each channel by a kernel of its own."""

    def __init__(self, channels: int, size: int, stride: int, padding: tuple[int, int]):
        super().__init__()
        self.weight, self.bias = jt.zeros((channels, 1, size, size)), jt.zeros(channels)
        self._stride, self._padding = stride, padding

    def execute(self, x: jt.Var) -> jt.Var:
        return depthwise_conv(x, self.weight, self.bias, self._stride, self._padding)


class MBConvBlock(nn.Module):
    """[B, H, W, C_in] → [B, H', W', C_out]: more channels, a depthwise convolution, fewer channels (Sandler et al. 2018)."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, size: int, stride: int, padding: tuple[int, int]):
        super().__init__()
        channels = in_channels * expansion
        self._expand_conv = Linear(in_channels, channels) if expansion > 1 else None
        self._depthwise_conv = DepthwiseConv(channels, size, stride, padding)
        self._project_conv = Linear(channels, out_channels)
        self._residual = stride == 1 and in_channels == out_channels

    def execute(self, x: jt.Var) -> jt.Var:
        y = x if self._expand_conv is None else relu6(self._expand_conv(x))
        y = self._project_conv(relu6(self._depthwise_conv(y)))
        return x + y if self._residual else y


class EfficientNetLite(nn.Module):
    """Pictures [B, 3, H, W] in 0..1, 32 pixels a side or more → features [B, 1280], 0..6; `which` is a key of LITE."""

    def __init__(self, which: str):
        super().__init__()
        depth, length = LITE[which]
        # Zeros are those that fit pictures of the training's resolution, whatever the picture's: so the package has it.
        self._padding = same_padding(length, 3, 2)
        self._conv_stem = Conv2d(3, STEM, 3, stride=2)
        length, channels = math.ceil(length / 2), STEM
        self._blocks = nn.ModuleList()
        for row, (count, size, stride, expansion, out_channels) in enumerate(BLOCKS):
            scaled = 0 < row < len(BLOCKS) - 1
            for i in range(math.ceil(depth * count) if scaled else count):
                step = stride if i == 0 else 1
                padding = same_padding(length, size, step)
                self._blocks.append(MBConvBlock(channels, out_channels, expansion, size, step, padding))
                length, channels = math.ceil(length / step), out_channels
        self._conv_head = Linear(channels, FEATURES)

    @autocast("float32")
    def features(self, x: jt.Var, blocks: Sequence[int]) -> list[jt.Var]:
        """The maps [B, C, H', W'] that these of the blocks put out, in ascending order; the first block is 0, none after the last is run.

        Of lite1 the blocks 2, 5, 9 and 16 give 24, 40, 80 and 192 channels at 1/4, 1/8, 1/16 and 1/32 of the size.
        """
        maps, x = [], self._stem(x)
        for i in range(max(blocks) + 1):
            x = self._blocks[i](x)
            if i in blocks:
                b, h, w, c = x.shape
                maps.append(swap_last_axes(x.reshape(b, h * w, c)).reshape(b, c, h, w))
        return maps

    @autocast("float32")
    def execute(self, x: jt.Var) -> jt.Var:
        x = self._stem(x)
        for block in self._blocks:
            x = block(x)
        return relu6(self._conv_head(x)).mean(dims=(1, 2))

    def _stem(self, x: jt.Var) -> jt.Var:
        """[B, 3, H, W] → [B, H/2, W/2, 32]."""
        x = nn.pad((255 * x.float32() - 127) / 128, self._padding * 2)
        x = relu6(self._conv_stem(x))
        b, c, h, w = x.shape
        return swap_last_axes(x.reshape(b, c, h * w)).reshape(b, h, w, c)


NORM_AFTER = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}


def fold_batch_norms(shapes: Mapping[str, Sequence[int]], arrays: Mapping[str, np.ndarray], source: str | Path) -> dict[str, np.ndarray]:
    """Weights and biases of the network's `shapes` from the published arrays: y = γ (w·x − μ) / √(σ² + ε) + β is one convolution.

    The classifier, `_fc`, is left out. Raises UserError naming what is missing, unexpected or of another shape; `source` is where from.
    """
    norms = {}  # of each convolution
    published = {"_fc.weight": (1000, FEATURES), "_fc.bias": (1000,)}
    for name in (name.removesuffix(".weight") for name in shapes if name.endswith(".weight")):
        prefix, dot, convolution = name.rpartition(".")
        norms[name] = prefix + dot + NORM_AFTER[convolution]
        out_channels, *rest = shapes[f"{name}.weight"]
        published[f"{name}.weight"] = (out_channels, *rest, 1, 1)[:4]  # linear maps are 1x1 convolutions
        published |= {f"{norms[name]}.{part}": (out_channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")}
    check_fit(published, arrays, source, "EfficientNet-lite")
    folded = {}
    for name, norm in norms.items():
        scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + EPS)
        folded[f"{name}.weight"] = (arrays[f"{name}.weight"] * scale.reshape(-1, 1, 1, 1)).reshape(shapes[f"{name}.weight"])
        folded[f"{name}.bias"] = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale
    return folded


def load_efficientnet_lite(which: str, path: str | Path) -> EfficientNetLite:
    """The frozen network with published weights, as `packaged_weights` finds them; `which` is a key of LITE. Raises UserError."""
    network = EfficientNetLite(which)
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    load_strict(network, fold_batch_norms(shapes, read_weights(path), path), path)
    return freeze(network)


def lite_features(network: EfficientNetLite, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The features, float32 [B, 1280], of pictures uint8 [H, W, 3] of any sizes, resized to 256x192."""
    resized = np.stack([cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) for picture in pictures])
    with jt.no_grad():
        return network(jt.array(resized.transpose(0, 3, 1, 2) / np.float32(255))).numpy()
