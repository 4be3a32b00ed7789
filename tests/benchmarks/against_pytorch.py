"""Our UNet against PyTorch's with diffusers: the same weights and inputs; a forward pass, a training step and sampling, in turns.

    python3 -m venv /tmp/pytorch && /tmp/pytorch/bin/pip install torch diffusers transformers accelerate
    python tests/benchmarks/against_pytorch.py --pytorch /tmp/pytorch/bin/python --json ratios.json

On CUDA one line compares all that is used there:

    for dtype in float16 bfloat16; do python tests/benchmarks/against_pytorch.py --pytorch /tmp/pytorch/bin/python --batch_size 8
        --network small base --dtype $dtype --mode eager compiled --json $dtype.json; done

PyTorch runs in a process of its own (pytorch_side.py), in its own virtual environment, on the same device, with its scaled dot-product
attention, and below float32 under autocast; `--mode compiled` compiles it. Before anything is timed, outputs, gradients and samples are
compared; then the two take turns, and medians are printed, with the ratio of ours to PyTorch's (below 1, ours is faster) and the share of
the device's limit: the FLOPs of the network, as PyTorch counts them, against a product of matrices measured in the same run.

A training step is forward, mean squared error, backward, clipping and AdamW, in float16 with a scaled loss; sampling is four steps of DDIM.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup

# isort: split
import jittor as jt
import numpy as np
from tqdm import tqdm

from models.diffusion.denoiser import Denoiser
from models.diffusion.samplers import SAMPLERS, sampling_timesteps
from models.diffusion.schedule import NoiseSchedule
from models.networks.layers import DTYPES, autocast
from models.networks.pretrained import save_network
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.systems import SYSTEMS
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
        name: (stages["unet"].network(vae), (stages["unet"].height // vae.downscale, stages["unet"].width // vae.downscale))
        for name, stages in SYSTEMS["diffusion"].presets.items()
        for vae in [stages["vae"].network]
    },
}
LR, MAX_NORM = 1e-4, 1.0
REQUESTS = {"forward": "forward", "train": "training step", "sample": "sampling"}
SAMPLING_STEPS = 4


def inputs_of(config: UNet2DConditionConfig, size: tuple[int, int], batch_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return random.standard_normal((batch_size, *shape), np.float32)

    inputs = {"sample": drawn(config.in_channels, *size), "encoder_hidden_states": drawn(48, config.cross_attention_dim)}
    if config.class_embed_type:
        inputs["class_labels"] = drawn(config.projection_class_embeddings_input_dim)
    return inputs | {"timestep": random.integers(0, 1000, batch_size), "target": drawn(config.out_channels, *size)}


class Ours:
    """The same requests that pytorch_side.py answers."""

    def __init__(self, network: UNet2DConditionModel, inputs: dict[str, np.ndarray], dtype: str):
        self.network, self.dtype = network, dtype
        self.inputs = {name: array if name == "timestep" else jt.array(array) for name, array in inputs.items()}
        self.target = self.inputs.pop("target")
        self.optimizer = AdamW(network.named_parameters())
        if dtype == "float16":
            self.optimizer.scale_loss()
        self.schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)

    def output(self, **changed) -> jt.Var:
        with autocast(self.dtype):
            return self.network(**self.inputs | changed)

    def loss(self) -> jt.Var:
        return (self.output() - self.target).sqr().mean()

    def sampled(self) -> jt.Var:
        sample, channels, batch_size = self.inputs["sample"], self.target.shape[1], len(self.target)
        x, shares = sample[:, :channels], sample[:, channels:]

        def model(x: jt.Var, t: int) -> jt.Var:
            return self.output(sample=jt.concat([x, shares], dim=1) if shares.shape[1] else x, timestep=np.full(batch_size, t))

        with jt.no_grad():
            denoiser = Denoiser(model, self.schedule, "v_prediction")
            for x in SAMPLERS["ddim"](denoiser, x, sampling_timesteps(self.schedule, SAMPLING_STEPS), None):  # noqa: B020
                x.sync()
        return x

    def compared(self) -> dict[str, np.ndarray]:
        """The output, what is sampled, and every gradient by its parameter's name."""
        parameters = dict(self.network.named_parameters())
        gradients = jt.grad(self.loss(), list(parameters.values()))
        found = {"output": self.output().numpy(), "sampled": self.sampled().numpy()}
        return found | {name: gradient.numpy() for name, gradient in zip(parameters, gradients, strict=True)}

    def ask(self, request: str) -> float:
        """Seconds it takes."""
        jt.sync_all(True)
        start = time.perf_counter()
        if request == "train":
            self.optimizer.step([self.loss()], LR, MAX_NORM)
        elif request == "sample":
            self.sampled()
        else:
            with jt.no_grad():
                self.output().sync()
        jt.sync_all(True)
        return time.perf_counter() - start


