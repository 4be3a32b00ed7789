"""The four layers every network is made of, in float32 or, inside `autocast`, in mixed precision.

Weights stay float32. Under `autocast("bfloat16")`, or "float16", convolutions and linear maps multiply numbers of that type, add the
products up in float32 and hand on activations of that type (Micikevicius et al. 2018, "Mixed precision training"); normalisation and the
softmax of attention compute in float32 whatever they are given (models/ops).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jittor as jt
import numpy as np
from jittor import nn

from models.ops.group_norm import group_norm, layer_norm
from models.ops.kernels import on_cuda

DTYPES = ("float32", "bfloat16", "float16")
NORMS = ("instance", "group", "batch")  # of `standardize`
_compute_dtype = "float32"


@contextmanager
def autocast(dtype: str):
    """Computes convolutions and linear maps in `dtype`, one of `DTYPES`, inside the block."""
    global _compute_dtype
    outside, _compute_dtype = _compute_dtype, dtype
    try:
        yield
    finally:
        _compute_dtype = outside


def compute_dtype() -> str:
    """What `autocast` is set to."""
    return _compute_dtype


def _cast(x: jt.Var) -> jt.Var:
    return x if str(x.dtype) == _compute_dtype else x.cast(_compute_dtype)


def _product(multiply: Callable[[jt.Var, jt.Var], jt.Var], x: jt.Var, weight: jt.Var) -> jt.Var:
    """multiply(x, weight), both in the dtype of `autocast`, with sums in float32, as tensor cores have them.

    The CPU's kernels would add up in 16 bits: there the factors are rounded, and the result. It is no faster, and shows what will happen.
    """
    x, weight = _cast(x), _cast(weight)
    if _compute_dtype == "float32" or on_cuda():
        return multiply(x, weight)
    return _cast(multiply(x.float32(), weight.float32()))


def _uniform(shape: tuple[int, ...], fan_in: int) -> jt.Var:
    """U(−1/√fan_in, 1/√fan_in), PyTorch's default for convolutions and linear maps."""
    bound = 1 / math.sqrt(fan_in)
    return (jt.rand(shape) * 2 - 1) * bound


class Conv2d(nn.Module):
    """[B, C_in, H, W] → [B, C_out, H', W']; `padding` is one number for all sides."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True):
        super().__init__()
        fan_in = in_channels * kernel_size**2
        self.weight = _uniform((out_channels, in_channels, kernel_size, kernel_size), fan_in)
        self.bias = _uniform((out_channels,), fan_in) if bias else None
        self._stride, self._padding = stride, padding

    def execute(self, x: jt.Var) -> jt.Var:
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: jt.Var, weight: jt.Var, bias: jt.Var | None) -> jt.Var:
        """With a weight and a bias that are made of the layer's."""
        y = _product(lambda x, weight: nn.conv2d(x, weight, None, self._stride, self._padding), x, weight)
        return y if bias is None else y + _cast(bias).reshape(1, -1, 1, 1)


class Linear(nn.Module):
    """[..., C_in] → [..., C_out]."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.weight = _uniform((out_features, in_features), in_features)
        self.bias = _uniform((out_features,), in_features) if bias else None

    def execute(self, x: jt.Var) -> jt.Var:
        # only a product of two matrices goes to the fast library on the CPU
        y = _product(nn.matmul_transpose, x.reshape(-1, x.shape[-1]), self.weight)
        if self.bias is not None:
            y = y + _cast(self.bias)
        return y.reshape(*x.shape[:-1], -1)


def check_parts(channels: int, number: int, name: str) -> None:
    """Raises ValueError where channels do not divide into so many groups or heads."""
    if number < 1 or channels % number:
        raise ValueError(f"{channels} channels do not divide into {number} {name}")


class GroupNorm(nn.Module):
    """Group normalisation of [B, C, ...] (Wu & He 2018), followed by SiLU where asked for. Raises ValueError if C does not divide."""

    def __init__(self, num_groups: int, num_channels: int, eps: float, silu: bool = False):
        super().__init__()
        check_parts(num_channels, num_groups, "groups")
        self.weight = jt.ones(num_channels)
        self.bias = jt.zeros(num_channels)
        self._num_groups, self._eps, self._silu = num_groups, eps, silu

    def execute(self, x: jt.Var) -> jt.Var:
        return group_norm(x, self._num_groups, self.weight, self.bias, self._eps, self._silu)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension."""

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.weight = jt.ones(num_features)
        self.bias = jt.zeros(num_features)
        self._eps = eps

    def execute(self, x: jt.Var) -> jt.Var:
        return layer_norm(x, self.weight, self.bias, self._eps)


