"""SegFormer (Xie et al. 2021): which of the 29 classes each pixel shows. Judge of the pictures that the other networks paint.

Names and shapes of weights as in the files published on Hugging Face for `SegformerForSemanticSegmentation`. Stochastic depth and the
dropout before the classifier are left out: what keeps our training from learning its photos by heart is how they are cropped and
coloured (models/stages/segformer.py).
"""

from dataclasses import dataclass
from itertools import pairwise

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, LayerNorm, Linear, check_parts
from models.networks.recompute import recomputed
from models.ops.attention import scaled_dot_product_attention
from models.ops.depthwise_conv import depthwise_conv
from models.ops.transpose import swap_last_axes
from utils import parallel


@dataclass
class SegformerConfig:
    num_labels: int = 29
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)  # channels of each stage; stage i works at 1/2^(i+2) of the resolution
    depths: tuple[int, ...] = (2, 2, 2, 2)  # transformer blocks of each stage
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)  # keys and values are of a picture smaller by this factor
    decoder_hidden_size: int = 256


WIDE = (64, 128, 320, 512)
SEGFORMERS = {  # MiT-B0 ... MiT-B5: Xie et al. 2021, table 6
    "b0": SegformerConfig(),
    "b1": SegformerConfig(hidden_sizes=WIDE),
    "b2": SegformerConfig(hidden_sizes=WIDE, depths=(3, 4, 6, 3), decoder_hidden_size=768),
    "b3": SegformerConfig(hidden_sizes=WIDE, depths=(3, 4, 18, 3), decoder_hidden_size=768),
    "b4": SegformerConfig(hidden_sizes=WIDE, depths=(3, 8, 27, 3), decoder_hidden_size=768),
    "b5": SegformerConfig(hidden_sizes=WIDE, depths=(3, 6, 40, 3), decoder_hidden_size=768),
}


def to_tokens(x: jt.Var) -> jt.Var:
    """[B, C, H, W] → [B, H·W, C]."""
    return swap_last_axes(x.reshape(x.shape[0], x.shape[1], -1))


def to_map(x: jt.Var, size: tuple[int, int]) -> jt.Var:
    """[B, H·W, C] → [B, C, H, W] of this (H, W)."""
    return swap_last_axes(x).reshape(x.shape[0], x.shape[2], *size)


class PatchEmbeddings(nn.Module):
    """[B, C_in, H, W] → tokens [B, H/s · W/s, C] of overlapping patches, and their (H/s, W/s)."""

    def __init__(self, in_channels: int, channels: int, patch_size: int, stride: int):
        super().__init__()
        self.proj = Conv2d(in_channels, channels, patch_size, stride, patch_size // 2)
        self.layer_norm = LayerNorm(channels)

    def execute(self, x: jt.Var) -> tuple[jt.Var, tuple[int, int]]:
        x = self.proj(x)
        return self.layer_norm(to_tokens(x)), tuple(x.shape[2:])


class EfficientSelfAttention(nn.Module):
    """Attention of [B, N, C] to itself made smaller by `sr_ratio` each way (Xie et al. 2021, eq. 2)."""

    def __init__(self, channels: int, heads: int, sr_ratio: int):
        super().__init__()
        check_parts(channels, heads, "heads")
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels)
        self.value = Linear(channels, channels)
        if sr_ratio > 1:
            self.sr = Conv2d(channels, channels, sr_ratio, sr_ratio)
            self.layer_norm = LayerNorm(channels)
        self._heads, self._sr_ratio = heads, sr_ratio

    def execute(self, x: jt.Var, size: tuple[int, int]) -> jt.Var:
        context = x if self._sr_ratio == 1 else self.layer_norm(to_tokens(self.sr(to_map(x, size))))  # [B, N/sr², C]
        q, k, v = self.query(x), self.key(context), self.value(context)
        q, k, v = (t.reshape(t.shape[0], t.shape[1], self._heads, -1).transpose(0, 2, 1, 3) for t in (q, k, v))
        return scaled_dot_product_attention(q, k, v).transpose(0, 2, 1, 3).reshape(x.shape)


