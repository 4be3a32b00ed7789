"""PyTorch's side of against_pytorch.py: answers each line on stdin with a number on stdout. Needs torch and diffusers, and nothing of ours.

compared                     writes output, gradients and what was sampled to compared.npz, answers 0
forward, train, sample       seconds of a forward pass, of a training step, of sampling
forward_flops, train_flops   floating-point operations of each
peak                         FLOP/s of a product of two matrices
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

folder, dtype, compiled, sampling_steps = Path(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3] == "compiled", int(sys.argv[4])
torch.backends.cudnn.benchmark = True  # as Jittor does
device = sys.argv[5]
network = UNet2DConditionModel.from_pretrained(folder).to(device).train()
with np.load(folder / "inputs.npz") as arrays:
    inputs = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files}
target = inputs.pop("target")
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
called = torch.compile(network) if compiled else network
scheduler = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
    timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True,
)  # fmt: skip
size = 8192 if device == "cuda" else 2048
matrix = torch.randn(size, size, device=device, dtype=dtype)


def output(called=called, **changed):
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        return called(**(inputs | changed)).sample.float()


def loss(called=called):
    return torch.nn.functional.mse_loss(output(called), target)


def sampled():
    x, shares = inputs["sample"].split([target.shape[1], inputs["sample"].shape[1] - target.shape[1]], dim=1)
    scheduler.set_timesteps(sampling_steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(output(sample=torch.cat([x, shares], dim=1), timestep=t.to(device)), t, x).prev_sample
    return x


def compared():
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    gradients = {name: parameter.grad.cpu().numpy() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        np.savez(folder / "compared.npz", output=output().cpu().numpy(), sampled=sampled().cpu().numpy(), **gradients)


def forward():
    with torch.no_grad():
        output()


def train():
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss()).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


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
    "sample": lambda: seconds(sampled),
    "forward_flops": lambda: flops(lambda: output(network)),  # of what is compiled nothing is counted
    "train_flops": lambda: flops(lambda: loss(network).backward()),
    "peak": lambda: 2 * len(matrix) ** 3 / min(seconds(lambda: matrix @ matrix) for _ in range(3)),
}
for line in sys.stdin:
    print(ANSWERS[line.strip()](), flush=True)
