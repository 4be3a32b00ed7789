"""The denoising UNet (Ho et al. 2020) with cross-attention (Rombach et al. 2022). Names and layout as diffusers' UNet2DConditionModel."""

from dataclasses import dataclass

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.attention import Transformer2DModel
from models.networks.embeddings import TimestepEmbedding, timestep_embedding
from models.networks.layers import Conv2d, GroupNorm
from models.networks.recompute import recomputed
from models.networks.resnet import Downsample2D, ResnetBlock2D, Upsample2D


@dataclass
class UNet2DConditionConfig:
    """Fields of diffusers' config.json."""

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one level each, finest first
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3  # coarsest first
    layers_per_block: int = 2  # residual blocks a level on the way down; one more on the way up
    cross_attention_dim: int = 768
    attention_head_dim: int | tuple[int, ...] = 8  # diffusers' name for the number of heads (at each level)
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    use_linear_projection: bool = False
    class_embed_type: str | None = None  # "projection": a vector [B, projection_class_embeddings_input_dim] joins the time embedding
    projection_class_embeddings_input_dim: int | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of attention heads at each level, finest first."""
        n = self.attention_head_dim
        return tuple(n) if isinstance(n, (tuple, list)) else (n,) * len(self.block_out_channels)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by a transformer where the level attends: diffusers' (CrossAttn)Down/UpBlock2D."""

    def __init__(
        self,
        config: UNet2DConditionConfig,
        widths: list[tuple[int, int]],  # channels in and out of each residual block
        heads: int | None,  # None: no attention at this level
        temb_channels: int,
    ):
        super().__init__()
        groups, eps = config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList([ResnetBlock2D(a, b, temb_channels, groups, eps) for a, b in widths])
        if heads:
            self.attentions = nn.ModuleList([transformer(config, b, heads) for _, b in widths])
        self._attends = bool(heads)

    def layer(self, i: int, x: jt.Var, temb: jt.Var, context: jt.Var) -> jt.Var:
        x = recomputed(self.resnets[i], x, temb)
        return recomputed(self.attentions[i], x, context) if self._attends else x


class MidBlock(nn.Module):
    """Residual block, transformer, residual block, at the coarsest resolution."""

    def __init__(self, config: UNet2DConditionConfig, temb_channels: int):
        super().__init__()
        channels, groups, eps = config.block_out_channels[-1], config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList([ResnetBlock2D(channels, channels, temb_channels, groups, eps) for _ in range(2)])
        self.attentions = nn.ModuleList([transformer(config, channels, config.heads[-1])])

    def execute(self, x: jt.Var, temb: jt.Var, context: jt.Var) -> jt.Var:
        x = recomputed(self.attentions[0], recomputed(self.resnets[0], x, temb), context)
        return recomputed(self.resnets[1], x, temb)


def transformer(config: UNet2DConditionConfig, channels: int, heads: int) -> Transformer2DModel:
    return Transformer2DModel(channels, heads, config.cross_attention_dim, config.norm_num_groups, config.use_linear_projection)


