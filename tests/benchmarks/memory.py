"""Peak memory of a training step of the UNet and of the autoencoder, with recomputation and without.

    python tests/benchmarks/memory.py --preset small --width 512 --height 384 --batch_size 1

Each step runs in a process of its own, forward and backward, on random inputs. Printed is what it adds, at its peak, to the memory of the
process once the network is built (resident set, so on the CPU only), and by how much the gradients differ, relative to their norm.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import jittor as jt
import numpy as np

from models.autoencoder_kl import AutoencoderKL
from models.presets import PRESETS, unet_config, vae_config
from models.recompute import recomputation
from models.unet_2d_condition import UNet2DConditionModel


def loss_of(network: str, args: argparse.Namespace):
    """The network, and a function that computes a loss on inputs of the size asked for."""
    random = np.random.default_rng(0)
    config = replace(PRESETS[args.preset], width=args.width, height=args.height)

    def drawn(*shape: int) -> jt.Var:
        return jt.array(random.standard_normal((args.batch_size, *shape), np.float32))

    vae = vae_config(config)
    if network == "vae":
        model, image = AutoencoderKL(vae), drawn(3, args.height, args.width)
        return model, lambda: (model.reconstruct(model.posterior(image)[0]) - image).sqr().mean()
    unet, f = unet_config(config), vae.downscale
    model, sample = UNet2DConditionModel(unet), drawn(unet.in_channels, args.height // f, args.width // f)
    context, labels = (
        drawn(args.width * args.height // (f * config.patch_size) ** 2, unet.cross_attention_dim),
        drawn(unet.projection_class_embeddings_input_dim),
    )
    return model, lambda: model(sample, np.full(args.batch_size, 500), context, class_labels=labels).sqr().mean()


def peak_memory() -> int:
    """Most bytes that this process has had resident. (getrusage's number is at least what its parent had when it was started.)"""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def step(network: str, recomputed: bool, args: argparse.Namespace, gradients: Path) -> dict[str, float]:
    """Runs a step in this process."""
    jt.set_global_seed(0)
    model, loss = loss_of(network, args)
    parameters = model.parameters()
    jt.sync(parameters)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    start = time.time()
    with recomputation(recomputed):
        value = loss()
    if recomputed:
        value.sync()  # as MainTrain.py does
    found = jt.grad(value, parameters, retain_graph=False)
    jt.sync(found)
    seconds = time.time() - start
    peak = peak_memory()
    np.save(gradients, np.concatenate([gradient.numpy().ravel() for gradient in found]))
    return {"GB": (peak - before) / 1e9, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--networks", nargs="+", choices=("vae", "unet"), default=["vae", "unet"])
    parser.add_argument("--step", nargs=3, metavar=("NETWORK", "RECOMPUTED", "GRADIENTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(step(args.step[0], args.step[1] == "1", args, Path(args.step[2]))))
        return
    print("| network | without | with recomputation | ratio | gradients differ by |\n|---|---|---|---|---|")
    for network in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{recomputed}.npy" for recomputed in (0, 1)]
            found = []
            for recomputed, file in enumerate(files):
                command = [sys.executable, __file__, *sys.argv[1:], "--step", network, str(recomputed), str(file)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # compiles the kernels, which takes memory too
                found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))
            plain, other = (np.load(file) for file in files)
        difference = np.linalg.norm(plain - other) / np.linalg.norm(plain)
        without, recomputing = (f"{f['GB']:.2f} GB, {f['seconds']:.1f} s" for f in found)
        print(f"| {network} | {without} | {recomputing} | {found[1]['GB'] / found[0]['GB']:.2f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
