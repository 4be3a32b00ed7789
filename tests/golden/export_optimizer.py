"""Writes optimizer.npz: weights after each of ten steps of PyTorch's AdamW with accumulation and clipping.

    python tests/golden/export_optimizer.py        (needs PyTorch)

A weight [3, 4], a bias [3] and a convolution's [2, 3, 2, 1] with the loss mean over micro-batches of
mean(((x @ weight.T + bias) @ conv.reshape(3, 4)) ** 2) * size; `size` makes some gradients long enough to be clipped.
"""

from pathlib import Path

import numpy as np
import torch

STEPS, MICRO_BATCHES, MAX_NORM = 10, 3, 1.0


def main() -> None:
    random = np.random.default_rng(0)
    shapes = {"weight": (3, 4), "bias": (3,), "conv": (2, 3, 2, 1)}
    start = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    data = random.normal(size=(STEPS, MICRO_BATCHES, 5, 4)).astype(np.float32)
    sizes = np.where(np.arange(STEPS) % 3 == 0, 0.01, 1.0).astype(np.float32)
    rates = (0.05 * np.cos(np.arange(STEPS) / STEPS)).astype(np.float64)

    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [
        {"params": [weights["weight"], weights["conv"]], "weight_decay": 0.1},
        {"params": [weights["bias"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-8)
    norms, path = [], {name: [] for name in shapes}
    for step in range(STEPS):
        for batch in torch.tensor(data[step]):
            hidden = batch @ weights["weight"].T + weights["bias"]
            loss = ((hidden @ weights["conv"].reshape(3, 4)) ** 2).mean() * sizes[step].item()
            (loss / MICRO_BATCHES).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(weights.values(), MAX_NORM).item())
        for group in optimizer.param_groups:
            group["lr"] = rates[step].item()
        optimizer.step()
        optimizer.zero_grad()
        for name, weight in weights.items():
            path[name].append(weight.detach().numpy().copy())

    arrays = {f"start.{name}": value for name, value in start.items()}
    arrays |= {f"path.{name}": np.stack(values) for name, values in path.items()}
    arrays |= {"data": data, "sizes": sizes, "rates": rates, "norms": np.array(norms)}
    np.savez_compressed(Path(__file__).parent / "optimizer.npz", **arrays)


if __name__ == "__main__":
    main()