class UNetEncoder(nn.Module):
    """The way down and the middle, which the UNet and a ControlNet have alike. h and w are multiples of 2^(levels − 1)."""

    def __init__(self, config: UNet2DConditionConfig):
        super().__init__()
        self._config = config
        channels = config.block_out_channels
        temb_channels = 4 * channels[0]

        self.conv_in = Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(channels[0], temb_channels)
        if config.class_embed_type == "projection":
            self.class_embedding = TimestepEmbedding(config.projection_class_embeddings_input_dim, temb_channels)

        self.down_blocks = nn.ModuleList()
        self._skips = [channels[0]]  # channels of what the way up will concatenate
        for i, (width, kind) in enumerate(zip(channels, config.down_block_types, strict=True)):
            widths = [(channels[max(i - 1, 0)] if j == 0 else width, width) for j in range(config.layers_per_block)]
            level = Level(config, widths, config.heads[i] if kind.startswith("CrossAttn") else None, temb_channels)
            self._skips += [width] * config.layers_per_block
            if i < len(channels) - 1:
                level.downsamplers = nn.ModuleList([Downsample2D(width)])
                self._skips.append(width)
            self.down_blocks.append(level)

        self.mid_block = MidBlock(config, temb_channels)

    @property
    def config(self) -> UNet2DConditionConfig:
        return self._config

    def embed(self, timestep: np.ndarray, class_labels: jt.Var | None) -> jt.Var:
        """Timesteps [B] and the vectors that join them [B, S] → the embedding [B, 4·C_0] that every residual block takes."""
        temb = self.time_embedding(timestep_embedding(timestep, self.config.block_out_channels[0]))
        return temb if class_labels is None else temb + self.class_embedding(class_labels)

    def down(
        self, sample: jt.Var, temb: jt.Var, context: jt.Var, level_features: list[jt.Var | None] | None = None
    ) -> tuple[jt.Var, list[jt.Var]]:
        """Noisy latents [B, C_in, h, w] → the coarsest features [B, C_n, h/2^n, w/2^n], and the skips that `up` takes, finest first."""
        x = self.conv_in(sample)  # [B, C_0, h, w]
        skips = []
        for i, level in enumerate(self.down_blocks):
            if level_features is not None and level_features[i] is not None:
                x = x + level_features[i]
            skips.append(x)
            for j in range(len(level.resnets)):
                x = level.layer(j, x, temb, context)  # [B, C_i, h/2^i, w/2^i]
                skips.append(x)
            if i < len(self.down_blocks) - 1:
                x = recomputed(level.downsamplers[0], x)
        return x, skips

    def middle(self, x: jt.Var, temb: jt.Var, context: jt.Var) -> jt.Var:
        """The coarsest features [B, C_n, h/2^n, w/2^n], once more."""
        return self.mid_block(x, temb, context)


class UNet2DConditionModel(UNetEncoder):
    """Noisy latents [B, 4 (+ extra), h, w] and timesteps [B] → prediction [B, 4, h, w]."""

    def __init__(self, config: UNet2DConditionConfig):
        super().__init__(config)
        channels, temb_channels = config.block_out_channels, 4 * config.block_out_channels[0]
        last = len(channels) - 1

        self.up_blocks = nn.ModuleList()
        skips, previous = list(self._skips), channels[-1]
        for i, (width, kind) in enumerate(zip(channels[::-1], config.up_block_types, strict=True)):
            widths = []
            for _ in range(config.layers_per_block + 1):
                widths.append((previous + skips.pop(), width))
                previous = width
            heads = config.heads[last - i] if kind.startswith("CrossAttn") else None
            level = Level(config, widths, heads, temb_channels)
            if i < last:
                level.upsamplers = nn.ModuleList([Upsample2D(width)])
            self.up_blocks.append(level)

        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels[0], config.norm_eps, silu=True)
        self.conv_out = Conv2d(channels[0], config.out_channels, 3, padding=1)

    def execute(
        self,
        sample: jt.Var,  # [B, C_in, h, w]
        timestep: np.ndarray,  # [B]
        encoder_hidden_states: jt.Var,  # [B, M, cross_attention_dim]
        class_labels: jt.Var | None = None,  # [B, projection_class_embeddings_input_dim]
        level_features: list[jt.Var] | None = None,  # for each level, finest first, what is added to its input
    ) -> jt.Var:
        temb, context = self.embed(timestep, class_labels), encoder_hidden_states
        x, skips = self.down(sample, temb, context, level_features)
        return self.up(self.middle(x, temb, context), skips, temb, context)

    def up(self, x: jt.Var, skips: list[jt.Var], temb: jt.Var, context: jt.Var) -> jt.Var:
        """The coarsest features and the skips of `down` → prediction [B, C_out, h, w], float32."""
        skips = list(skips)
        for i, level in enumerate(self.up_blocks):
            for j in range(len(level.resnets)):
                x = level.layer(j, jt.concat([x, skips.pop()], dim=1), temb, context)
            if i < len(self.up_blocks) - 1:
                x = recomputed(level.upsamplers[0], x)  # [B, C_i, 2h', 2w']
        return self.conv_out(self.conv_norm_out(x)).float32()
