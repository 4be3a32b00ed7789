"""What a style's pictures add to its prompts: features of their mean latents, a hundredth of which joins the text encoder's states.

    f = f_text + 0.01 · f_image

It is no part of an adapter's file, which other programs read.
"""

from dataclasses import dataclass

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.clip import CONTEXT_LENGTH
from models.networks.layers import Conv2d, GroupNorm, Linear, zeros_

SHARE = 0.01
WIDTH = 64  # of its inner convolutions


@dataclass
class PromptEnhancementConfig:
    channels: int  # of the text encoder's states
    latent_channels: int
    height: int  # of the latents
    width: int


class PromptEnhancement(nn.Module):
    """The mean over a style's pictures of their latents' means and standard deviations [2·4, h, w] → what joins the states, [1, 77, C].

    A map for each token, whose (h/2)(w/2) cells are its channels where there are as many, as for latents of 64x64 and 1024 channels; else
    a linear map makes channels of cells. The first convolution starts at zero: no picture is told from another.
    """

    def __init__(self, config: PromptEnhancementConfig):
        super().__init__()
        self._config = config
        inputs, cells = 2 * config.latent_channels, -(-config.height // 2) * -(-config.width // 2)
        self.latents = jt.zeros(1, inputs, config.height, config.width).stop_grad()
        self.norm1 = GroupNorm(config.latent_channels, inputs, 1e-6, silu=True)
        self.conv1 = zeros_(Conv2d(inputs, WIDTH, 3, stride=2, padding=1))
        self.norm2 = GroupNorm(8, WIDTH, 1e-6, silu=True)
        self.conv2 = Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.norm3 = GroupNorm(8, WIDTH, 1e-6, silu=True)
        self.conv3 = Conv2d(WIDTH, CONTEXT_LENGTH, 3, padding=1)
        self.to_channels = None if cells == config.channels else Linear(cells, config.channels)

    @property
    def config(self) -> PromptEnhancementConfig:
        return self._config

    def take(self, posteriors: np.ndarray) -> None:
        """Takes the mean of a style's posteriors, float32 [N, 2, 4, h, w]."""
        mean = posteriors.mean(axis=0).reshape(self.latents.shape)
        self.latents.update(jt.array(mean.astype(np.float32))).stop_grad()

    def execute(self) -> jt.Var:
        x = self.conv1(self.norm1(self.latents))  # [1, 64, h/2, w/2]
        x = self.conv3(self.norm3(self.conv2(self.norm2(x))))  # [1, 77, h/2, w/2]
        x = x.float32().reshape(1, CONTEXT_LENGTH, -1)
        return SHARE * (x if self.to_channels is None else self.to_channels(x).float32())