def standardize(x: jt.Var, norm: str) -> jt.Var:
    """Normalisation without weights, of [B, C, h, w]: mean 0 and variance 1 for each channel of each picture ("instance"; Ulyanov et al.
    2016), for every 16 channels of each picture together ("group"), or for each channel of the whole batch ("batch"). One of `NORMS`.

    No running statistics are kept: with "batch" a picture depends on its company, in painting too.
    """
    b, c, h, w = x.shape
    if norm == "batch":
        x = x.transpose(1, 0, 2, 3).reshape(1, c, b * h * w)
    y = group_norm(x, c // math.gcd(16, c) if norm == "group" else c, jt.ones(c), jt.zeros(c))
    return y.reshape(c, b, h, w).transpose(1, 0, 2, 3) if norm == "batch" else y


def leaky_relu(x: jt.Var, slope: float = 0.2) -> jt.Var:
    """max(x, slope · x), in x's dtype. Jittor's own does not compile for 16 bits.

    Not by `jt.maximum`: its gradient asks whether slope · x is equal to the maximum, and computes that anew, which may round otherwise.
    """
    wide = x.float32()
    return jt.ternary(wide > 0, wide, slope * wide).cast(x.dtype)


class ReLU(nn.Module):
    """max(x, 0), in x's dtype. Jittor's own does not compile for 16 bits where it is not fused with a cast."""

    def execute(self, x: jt.Var) -> jt.Var:
        return leaky_relu(x, 0)


def upsample_nearest(x: jt.Var, factor: int) -> jt.Var:
    """[B, C, h, w] → [B, C, factor·h, factor·w], each value repeated."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h, 1, w, 1).broadcast([b, c, h, factor, w, factor]).reshape(b, c, factor * h, factor * w)


def resize_nearest(x: jt.Var, height: int, width: int) -> jt.Var:
    """[B, C, H, W] → [B, C, height, width], which divide H and W: of each cell the upper left value, as PyTorch's `interpolate` has it."""
    step_y, step_x = x.shape[2] // height, x.shape[3] // width
    return x if step_y == step_x == 1 else x[:, :, ::step_y, ::step_x]


def cell_means(x: jt.Var, size: int) -> jt.Var:
    """Means over cells of size x size: [B, C, H, W] → [B, C, H/size, W/size]."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // size, size, w // size, size).mean(dims=(3, 5))


def zeros_(layer: nn.Module) -> nn.Module:
    """Sets a layer's weights to zero, so that what it feeds starts as if the layer were not there (Zhang et al. 2023, zero convolution)."""
    layer.weight.update(jt.zeros_like(layer.weight))
    if layer.bias is not None:
        layer.bias.update(jt.zeros_like(layer.bias))
    return layer


@contextmanager
def edited(layer: nn.Module) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of a layer as NumPy arrays, which it takes back when the block ends."""
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    yield weight, bias
    layer.weight.update(jt.array(weight))
    layer.bias.update(jt.array(bias))


def xavier_(network: nn.Module, gain: float) -> nn.Module:
    """Draws the weights of all convolutions and linear maps anew, normal with variance gain² · 2 / (fan_in + fan_out) (Glorot & Bengio
    2010), and sets their biases to zero."""
    for _, module in network.named_modules():
        if isinstance(module, (Conv2d, Linear)):
            out_channels, in_channels, *kernel = module.weight.shape
            deviation = gain * math.sqrt(2 / ((in_channels + out_channels) * math.prod(kernel)))
            module.weight.update(jt.randn(module.weight.shape) * deviation)
            if module.bias is not None:
                module.bias.update(jt.zeros_like(module.bias))
    return network


def freeze(network: nn.Module) -> nn.Module:
    """Takes a network out of training: no gradient is kept for its weights, and a learner neither trains nor stores them.

    Modules that are put into it afterwards, an adapter's, are not frozen.
    """
    for _, module in network.named_modules():
        module._frozen = True
    for parameter in network.parameters():
        parameter.stop_grad()
    return network


def lend(owner: nn.Module, network: nn.Module) -> None:
    """Has a network hold the very weights of another, frozen, in all layers that have the same names there. They stay that one's: they are
    none of its `own_weights`."""
    layers = dict(owner.named_modules())
    for name, layer in network.named_modules():
        for key, weight in list(vars(layer).items()):
            if name in layers and isinstance(weight, jt.Var):
                setattr(layer, key, getattr(layers[name], key).stop_grad())
                layer._frozen = layer._lent = True


def own_weights(network: nn.Module) -> dict[str, jt.Var]:
    """The weights and buffers of a network by name, but for those that another has lent it."""
    lent = {name for name, module in network.named_modules() if getattr(module, "_lent", False)}
    return {name: var for name, var in network.state_dict().items() if name.rpartition(".")[0] not in lent}
