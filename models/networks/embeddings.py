"""Embeddings of the timestep and of global conditions. Names as in diffusers."""

import math

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Linear


def timestep_embedding(timesteps: np.ndarray, channels: int) -> jt.Var:
    """Sinusoidal embedding [B, channels] of timesteps [B], cosines first (Vaswani et al. 2017; diffusers' flip_sin_to_cos)."""
    frequencies = np.exp(-math.log(10000) * np.arange(channels // 2) / (channels // 2))
    angles = np.asarray(timesteps, np.float64)[:, None] * frequencies
    return jt.array(np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


class TimestepEmbedding(nn.Module):
    """[B, C_in] → [B, C_out]: linear, SiLU, linear."""

    def __init__(self, in_channels: int, time_embed_dim: int):
        super().__init__()
        self.linear_1 = Linear(in_channels, time_embed_dim)
        self.linear_2 = Linear(time_embed_dim, time_embed_dim)

    def execute(self, x: jt.Var) -> jt.Var:
        return self.linear_2(nn.silu(self.linear_1(x)))
