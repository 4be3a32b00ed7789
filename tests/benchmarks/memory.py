"""Peak memory of training and painting, by preset, batch and option.

    python tests/benchmarks/memory.py --preset small --batch_size 8
    python tests/benchmarks/memory.py --system lggan --preset base --width 256 --height 192 --batch_size 2
    python tests/benchmarks/memory.py --system text --preset tiny --batch_size 8 --measure style

Processes of their own do what MainTrain.py and MainTest.py do, on drawn pictures and with random weights. Printed is the most memory that
they had beyond what Python and Jittor take: the resident set, kernels and libraries included, so on the CPU only.

- at rest: weights, their averages and the optimizer's moments; of painting, weights alone
- step, recomputing: training steps, plain and with --recompute, and the time of one
- tensors: what Vars took in them at most, by Jittor's count, beyond those at rest; and of these the ratio
- gradients differ by: norm of the difference, relative to the norm
- encoding, validating: what else a stage does on whole photos, eight at a time
- painting: pictures as MainTest.py paints them
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import jittor as jt
import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.loader import stack
from datasets.pairs import check_training_pairs
from datasets.synthetic.write import write_dataset
from datasets.synthetic.write_styles import write_styles
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import Conditioner
from models.networks.pretrained import save_network
from models.networks.recompute import recomputation
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion
from models.stages.joint import JointStage
from models.stages.unet import UNetStage
from models.systems import SYSTEMS
from models.training.options import StageOptions
from models.training.progress import VALIDATION_BATCH, export, validate
from models.training.run import Run, write_run
from utils.checkpoint import module_arrays

PREPARING = "preparing"  # a process of its own too, which leaves no memory behind
PAINTING = {name: system for name, system in SYSTEMS.items() if system.painter}


def chosen_options(args: argparse.Namespace) -> dict[str, StageOptions]:
    """The preset's options by stage, with the size and the batch that are asked for; the autoencoder and its decoder see whole pictures."""
    options = {
        name: replace(preset, width=args.width, height=args.height, batch_size=args.batch_size)
        for name, preset in SYSTEMS[args.system].presets[args.preset].items()
    }
    cropping = [name for name in options if hasattr(options[name], "crop_width")]
    options |= {name: replace(options[name], crop_width=args.width, crop_height=args.height) for name in cropping}
    if args.low_rank and "control" in options:
        options["control"] = replace(options["control"], form="low_rank")
    return options


