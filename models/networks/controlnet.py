"""ControlNet (Zhang et al. 2023): a second encoder for the mask beside a trained UNet, whose features are added to the UNet's skips.

The encoder is the UNet's own way down and middle, and begins with its weights. A zero convolution stands behind each of its outputs, so
that at first nothing is added; the UNet itself is frozen. The hint, a map a class at the size of the picture, joins behind the first
convolution.

In the low-rank form the encoder's weights stay the UNet's, and an adapter of low rank beside its attention matrices is trained in place of
them: M · N numbers become M · d + d · N. Only that, the hint's encoder and the zero convolutions are stored.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.conditioner import MaskConv2d
from models.networks.layers import Conv2d, lend, zeros_
from models.networks.lora import adapt
from models.networks.pretrained import fingerprint, load_network
from models.networks.recompute import recomputation, recomputed
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel, UNetEncoder
from utils.checkpoint import as_array, load_vars
from utils.errors import UserError


@dataclass
class ControlNetConfig(UNet2DConditionConfig):
    """Fields of diffusers' config.json of a ControlNetModel, beside the UNet's; the last two are ours alone."""

    conditioning_channels: int = 29  # maps of the hint: classes
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)  # of the hint's encoder at 1, 1/2, … of the picture's size
    rank: int = 0  # of the adapters in the low-rank form; 0: the full form
    base: str = ""  # fingerprint of the UNet that it stands beside


class HintEncoder(nn.Module):
    """Masks uint8 [B, H, W], 0..28 and UNKNOWN where the class is not told → features [B, C_0, h, w], at first 0.

    diffusers' ControlNetConditioningEmbedding, on one-hot maps.
    """

    def __init__(self, config: ControlNetConfig):
        super().__init__()
        widths = config.conditioning_embedding_out_channels
        self.conv_in = MaskConv2d(config.conditioning_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for a, b in pairwise(widths):
            self.blocks.append(Conv2d(a, a, 3, padding=1))
            self.blocks.append(Conv2d(a, b, 3, stride=2, padding=1))
        self.conv_out = zeros_(Conv2d(widths[-1], config.block_out_channels[0], 3, padding=1))

    def execute(self, mask: jt.Var) -> jt.Var:
        with recomputation(True):  # on CUDA by way of one-hot maps, which are not worth keeping
            x = nn.silu(recomputed(self.conv_in, mask))  # [B, 16, H, W]
        for conv in self.blocks:
            x = nn.silu(conv(x))  # → [B, 256, h, w]
        return self.conv_out(x)


class ControlNetModel(UNetEncoder):
    """What is to be added to a UNet's skips and to its middle. Names as diffusers' ControlNetModel."""

    def __init__(self, config: ControlNetConfig):
        super().__init__(config)
        self.controlnet_cond_embedding = HintEncoder(config)
        self.controlnet_down_blocks = nn.ModuleList([zeros_(Conv2d(width, width, 1)) for width in self._skips])
        self.controlnet_mid_block = zeros_(Conv2d(self._skips[-1], self._skips[-1], 1))

    def hint(self, mask: np.ndarray) -> jt.Var:
        """Masks uint8 [B, H, W] as `execute` takes them. They are the same at every timestep."""
        return self.controlnet_cond_embedding(jt.array(mask))

    def execute(
        self,
        sample: jt.Var,  # [B, C_in, h, w], and all else but the hint as the UNet's
        timestep: np.ndarray,  # [B]
        encoder_hidden_states: jt.Var,  # [B, M, cross_attention_dim]
        hint: jt.Var,  # [B, C_0, h, w]
        class_labels: jt.Var | None = None,  # [B, projection_class_embeddings_input_dim]
        level_features: list[jt.Var] | None = None,  # for each level, finest first, what is added to its input
    ) -> tuple[list[jt.Var], jt.Var]:
        temb, context = self.embed(timestep, class_labels), encoder_hidden_states
        first, *others = level_features or [None] * len(self.down_blocks)
        x, skips = self.down(sample, temb, context, [hint if first is None else first + hint, *others])
        x = self.middle(x, temb, context)
        return [zero(skip) for zero, skip in zip(self.controlnet_down_blocks, skips, strict=True)], self.controlnet_mid_block(x)


class LowRankControlNet(ControlNetModel):
    """One whose encoder has the weights of `unet`, and adapters beside them."""

    def __init__(self, config: ControlNetConfig, unet: UNet2DConditionModel):
        super().__init__(config)
        lend(unet, self)
        for part in (self.down_blocks, self.mid_block):
            adapt(part, config.rank)


def control_of(config: ControlNetConfig, unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that adds nothing yet, of a rank or, where that is 0, in the full form, with weights of its own that begin as the
    UNet's."""
    if config.rank:
        return LowRankControlNet(config, unet)
    control = ControlNetModel(config)
    own, theirs = control.state_dict(), unet.state_dict()
    both = [name for name in own if name in theirs]
    load_vars({name: own[name] for name in both}, {name: as_array(theirs[name]) for name in both}, "the UNet", "a ControlNet")
    return control


def control_config(unet: UNet2DConditionModel, classes: int, hint_channels: tuple[int, ...], rank: int) -> ControlNetConfig:
    """That of a ControlNet beside this UNet."""
    return ControlNetConfig(
        **asdict(unet.config),
        conditioning_channels=classes,
        conditioning_embedding_out_channels=hint_channels,
        rank=rank,
        base=fingerprint(unet.state_dict()),
    )


def load_control(folder: Path, unet: UNet2DConditionModel) -> ControlNetModel:
    """The ControlNet of a folder, for this UNet. Raises UserError where it is damaged, or was trained beside another."""
    control = load_network(lambda config: control_of(config, unet), ControlNetConfig, folder)
    if control.config.base != fingerprint(unet.state_dict()):
        raise UserError(f"{folder} was trained beside another UNet than this run's: take it away, or put that UNet back")
    return control


def controlled(unet: UNet2DConditionModel, control: ControlNetModel, hint: jt.Var, weight: float = 1.0) -> Callable[..., jt.Var]:
    """The UNet with what the ControlNet adds, times a weight, as a function that is called like the UNet. No gradient goes through the
    UNet's own way down and middle, which is frozen."""

    def predict(
        sample: jt.Var,
        timestep: np.ndarray,
        encoder_hidden_states: jt.Var,
        class_labels: jt.Var | None = None,
        level_features: list[jt.Var] | None = None,
    ) -> jt.Var:
        to_skips, to_middle = control(sample, timestep, encoder_hidden_states, hint, class_labels, level_features)
        with jt.no_grad():
            temb = unet.embed(timestep, class_labels)
            x, skips = unet.down(sample, temb, encoder_hidden_states, level_features)
            x = unet.middle(x, temb, encoder_hidden_states)
        skips = [skip + added * weight for skip, added in zip(skips, to_skips, strict=True)]
        return unet.up(x + to_middle * weight, skips, temb, encoder_hidden_states)

    return predict
