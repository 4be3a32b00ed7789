"""Attention and the transformer block of the UNet, and the self-attention of the autoencoder. Names as in diffusers."""

import jittor as jt
from jittor import nn

from models.networks.layers import Conv2d, GroupNorm, LayerNorm, Linear, check_parts
from models.ops.attention import scaled_dot_product_attention
from models.ops.transpose import swap_last_axes


class Attention(nn.Module):
    """Multi-head attention from [B, N, C] to a context [B, M, C_context], or to itself (Vaswani et al. 2017)."""

    def __init__(
        self,
        query_dim: int,
        heads: int,
        cross_attention_dim: int | None = None,  # channels of the context; None: self-attention
        bias: bool = False,  # on the three input projections
    ):
        super().__init__()
        check_parts(query_dim, heads, "heads")
        context_dim = cross_attention_dim or query_dim
        self.to_q = Linear(query_dim, query_dim, bias)
        self.to_k = Linear(context_dim, query_dim, bias)
        self.to_v = Linear(context_dim, query_dim, bias)
        self.to_out = nn.ModuleList([Linear(query_dim, query_dim)])
        self._heads = heads

    def execute(self, x: jt.Var, context: jt.Var | None = None) -> jt.Var:
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)  # [B, N, C], [B, M, C] twice
        q, k, v = (t.reshape(t.shape[0], t.shape[1], self._heads, -1).transpose(0, 2, 1, 3) for t in (q, k, v))
        y = scaled_dot_product_attention(q, k, v)  # [B, heads, N, C/heads]
        return self.to_out[0](y.transpose(0, 2, 1, 3).reshape(x.shape))


class SpatialAttention(Attention):
    """The autoencoder's single-head self-attention over the pixels of [B, C, H, W], with its residual."""

    def __init__(self, channels: int, groups: int, eps: float):
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps)

    def execute(self, x: jt.Var) -> jt.Var:
        b, c, h, w = x.shape
        y = swap_last_axes(self.group_norm(x).reshape(b, c, h * w))  # [B, HW, C]
        return x + swap_last_axes(super().execute(y)).reshape(b, c, h, w)


class GEGLU(nn.Module):
    """[B, N, C_in] → [B, N, C_out]: a linear map gated by the GELU of another (Shazeer 2020)."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.proj = Linear(in_features, 2 * out_features)

    def execute(self, x: jt.Var) -> jt.Var:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * nn.gelu(gate)


class FeedForward(nn.Module):
    """[B, N, C] → [B, N, C] over 4C hidden features. `net.1` is diffusers' dropout, which has no weights."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels)])

    def execute(self, x: jt.Var) -> jt.Var:
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention to the context, feed-forward; each with layer norm before and residual after."""

    def __init__(self, channels: int, heads: int, cross_attention_dim: int):
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.attn2 = Attention(channels, heads, cross_attention_dim)
        self.norm3 = LayerNorm(channels)
        self.ff = FeedForward(channels)

    def execute(self, x: jt.Var, context: jt.Var) -> jt.Var:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """A transformer block over the pixels of [B, C, H, W], attending to a context [B, M, C_context]."""

    def __init__(
        self,
        channels: int,
        heads: int,
        cross_attention_dim: int,
        groups: int,
        use_linear_projection: bool,  # Stable Diffusion 2 projects with linear maps, version 1 with 1x1 convolutions
    ):
        super().__init__()
        self.norm = GroupNorm(groups, channels, 1e-6)
        project = (lambda: Linear(channels, channels)) if use_linear_projection else (lambda: Conv2d(channels, channels, 1))
        self.proj_in = project()
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(channels, heads, cross_attention_dim)])
        self.proj_out = project()
        self._use_linear_projection = use_linear_projection

    def execute(self, x: jt.Var, context: jt.Var) -> jt.Var:
        b, c, h, w = x.shape
        y = self.norm(x)
        y = y if self._use_linear_projection else self.proj_in(y)
        y = swap_last_axes(y.reshape(b, c, h * w))  # [B, HW, C]
        y = self.proj_in(y) if self._use_linear_projection else y
        y = self.transformer_blocks[0](y, context)
        y = self.proj_out(y) if self._use_linear_projection else y
        y = swap_last_axes(y).reshape(b, c, h, w)
        y = y if self._use_linear_projection else self.proj_out(y)
        return x + y