def peak_memory() -> int:
    """Most bytes that this process has had resident. (getrusage's number is at least what its parent had when it was started.)"""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Memory beyond what there is when it is made, in GB by name."""

    def __init__(self):
        self.before, self.found = resident(), {}

    def rest(self) -> None:
        jt.sync_all()
        jt.gc()
        self.found["rest"] = (resident() - self.before) / 1e9

    def peak(self, name: str, action: Callable[[], object]) -> None:
        jt.gc()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
        action()
        self.found[name] = max(self.found.get(name, 0), (peak_memory() - self.before) / 1e9)


def tensors(action: Callable[[], object]) -> float:
    """GB that Vars take at most in `action`. Jittor knows a maximum since this was first asked."""
    jt.flags.profile_memory_enable = 1
    action()
    found = int(jt.core.get_max_memory_info().partition("[")[0]) / 1e9
    jt.flags.profile_memory_enable = 0
    return found


def what_stages_begin_with(args: argparse.Namespace, options: dict[str, StageOptions], folder: Path) -> None:
    """A run that has learnt nothing: autoencoder, UNet, and what reads captions."""
    vae = AutoencoderKL(options["vae"].network)
    vae.config.scaling_factor = 1.0  # of latents that are whitened
    save_network(vae, module_arrays(vae), folder / "vae")
    write_run(Run(folder, args.system, args.preset, options))
    unet = UNetStage(options["unet"], folder)
    pairs = check_training_pairs(folder / "data")
    unet.datasets(pairs, pairs)  # captions make the words that a text encoder knows
    export(unet, folder, 0)
    if "joint_decoder" in (args.measure or ()):
        export(JointStage(options["joint"], folder), folder, 0)


def training(stage_class: type, options: dict[str, StageOptions], recompute: bool, folder: Path) -> dict[str, float]:
    """Memory of a stage, and seconds of a step. Leaves the gradients in `folder`."""
    pairs = check_training_pairs(folder / "data")
    shutil.rmtree(folder / "latents", ignore_errors=True)  # to encode is measured too
    jt.gc()
    meter = Meter()
    stage = stage_class(options[stage_class.name], folder / "style" / "01" if stage_class.name == "style" else folder)
    meter.rest()
    sets = []
    meter.peak("encoding", lambda: sets.extend(stage.datasets(pairs, pairs[:VALIDATION_BATCH])))
    batch = stack([sets[0].example(i, np.random.default_rng(i)) for i in range(stage.options.batch_size)])

    def step(number: int) -> None:
        with recomputation(recompute):
            stage.train_step([batch], number)

    at_rest = tensors(lambda: jt.ones(1).sync())
    meter.peak("step", lambda: meter.found.update(tensors=tensors(lambda: step(0)) - at_rest))
    with open(folder / f"{recompute}.gradients", "wb") as file:
        for learner in stage.learners.values():
            for moment in learner.optimizer.first.values():  # so far the gradients, times a number
                file.write(moment.numpy().data)
    start = time.time()  # by now all is compiled
    meter.peak("step", lambda: step(1))
    seconds = time.time() - start
    meter.peak("validating", lambda: validate(stage, sets[1], seed=0))
    return meter.found | {"seconds": seconds}


def networks_of(unet: StageOptions, vae: AutoencoderKL) -> dict[str, jt.Module]:
    return {"unet": UNet2DConditionModel(unet.network(vae.config)), "conditioner": Conditioner(unet.conditioner(vae.config))}


def painting(args: argparse.Namespace, options: dict[str, StageOptions], folder: Path) -> dict[str, float]:
    pairs = check_training_pairs(folder / "data")[: args.batch_size]
    masks, photos = (
        np.stack([read(path, (args.width, args.height)) for path in paths])
        for read, paths in ((read_mask, [pair.mask for pair in pairs]), (read_image, [pair.image for pair in pairs]))
    )
    system = SYSTEMS[args.system]
    if system.painter is not LatentDiffusion:  # it paints with what its only stage exports
        export(system.stages[0](options[system.stages[0].name], folder), folder, 0)
        jt.gc()
    meter = Meter()
    if system.painter is LatentDiffusion:
        own, chosen = options["unet"], {"steps": 2, "tile": args.tile}
        vae = AutoencoderKL(options["vae"].network)
        vae.config.scaling_factor = 1.0
        painter = LatentDiffusion(own, vae, **networks_of(own, vae))
    else:
        painter, chosen = system.painter.load(Run(folder, args.system, args.preset, options), folder), {}
    meter.rest()
    meter.peak("painting", lambda: painter.paint(masks, photos, [""] * len(pairs), list(range(len(pairs))), painter.Options(**chosen)))
    return meter.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=PAINTING, default="diffusion")
    parser.add_argument("--preset", choices=SYSTEMS["diffusion"].presets, default="small")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--measure", nargs="+", help="stages, and painting (all)")
    parser.add_argument("--recompute_only", action="store_true", help="leave out the plain steps, where there is no memory for them")
    parser.add_argument("--low_rank", action="store_true", help="stage control in its low-rank form")
    parser.add_argument("--tile", type=int, default=0, help="paint with this --tile")
    parser.add_argument("--process", nargs=3, metavar=("WHAT", "RECOMPUTE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = chosen_options(args)
    usual = [name for name in options if name != "joint_decoder"]  # that takes what stage decoder takes
    # What `painting` paints has masks and photos, so of system text training alone is measured
    measured_ones = args.measure or [*usual, *(["painting"] if args.system != "text" else [])]
    if args.process:
        what, recompute, folder = args.process[0], args.process[1] == "True", Path(args.process[2])
        jt.set_global_seed(0)
        if what == PREPARING:
            found = what_stages_begin_with(args, options, folder)
        elif what == "painting":
            found = painting(args, options, folder)
        else:
            if what == "style":
                options["style"] = replace(options["style"], pictures=str(folder / "styles"))
            found = training(SYSTEMS[args.system].stage(what), options, recompute, folder)
        print(json.dumps(found))
        return

    with tempfile.TemporaryDirectory() as folder:
        count = max(args.batch_size, VALIDATION_BATCH)
        write_dataset(Path(folder) / "data", train=count, test=0, seed=0, size=(args.width, args.height))

        def measured(what: str, recompute: bool) -> dict[str, float]:
            command = [sys.executable, __file__, *sys.argv[1:], "--process", what, str(recompute), folder]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])

        if "style" in measured_ones:
            write_styles(Path(folder) / "styles", styles=1, pictures=count, prompts=1, size=(args.width, args.height))
        if any(SYSTEMS[args.system].stage(name).builds_on for name in measured_ones if name != "painting"):
            measured(PREPARING, False)
        print(f"{args.preset}, {args.width}x{args.height}, batches of {args.batch_size}")
        print("| | at rest | step | recomputing | tensors | ratio | gradients differ by | encoding | validating |")
        print("|---|---|---|---|---|---|---|---|---|")
        for stage in (name for name in measured_ones if name != "painting"):
            recomputed = measured(stage, True)
            plain = None if args.recompute_only else measured(stage, False)
            cells = [stage, f"{recomputed['rest']:.2f} GB"]
            cells += [f"{found['step']:.2f} GB, {found['seconds']:.1f} s" if found else "" for found in (plain, recomputed)]
            if plain:
                a, b = (np.fromfile(f"{folder}/{recompute}.gradients", np.float32) for recompute in (False, True))
                cells += [f"{plain['tensors']:.2f} → {recomputed['tensors']:.2f} GB", f"{recomputed['tensors'] / plain['tensors']:.2f}"]
                cells += [f"{np.linalg.norm(a - b) / np.linalg.norm(a):.1e}"]
            else:
                cells += [f"{recomputed['tensors']:.2f} GB", "", ""]
            cells += [
                f"{recomputed['encoding']:.2f} GB" if stage in ("unet", "control", "style") else "",
                f"{recomputed['validating']:.2f} GB",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        if "painting" in measured_ones:
            found = measured("painting", False)
            print(f"Painting: {found['rest']:.2f} GB at rest, {found['painting']:.2f} GB at the peak")


if __name__ == "__main__":
    main()
