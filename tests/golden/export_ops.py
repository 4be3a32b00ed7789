"""Export ops.npz: reference values for models/ops, from PyTorch in float64.

    python tests/golden/export_ops.py

Written with Python 3.11, torch 2.13.0, numpy 1.26.4. Every case holds its inputs (float32), dy, the derivative by the output, the
output y, and d<input>, the derivative by each input:

    <case of NORMS>/{x [B, C, ...], weight [C], bias [C], groups, silu}; groups 0 is layer norm. eps is 1e-5.
    <case of ATTENTIONS>/{q [B, heads, N, D], k, v [B, heads, M, D]}
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

# shape, groups, silu, mean and standard deviation of x, scale of the weight
NORMS = {
    "norm": ((2, 8, 7, 5), 4, False, 0, 1, 1),
    "norm_silu": ((1, 3, 23, 25), 3, True, 1, 2, 1),  # more positions than one summation block of the kernel
    "norm_1d": ((2, 6, 11), 1, True, 0, 1, 1),
    "norm_channels": ((66, 12), 3, True, 0, 1, 1),  # no positions, and more samples than slices of the kernel's batch
    "norm_far": ((1, 8, 8, 6), 2, False, 10, 0.1, 1),  # where E[x²] − E[x]² loses the variance
    "norm_far_silu": ((1, 8, 6, 4), 2, True, 10, 0.1, 1),
    "norm_saturated": ((1, 4, 6, 6), 1, True, 0, 1, 200),  # SiLU of ±several hundred
    "layer_norm": ((2, 5, 40), 0, False, 0, 1, 1),
    "layer_norm_far": ((2, 5, 40), 0, False, 10, 0.1, 1),
}
# batch, heads, N, M, D, scale of q
ATTENTIONS = {
    "attention_d17": (1, 1, 48, 77, 17, 1),
    "attention_d8": (2, 1, 65, 5, 8, 1),
    "attention_d40": (1, 1, 5, 20, 40, 1),
    "attention_d64": (1, 2, 4, 6, 64, 1),
    "attention_d1": (2, 3, 4, 3, 1, 1),
    "attention_large": (1, 1, 20, 70, 8, 100),  # scores of several hundred
}


def case(function, dy_of, **inputs):
    inputs = {name: torch.tensor(np.float32(value), dtype=torch.float64) for name, value in inputs.items()}
    for value in inputs.values():
        value.requires_grad_()
    y = function(**inputs)
    dy = torch.tensor(np.float32(dy_of(y.shape)), dtype=torch.float64)
    y.backward(dy)
    gradients = {f"d{name}": value.grad for name, value in inputs.items()}
    return {name: np.float32(value.detach()) for name, value in {**inputs, **gradients, "y": y, "dy": dy}.items()}


def export_norms(random):
    for name, (shape, groups, silu, mean, std, scale) in NORMS.items():
        channels = shape[1] if groups else shape[-1]

        def normalize(x, weight, bias, groups=groups, silu=silu):
            y = F.group_norm(x, groups, weight, bias, 1e-5) if groups else F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
            return F.silu(y) if silu else y

        x, weight, bias = random.normal(mean, std, shape), scale * random.normal(1, 0.3, channels), random.normal(0, 1, channels)
        yield name, {**case(normalize, random.standard_normal, x=x, weight=weight, bias=bias), "groups": groups, "silu": silu}


def export_attentions(random):
    for name, (batch, heads, n, m, d, scale) in ATTENTIONS.items():
        q, k, v = (random.standard_normal((batch, heads, length, d)) for length in (n, m, m))
        yield name, case(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), random.standard_normal, q=scale * q, k=k, v=v)


if __name__ == "__main__":
    random = np.random.default_rng(0)
    cases = [*export_norms(random), *export_attentions(random)]
    arrays = {f"{name}/{key}": value for name, values in cases for key, value in values.items()}
    np.savez_compressed(Path(__file__).with_name("ops.npz"), **arrays)
