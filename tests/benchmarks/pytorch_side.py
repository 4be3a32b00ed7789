"""PyTorch's side of against_pytorch.py: answers each line on stdin with a number on stdout. Needs torch and diffusers, and nothing of ours.

compared                     writes output and gradients to compared.npz, answers 0
forward, train               seconds of a forward pass, of a training step
forward_flops, train_flops   floating-point operations of each
peak                         FLOP/s of a product of two matrices
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

folder, dtype, compiled = Path(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3] == "1"
device = "cuda" if torch.cuda.is_available() else "cpu"
network = UNet2DConditionModel.from_pretrained(folder).to(device).train()
with np.load(folder / "inputs.npz") as arrays:
    inputs = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files}
target = inputs.pop("target")
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
called = torch.compile(network) if compiled else network
matrix = torch.randn(4096 if device == "cuda" else 2048, 4096 if device == "cuda" else 2048, device=device, dtype=dtype)


def output():
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        return called(**inputs).sample.float()


def backward():
    optimizer.zero_grad(set_to_none=True)
    torch.nn.functional.mse_loss(output(), target).backward()


def compared():
    backward()
    gradients = {name: parameter.grad.cpu().numpy() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        np.savez(folder / "compared.npz", output=output().cpu().numpy(), **gradients)


def forward():
    with torch.no_grad():
        output()


def train():
    backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def seconds(function):
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def flops(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


ANSWERS = {
    "compared": lambda: compared() or 0,
    "forward": lambda: seconds(forward),
    "train": lambda: seconds(train),
    "forward_flops": lambda: flops(forward),
    "train_flops": lambda: flops(backward),
    "peak": lambda: 2 * len(matrix) ** 3 / min(seconds(lambda: matrix @ matrix) for _ in range(3)),
}
for line in sys.stdin:
    print(ANSWERS[line.strip()](), flush=True)