class Theirs:
    """pytorch_side.py, asked a line at a time."""

    def __init__(self, python: Path, folder: Path, dtype: str, mode: str):
        device = "cuda" if jt.has_cuda else "cpu"
        command = [python, Path(__file__).with_name("pytorch_side.py"), folder, dtype, mode, SAMPLING_STEPS, device]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request: str) -> float:
        """Seconds it took, or whatever number answers the request."""
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("PyTorch's side has ended: see its message above")
        return float(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Of outputs and of samples, relative to the largest number; of the gradients, the norm of what differs relative to their norm."""
    found = {name: float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()) for name in ("output", "sampled")}
    names = [name for name in ours if name not in found]
    off = sum(float(np.square(ours[name].reshape(-1) - theirs[name].reshape(-1), dtype=np.float64).sum()) for name in names)
    return found | {"gradient": (off / sum(float(np.square(theirs[name], dtype=np.float64).sum()) for name in names)) ** 0.5}


def compare(name: str, mode: str, args: argparse.Namespace) -> dict[str, object]:
    """One network in one precision against PyTorch in one mode."""
    jt.set_global_seed(0)
    config, size = NETWORKS[name]
    network, inputs = UNet2DConditionModel(config), inputs_of(config, size, args.batch_size)
    ours = Ours(network, inputs, args.dtype)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_network(network, module_arrays(network), folder)
        np.savez(folder / "inputs.npz", **inputs)
        theirs = Theirs(args.pytorch, folder, args.dtype, mode)
        theirs.ask("compared")
        with np.load(folder / "compared.npz") as arrays:
            found = {f"{what}_difference": value for what, value in differences(ours.compared(), dict(arrays)).items()}
    flops = {"forward": theirs.ask("forward_flops"), "train": theirs.ask("train_flops")}
    flops["sample"] = SAMPLING_STEPS * flops["forward"]
    for request in REQUESTS:  # warm: kernels compiled, memory there
        ours.ask(request), theirs.ask(request)
    seconds = {(side, request): [] for side in ("ours", "PyTorch") for request in REQUESTS}
    peaks = []
    for _ in tqdm(range(args.rounds), desc="turns", dynamic_ncols=True):
        for request in REQUESTS:
            seconds["ours", request].append(ours.ask(request))
            seconds["PyTorch", request].append(theirs.ask(request))
        peaks.append(theirs.ask("peak"))
    theirs.close()
    peak = float(np.median(peaks))  # FLOP/s
    medians = {key: float(np.median(values)) for key, values in seconds.items()}
    ratios = {request: medians["ours", request] / medians["PyTorch", request] for request in REQUESTS}
    return {
        "network": name, "parameters": sum(weight.numel() for weight in network.parameters()), "batch_size": args.batch_size,
        "dtype": args.dtype, "mode": mode, "device": jittor_setup.DEVICE, **found, "peak_flops_per_second": peak,
        "forward_ratio": ratios["forward"], "train_step_ratio": ratios["train"], "sampling_ratio": ratios["sample"],
        **{f"{side}_{request}_seconds": value for (side, request), value in medians.items()},
        **{f"{side}_{request}_share_of_peak": flops[request] / value / peak for (side, request), value in medians.items()},
    }  # fmt: skip


def report(run: dict[str, object]) -> str:
    lines = [
        "{device}; {network}, {0:.1f} million parameters, batch {batch_size}, {dtype}, PyTorch {mode}".format(
            run["parameters"] / 1e6, **run
        ),
        "outputs differ by {output_difference:.1e}, gradients by {gradient_difference:.1e}, samples by {sampled_difference:.1e}; "
        "the device multiplies matrices at {0:.0f} GFLOP/s".format(run["peak_flops_per_second"] / 1e9, **run),
        "\n| | ours | PyTorch | ratio |\n|---|---|---|---|",
    ]
    for request, title in REQUESTS.items():
        sides = [(run[f"{side}_{request}_seconds"], run[f"{side}_{request}_share_of_peak"]) for side in ("ours", "PyTorch")]
        cells = [f"{seconds:.4f} s ({share:.0%} of the limit)" for seconds, share in sides]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {sides[0][0] / sides[1][0]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pytorch", type=Path, required=True, help="python of a virtual environment with torch and diffusers")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=["16M"], help="default: 16M")
    # one in a process: what cuDNN has found the best way for one type Jittor takes for another
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: %(default)s")
    parser.add_argument("--mode", nargs="+", choices=("eager", "compiled"), default=["eager"], help="of PyTorch (default: eager)")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="turns that each side takes (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here too: those of the first comparison, and all under `runs`")
    args = parser.parse_args()
    runs = []
    for name, mode in product(args.network, args.mode):
        runs.append(compare(name, mode, args))
        print(report(runs[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(runs[0] | {"runs": runs}, indent=2) + "\n")
        jt.gc()


if __name__ == "__main__":
    main()
