"""Low-rank adapters (Hu et al. 2021, "LoRA"): beside a frozen weight W [out, in] a trained product up · down of rank r, with r · (in + out)
numbers instead of in · out.

    adapt(unet, rank=4)                  # freezes it, and puts something to train beside each attention matrix
    merge(unet, [(adapter, 0.8)])        # or adds what was trained, times 0.8, to the weights: as fast as without
"""

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, Linear, freeze, zeros_
from utils.checkpoint import as_array, load_vars

# What is adapted: the matrices of attention and the gated linear map of the UNet, and those of a text encoder's attention
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "q_proj", "k_proj", "v_proj", "out_proj")

# Of each layer by name: down [r, in] and up [out, r], as convolutions [r, in, k, k] and [out, r, 1, 1]; up · down is added to its weight
Adapter = dict[str, tuple[np.ndarray, np.ndarray]]


class LowRank(nn.Module):
    """What a layer computes, and up(down(x)) times a scale."""

    def execute(self, x: jt.Var) -> jt.Var:
        return super().execute(x) + self.lora_up(self.lora_down(x)) * self._scale


class LowRankLinear(LowRank, Linear):
    pass


class LowRankConv2d(LowRank, Conv2d):
    pass


def adapt(network: nn.Module, rank: int, scale: float = 1.0, targets: tuple[str, ...] = TARGETS) -> nn.Module:
    """Freezes a network, and adds to each of its linear maps and convolutions whose name ends in one of `targets` a trainable one of low
    rank, which at first adds nothing: down is drawn from a normal distribution of standard deviation 1/rank, up is zero.

    Names stay as they are; `<layer>.lora_down.weight` and `<layer>.lora_up.weight` join them.
    """
    freeze(network)
    endings = tuple(f".{target}" for target in targets)
    for name, layer in network.named_modules():
        if not f".{name}".endswith(endings):
            continue
        if type(layer) is Linear:
            out_features, in_features = layer.weight.shape
            layer.lora_down, layer.lora_up = Linear(in_features, rank, bias=False), Linear(rank, out_features, bias=False)
            layer.__class__ = LowRankLinear  # it stays the object that it is, in its place, and computes more
        elif type(layer) is Conv2d:
            out_channels, in_channels, kernel_size, _ = layer.weight.shape
            layer.lora_down = Conv2d(in_channels, rank, kernel_size, layer._stride, layer._padding, bias=False)
            layer.lora_up = Conv2d(rank, out_channels, 1, bias=False)
            layer.__class__ = LowRankConv2d
        else:
            raise TypeError(f"{name} is neither a linear map nor a convolution")
        layer.lora_down.weight.update(jt.randn(layer.lora_down.weight.shape) / rank)
        zeros_(layer.lora_up)
        layer._scale = scale
    return network


def adapter_of(network: nn.Module) -> Adapter:
    """What `adapt` has added to a network, with the scale in `up`."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, LowRank)]
    return {name: (as_array(layer.lora_down.weight), as_array(layer.lora_up.weight) * np.float32(layer._scale)) for name, layer in layers}


def merge(network: nn.Module, adapters: list[tuple[Adapter, float]]) -> dict[str, np.ndarray]:
    """Adds weight · up · down of each adapter and its weight to a network's layers, which they must fit. Returns the weights of these
    layers as they were: `unmerge` puts them back, to the last bit."""
    own, before, merged = network.state_dict(), {}, {}
    for adapter, weight in adapters:
        for layer, (down, up) in adapter.items():
            name = f"{layer}.weight"
            before.setdefault(name, as_array(own[name]))
            product = up.reshape(len(up), -1).astype(np.float64) @ down.reshape(len(down), -1).astype(np.float64)
            merged[name] = merged.get(name, before[name].astype(np.float64)) + weight * product.reshape(before[name].shape)
    unmerge(network, {name: weight.astype(np.float32) for name, weight in merged.items()})
    return before


def unmerge(network: nn.Module, before: dict[str, np.ndarray]) -> None:
    """Takes back a `merge`, by what it returned."""
    own = network.state_dict()
    load_vars({name: own[name] for name in before}, before, "an adapter", type(network).__name__)
