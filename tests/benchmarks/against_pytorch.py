"""Our UNet against PyTorch's with diffusers: the same weights, the same inputs, one forward pass and one training step in turns.

    python3 -m venv /tmp/pytorch && /tmp/pytorch/bin/pip install torch diffusers transformers accelerate
    python tests/benchmarks/against_pytorch.py --pytorch /tmp/pytorch/bin/python --json ratios.json

PyTorch runs in a process of its own (pytorch_side.py), in its own virtual environment, on the same device: CUDA where there is one, with
`--dtype bfloat16` under autocast and with `--compile` compiled. Before anything is timed, outputs and gradients are compared; then the two
take turns, and medians are printed, with the ratio of ours to PyTorch's (below 1, ours is faster) and the share of the device's limit: the
FLOPs of the network, as PyTorch counts them, against a product of matrices measured in the same run.

A training step is forward, mean squared error, backward, clipping and AdamW.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup

# isort: split
import jittor as jt
import numpy as np
from tqdm import tqdm

from models.layers import autocast
from models.presets import PRESETS, unet_config, vae_config
from models.pretrained import save_network
from models.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from utils.checkpoint import module_arrays
from utils.optimizer import AdamW

NETWORKS = {  # configuration, and size of the latents (height, width)
    "16M": (
        UNet2DConditionConfig(
            block_out_channels=(64, 128, 256),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=256,
        ),
        (48, 64),
    ),
    **{
        name: (unet_config(config), (config.height // vae_config(config).downscale, config.width // vae_config(config).downscale))
        for name, config in PRESETS.items()
    },
}
LR, MAX_NORM = 1e-4, 1.0


def inputs_of(config: UNet2DConditionConfig, size: tuple[int, int], batch_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal((batch_size, *shape), np.float32)

    inputs = {"sample": drawn(config.in_channels, *size), "encoder_hidden_states": drawn(48, config.cross_attention_dim)}
    if config.class_embed_type:
        inputs["class_labels"] = drawn(config.projection_class_embeddings_input_dim)
    return inputs | {"timestep": random.integers(0, 1000, batch_size), "target": drawn(config.out_channels, *size)}


class Ours:
    """The same four requests that pytorch_side.py answers."""

    def __init__(self, network: UNet2DConditionModel, inputs: dict[str, np.ndarray], dtype: str):
        self.network, self.dtype = network, dtype
        self.inputs = {name: array if name == "timestep" else jt.array(array) for name, array in inputs.items()}
        self.target = self.inputs.pop("target")
        self.optimizer = AdamW(network.named_parameters())

    def output(self) -> jt.Var:
        with autocast(self.dtype):
            return self.network(**self.inputs)

    def loss(self) -> jt.Var:
        return (self.output() - self.target).sqr().mean()

    def compared(self) -> dict[str, np.ndarray]:
        """The output, and every gradient by its parameter's name."""
        parameters = dict(self.network.named_parameters())
        gradients = jt.grad(self.loss(), list(parameters.values()))
        return {"output": self.output().numpy()} | {name: g.numpy() for name, g in zip(parameters, gradients, strict=True)}

    def forward(self) -> float:
        jt.sync_all(True)
        start = time.perf_counter()
        with jt.no_grad():
            self.output().sync()
        jt.sync_all(True)
        return time.perf_counter() - start

    def train(self) -> float:
        jt.sync_all(True)
        start = time.perf_counter()
        self.optimizer.step([self.loss()], LR, MAX_NORM)
        jt.sync_all(True)
        return time.perf_counter() - start


class Theirs:
    """pytorch_side.py, asked a line at a time."""

    def __init__(self, python: Path, folder: Path, dtype: str, compiled: bool):
        command = [python, Path(__file__).with_name("pytorch_side.py"), folder, dtype, str(int(compiled))]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: str) -> float:
        """Seconds it took, or whatever number answers the request."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("PyTorch's side has ended: see its message above")
        return float(answer)


def largest_difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> tuple[float, float]:
    """Of the outputs, relative to the largest; of the gradients, the norm of what differs relative to their norm."""
    output = np.abs(ours["output"] - theirs["output"]).max() / np.abs(theirs["output"]).max()
    names = [name for name in ours if name != "output"]
    off = sum(float(np.square(ours[name].reshape(-1) - theirs[name].reshape(-1), dtype=np.float64).sum()) for name in names)
    return float(output), (off / sum(float(np.square(theirs[name], dtype=np.float64).sum()) for name in names)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pytorch", type=Path, required=True, help="python of a virtual environment with torch and diffusers")
    parser.add_argument("--network", choices=NETWORKS, default="16M", help="default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="turns that each side takes (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile for PyTorch's side")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()

    jt.set_global_seed(0)
    config, size = NETWORKS[args.network]
    network, inputs = UNet2DConditionModel(config), inputs_of(config, size, args.batch_size)
    ours = Ours(network, inputs, args.dtype)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_network(network, module_arrays(network), folder)
        np.savez(folder / "inputs.npz", **inputs)
        theirs = Theirs(args.pytorch, folder, args.dtype, args.compile)
        theirs.ask("compared")
        with np.load(folder / "compared.npz") as arrays:
            output, gradients = largest_difference(ours.compared(), dict(arrays))
        flops = {"forward": theirs.ask("forward_flops"), "train": theirs.ask("train_flops")}
        for request in ("forward", "train"):  # warm: kernels compiled, memory there
            getattr(ours, request)(), theirs.ask(request)
        seconds = {(side, request): [] for side in ("ours", "PyTorch") for request in flops}
        peaks = []
        for _ in tqdm(range(args.rounds), desc="turns", dynamic_ncols=True):
            for request in flops:
                seconds["ours", request].append(getattr(ours, request)())
                seconds["PyTorch", request].append(theirs.ask(request))
            peaks.append(theirs.ask("peak"))
    peak = float(np.median(peaks))  # FLOP/s
    medians = {key: float(np.median(values)) for key, values in seconds.items()}
    found = {
        "network": args.network, "parameters": sum(weight.numel() for weight in network.parameters()), "batch_size": args.batch_size,
        "dtype": args.dtype, "device": jittor_setup.DEVICE, "output_difference": output, "gradient_difference": gradients,
        "forward_ratio": medians["ours", "forward"] / medians["PyTorch", "forward"],
        "train_step_ratio": medians["ours", "train"] / medians["PyTorch", "train"],
        "peak_flops_per_second": peak,
        **{f"{side}_{request}_seconds": value for (side, request), value in medians.items()},
        **{f"{side}_{request}_share_of_peak": flops[request] / value / peak for (side, request), value in medians.items()},
    }  # fmt: skip
    print(f"{found['device']}; {args.network}, {found['parameters'] / 1e6:.1f} million parameters, batch {args.batch_size}, {args.dtype}")
    print(f"outputs differ by {output:.1e}, gradients by {gradients:.1e}; the device multiplies matrices at {peak / 1e9:.0f} GFLOP/s")
    print("\n| | ours | PyTorch | ratio |\n|---|---|---|---|")
    for request, ratio in (("forward", found["forward_ratio"]), ("train", found["train_step_ratio"])):
        cells = [
            f"{medians[side, request]:.3f} s ({found[f'{side}_{request}_share_of_peak']:.0%} of the limit)" for side in ("ours", "PyTorch")
        ]
        print(f"| {request} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