class SelfOutput(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.dense = Linear(channels, channels)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.dense(x)


class SelfAttention(nn.Module):
    def __init__(self, channels: int, heads: int, sr_ratio: int):
        super().__init__()
        self.self = EfficientSelfAttention(channels, heads, sr_ratio)
        self.output = SelfOutput(channels)

    def execute(self, x: jt.Var, size: tuple[int, int]) -> jt.Var:
        return self.output(self.self(x, size))


class DepthwiseConv(nn.Module):
    """Each channel of tokens [B, H·W, C] convolved by 3x3 on its own: what tells a token where it is."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = Conv2d(1, channels, 3)  # holds the weights; the channels are never mixed

    def execute(self, x: jt.Var, size: tuple[int, int]) -> jt.Var:
        b, n, c = x.shape
        return depthwise_conv(x.reshape(b, *size, c), self.dwconv.weight, self.dwconv.bias, 1, (1, 1)).reshape(b, n, c)


class MixFFN(nn.Module):
    """[B, N, C] → [B, N, C] over 4C hidden features (Xie et al. 2021, eq. 3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.dense1 = Linear(channels, 4 * channels)
        self.dwconv = DepthwiseConv(4 * channels)
        self.dense2 = Linear(4 * channels, channels)

    def execute(self, x: jt.Var, size: tuple[int, int]) -> jt.Var:
        return self.dense2(nn.gelu(self.dwconv(self.dense1(x), size)))


class Block(nn.Module):
    def __init__(self, channels: int, heads: int, sr_ratio: int):
        super().__init__()
        self.layer_norm_1 = LayerNorm(channels)
        self.attention = SelfAttention(channels, heads, sr_ratio)
        self.layer_norm_2 = LayerNorm(channels)
        self.mlp = MixFFN(channels)

    def execute(self, x: jt.Var, size: tuple[int, int]) -> jt.Var:
        x = x + self.attention(self.layer_norm_1(x), size)
        return x + self.mlp(self.layer_norm_2(x), size)


class Encoder(nn.Module):
    """The Mix Transformer: pictures [B, 3, H, W] → tokens and size of each stage, [B, H/4 · W/4, C_1] first."""

    def __init__(self, config: SegformerConfig):
        super().__init__()
        sizes = config.hidden_sizes
        self.patch_embeddings = nn.ModuleList(
            [PatchEmbeddings(3, sizes[0], 7, 4), *(PatchEmbeddings(a, b, 3, 2) for a, b in pairwise(sizes))]
        )
        self.block = nn.ModuleList(
            [
                nn.ModuleList([Block(channels, heads, ratio) for _ in range(depth)])
                for channels, depth, heads, ratio in zip(sizes, config.depths, config.num_attention_heads, config.sr_ratios, strict=True)
            ]
        )
        self.layer_norm = nn.ModuleList([LayerNorm(channels) for channels in sizes])

    def execute(self, x: jt.Var) -> list[tuple[jt.Var, tuple[int, int]]]:
        stages = []
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            tokens, size = embed(x)
            for block in blocks:
                tokens = recomputed(block, tokens, size)
            stages.append((norm(tokens), size))
            x = to_map(stages[-1][0], size)
        return stages


class SegformerModel(nn.Module):
    def __init__(self, config: SegformerConfig):
        super().__init__()
        self.encoder = Encoder(config)

    def execute(self, x: jt.Var) -> list[tuple[jt.Var, tuple[int, int]]]:
        return self.encoder(x)


class BatchNorm(nn.Module):
    """Batch normalisation of [B, C, H, W] (Ioffe & Szegedy 2015): by the batch's moments in training, else by running averages of them."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.weight = jt.ones(channels)
        self.bias = jt.zeros(channels)
        self.running_mean = jt.zeros(channels).stop_grad()
        self.running_var = jt.ones(channels).stop_grad()
        self._momentum, self._eps = momentum, eps

    def execute(self, x: jt.Var, training: bool) -> jt.Var:
        x, mean, var = x.float32(), self.running_mean, self.running_var
        if training:
            (mean,) = parallel.mean([x.mean(dims=(0, 2, 3))])
            (var,) = parallel.mean([(x - mean.reshape(1, -1, 1, 1)).sqr().mean(dims=(0, 2, 3))])
            n = x.shape[0] * x.shape[2] * x.shape[3] * parallel.SIZE
            for running, value in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
                running.update(running * (1 - self._momentum) + value.detach() * self._momentum).stop_grad()
        scale = self.weight / (var + self._eps).sqrt()
        return x * scale.reshape(1, -1, 1, 1) + (self.bias - mean * scale).reshape(1, -1, 1, 1)


class Projection(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.proj = Linear(in_features, out_features)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.proj(x)


class DecodeHead(nn.Module):
    """Stages → logits [B, 29, H/4, W/4]: project each, bring all to the finest size, fuse, classify (Xie et al. 2021, eq. 4)."""

    def __init__(self, config: SegformerConfig):
        super().__init__()
        width = config.decoder_hidden_size
        self.linear_c = nn.ModuleList([Projection(channels, width) for channels in config.hidden_sizes])
        self.linear_fuse = FuseWeight(len(config.hidden_sizes) * width, width)
        self.batch_norm = BatchNorm(width)
        self.classifier = Conv2d(width, config.num_labels, 1)

    def execute(self, stages: list[tuple[jt.Var, tuple[int, int]]], training: bool) -> jt.Var:
        finest = stages[0][1]
        x = 0
        # A sum over channels and an interpolation over pixels can change places: each stage is fused at its own size, then enlarged.
        for (tokens, size), project, weight in zip(stages, self.linear_c, self.linear_fuse.parts(len(stages)), strict=True):
            x = x + resize_bilinear(to_map(multiply(project(tokens), weight), size), finest)
        return self.classifier(nn.relu(self.batch_norm(x, training)))  # [B, 29, H/4, W/4]


class FuseWeight(nn.Module):
    """The weight [C, n·C, 1, 1] of the 1x1 convolution over all stages, which published files hold coarsest stage first."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = Conv2d(in_channels, out_channels, 1).weight

    def parts(self, count: int) -> list[jt.Var]:
        """[C, C] for each stage, finest first."""
        return list(self.weight.reshape(self.weight.shape[0], -1).chunk(count, dim=1))[::-1]


def multiply(x: jt.Var, weight: jt.Var) -> jt.Var:
    """x [..., C_in] · weightᵀ, weight [C_out, C_in]."""
    return nn.matmul_transpose(x.reshape(-1, x.shape[-1]), weight.cast(x.dtype)).reshape(*x.shape[:-1], -1)


def interpolation_matrix(size: int, target: int) -> np.ndarray:
    """[target, size] of linear interpolation between pixel centres, the border repeated (PyTorch's align_corners=False)."""
    places = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    below = np.minimum(places.astype(int), max(size - 2, 0))
    matrix = np.zeros((target, size), np.float32)
    matrix[np.arange(target), below] = 1 - (places - below)
    matrix[np.arange(target), np.minimum(below + 1, size - 1)] += places - below
    return matrix


def resize_bilinear(x: jt.Var, size: tuple[int, int]) -> jt.Var:
    """[B, C, h, w] → [B, C, H, W] of this (H, W), as two products of matrices: fast forward and backward on any device."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    rows, columns = (jt.array(interpolation_matrix(a, z)) for a, z in zip(x.shape[2:], size, strict=True))
    x = multiply(x, columns)  # [B, C, h, W]
    return swap_last_axes(multiply(swap_last_axes(x), rows))


class SegformerForSemanticSegmentation(nn.Module):
    """Photos [B, 3, H, W], normalised as `normalize` does → logits [B, 29, H/4, W/4]."""

    def __init__(self, config: SegformerConfig):
        super().__init__()
        self._config = config
        self.segformer = SegformerModel(config)
        self.decode_head = DecodeHead(config)

    @property
    def config(self) -> SegformerConfig:
        return self._config

    def execute(self, x: jt.Var, training: bool = False) -> jt.Var:
        """`training`: whether batch normalisation takes this batch's moments, and remembers them."""
        return self.decode_head(self.segformer(x), training)


IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def normalize(images: np.ndarray) -> np.ndarray:
    """uint8 [..., H, W, 3] → float32 [..., 3, H, W] with the mean and standard deviation of ImageNet's colours taken out."""
    return np.ascontiguousarray(np.moveaxis((np.float32(images) / 255 - IMAGENET_MEAN) / IMAGENET_STD, -1, -3))


def predict(network: SegformerForSemanticSegmentation, images: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Classes uint8 [B, H, W] of normalised images [B, 3, h, w], at their own or another `size` = (H, W).

    The logits are enlarged, then compared, so that borders are finer than the 4x4 pixels of a logit.
    """
    with jt.no_grad():
        logits = resize_bilinear(network(jt.array(images)).float32(), size or images.shape[2:])
        return logits.numpy().argmax(axis=1).astype(np.uint8)
