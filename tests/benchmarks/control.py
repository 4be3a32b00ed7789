"""What stage `control` is worth, beside training the UNet on for the same minutes: of a trained run, prints a table.

    python tests/benchmarks/control.py --checkpoint checkpoints/real --input_path real --test_path real/test --img_path real/train/imgs \
        --judge checkpoints/judge --minutes 20 --output_path control

In copies of the run are trained: the UNet some steps more, a ControlNet in the full form, and one of low rank. A few steps of each are
timed first, and its number of steps is chosen so that it takes --minutes. Painted and scored are the run as it is and the three, with
guidance and without it, as guided pictures follow their masks further than photos do, and the ControlNets with --control_weight 2. For
a run whose mask conditioning is weak, train one with --unet_drop 0.25: the mask is left out half of the time. All that is done stays in
--output_path, so the same command goes on where it was cut short.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np

from models.networks.pretrained import WEIGHTS
from models.systems import SYSTEMS
from models.training.run import read_run
from tests.benchmarks.commands import HEAD, call, copied, line, painted_and_scored
from tests.benchmarks.duel import TRIAL, seconds
from utils.checkpoint import read_weights, write_json
from utils.errors import or_exit
from utils.logger import read_log

ENTRANTS = {  # the stage that is trained, and its options
    "training on": ("unet",),
    "control, full": ("control", "--control_form", "full", "--ema", 0.999),
    "control, low rank": ("control", "--control_form", "low_rank", "--ema", 0.999),
}
WAYS = {"": (), ", no guidance": ("--guidance", 1, "--ref_guidance", 1)}  # of painting, with options
WAYS_WITH_CONTROL = WAYS | {", weight 2": ("--control_weight", 2)}
# What goes on training is a copy: of the run as it is, with the pictures' latents
WITHOUT = ("best", "control", "joint*", "previews", "tensorboard", ".lock")


def trained(name: str, args: argparse.Namespace) -> tuple[Path, str]:
    """Trains an entrant; returns its folder, and its cells of the table: numbers trained, MB of the file, steps, seconds a step."""
    stage, *options = ENTRANTS[name]
    folder = args.output_path.resolve() / name.replace(", ", "-").replace(" ", "_")
    run, note = folder / "run", folder / "steps.json"
    width, height = read_run(args.checkpoint, SYSTEMS).options["unet"].size
    done = [entry["step"] for entry in read_log(args.checkpoint / "log.jsonl") if entry.get("stage") == stage]
    before = max(done, default=0) if stage == "unet" else 0  # a ControlNet begins anew, even of a run that has one
    words = ("--stage", stage, "--input_path", args.input_path, "--val_path", args.test_path, *options)
    words += ("--width", width, "--height", height, *(("--batch_size", args.batch_size) if args.batch_size else ()))
    if not note.is_file():
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        copied(args.checkpoint, trial, *WITHOUT)
        call("MainTrain.py", "--run", trial, *words, "--steps", before + TRIAL)
        a_step = float(np.median(seconds(trial / "log.jsonl", stage)[-TRIAL // 2 :]))
        write_json(note, {"steps": before + max(TRIAL, round(60 * args.minutes / a_step))})
        shutil.rmtree(trial)
    copied(args.checkpoint, run, *WITHOUT)
    steps = json.loads(note.read_text())["steps"]
    call("MainTrain.py", "--run", run, *words, "--steps", steps)
    files = [run / network / WEIGHTS for network in SYSTEMS["diffusion"].stage(stage).networks]  # with the UNet learns its conditioner
    files = [file for file in files if file.is_file()]
    numbers, size = sum(array.size for file in files for array in read_weights(file).values()), sum(file.stat().st_size for file in files)
    a_step = np.median(seconds(run / "log.jsonl", stage)[before:])
    return run, f"{numbers / 1e6:.2f} M | {size / 1e6:.1f} MB | {steps - before} | {a_step:.2f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "input_path", "test_path", "img_path", "judge", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, help="of all of them (default: the run's, and the preset's)")
    args = parser.parse_args()

    def scored(name: str, run: Path, cells: str, *words) -> str:
        pictures = args.output_path.resolve() / "pictures" / name.replace(", ", "-").replace(" ", "_")
        given = ("--checkpoint", run, "--input_path", args.test_path, "--img_path", args.img_path, "--judge", args.judge)
        return f"{line(name, painted_and_scored(pictures, *given, '--color_match', 'none', *words))} {cells}"

    lines = [scored(f"the run as it is{way}", args.checkpoint, "| | | |", *words) for way, words in WAYS.items()]
    for name, (stage, *_) in ENTRANTS.items():
        run, cells = trained(name, args)
        ways = WAYS_WITH_CONTROL if stage == "control" else WAYS
        lines += [scored(f"{name}{way}", run, cells, *words) for way, words in ways.items()]
        print("\n".join(lines[-len(ways) :]), flush=True)
    first, second = HEAD.format("").split("\n")
    print("\n" + "\n".join([f"{first} trained | file | steps | a step |", f"{second}---|---|---|---|", *lines]))


if __name__ == "__main__":
    or_exit(main)
