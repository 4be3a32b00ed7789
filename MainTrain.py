"""Trains Shanshui: the autoencoder (stage `vae`), then the UNet on its latents (stage `unet`).

    python3 MainTrain.py --input_path /data/landscape        # the competition's training set, or any in its layout
    python3 MainTrain.py                                     # datasets/landscape, or else a set drawn by datasets/synthetic.py

Everything goes to checkpoints/<run>/. A run that was stopped, by Ctrl-C or a power cut, goes on where it was when the same command is
given again, and ends with the same weights as one that was never stopped.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path

from utils import jittor_setup  # before anything that imports Jittor

# isort: split
import jittor as jt
import numpy as np
from tqdm import tqdm

from datasets.loader import batches, stack
from datasets.pairs import Pair, check_training_pairs, split
from datasets.synthetic.write import write_dataset
from models.networks.layers import DTYPES, autocast
from models.networks.pretrained import load_run, save_network
from models.networks.recompute import recomputation
from models.presets import ARCHITECTURE, PRESETS, Config, check_config
from models.stages import MAIN_STAGES, STAGES, following
from utils import parallel
from utils.checkpoint import latest_training_state, read_training_state, save_training_state, write_json
from utils.errors import UserError, or_exit
from utils.image import contact_sheet, write_png
from utils.logger import RunLog

ROOT = Path(__file__).resolve().parent
BUILT_IN = ROOT / "datasets" / "landscape"
BUILT_IN_PAIRS = 150, 8  # drawn for training and for testing
VALIDATION_PAIRS = 160  # validated on at most: more would cost minutes and change little
VALIDATION_BATCH = 8  # however many a training step takes, and one process has the memory for
PREVIEW_PAIRS = 4
RUN = ("seed", "val_fraction", "input_path", "val_path")  # what a run keeps besides its preset and configuration
KEEP = 2  # training states, besides the best
WORKERS = min(8, len(os.sched_getaffinity(0))) if jt.has_cuda else 2  # on the CPU the step itself wants the cores


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--input_path",
        type=Path,
        help="training set: a folder with imgs/ and labels/, itself or below train_resized/ or train/ (default: the run's own)",
    )
    run.add_argument("--val_path", type=Path, help="validate on these pairs instead of a part of the training set")
    run.add_argument("--run", default="main", help="name of the folder below checkpoints/, or a path (default: %(default)s)")
    run.add_argument("--stage", choices=STAGES, help="train this stage only (default: vae, then unet); segformer is the score's judge")
    run.add_argument("--preset", help=f"{', '.join(PRESETS)} (default: base on CUDA, tiny on the CPU)")
    run.add_argument("--restart", action="store_true", help="throw away what the run has of these stages and begin anew")
    run.add_argument("--skip_bad", action="store_true", help="leave out damaged pictures and masks instead of stopping")
    run.add_argument("--max_minutes", type=float, default=math.inf, help="stop after so long, ready to go on")
    run.add_argument("--seed", type=int, help="default: the run's own, or 0")
    run.add_argument("--workers", type=int, default=WORKERS, help="threads that read pictures (default: %(default)s)")
    run.add_argument("--val_fraction", type=float, help="share of the pairs held out (default: the run's own, or 0.05)")
    for stage in STAGES:
        run.add_argument(f"--init_{stage}", type=Path, help=f"start stage {stage} from published weights (folder or file)")
    run.add_argument("--amp", choices=DTYPES, default="float32", help="precision of products; weights stay float32 (default: %(default)s)")
    run.add_argument(
        "--recompute",
        action="store_true",
        help="keep less of the autoencoder and the UNet for the gradient and compute it again: less memory, longer steps",
    )
    run.add_argument("--accumulate", type=int, default=1, help="micro-batches of batch_size a step (default: %(default)s)")
    short = parser.add_argument_group("short for all stages")
    short.add_argument("--steps", type=int, help="--vae_steps, --unet_steps ...")
    short.add_argument("--batch_size", type=int, help="--vae_batch_size, --unet_batch_size ...")
    short.add_argument("--lr", type=float, help="--vae_lr, --unet_lr ...: the highest learning rate")
    preset = parser.add_argument_group("fields of the preset; a resumed run keeps its own")
    for field in fields(Config):
        several = isinstance(field.default, tuple)
        kind = type(field.default[0]) if several else type(field.default)
        values = {name: show(getattr(config, field.name)) for name, config in PRESETS.items()}
        values = ", ".join(f"{name} {value}" for name, value in values.items()) if len({*values.values()}) > 1 else values["base"]
        preset.add_argument(
            f"--{field.name}", type=kind, nargs="+" if several else None, metavar=kind.__name__, help=f"{field.metadata['help']} ({values})"
        )
    return parser.parse_args()


def show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError, naming every fault, for what makes no sense here."""
    faults = [f"--{name} must be at least {least}" for name, least in (("accumulate", 1), ("workers", 0)) if getattr(args, name) < least]
    if args.seed is not None and args.seed < 0:
        faults.append("--seed must not be negative")
    if args.val_fraction is not None and not 0 < args.val_fraction < 1:
        faults.append("--val_fraction must be above 0 and below 1")
    if args.preset is not None and args.preset not in PRESETS:
        faults.append(f"--preset {args.preset}: there is no such preset. Choose {', '.join(PRESETS)}")
    weights = {stage: path for stage in STAGES if (path := getattr(args, f"init_{stage}")) is not None}
    faults += [f"{path} does not exist" for path in weights.values() if not path.exists()]
    faults += [f"--init_{stage}: this command does not train stage {stage}" for stage in weights if stage not in stages_of(args)]
    if faults:
        raise UserError("; ".join(faults))


def stages_of(args: argparse.Namespace) -> list[str]:
    return [args.stage] if args.stage else list(MAIN_STAGES)


def choose_config(args: argparse.Namespace, folder: Path) -> dict:
    """What <run>/run.json will hold: the run's own choices or the preset's, with what the command line says."""
    said = {field.name: getattr(args, field.name) for field in fields(Config) if getattr(args, field.name) is not None}
    for short in ("steps", "batch_size", "lr"):
        if getattr(args, short) is not None:
            said = {f"{stage}_{short}": getattr(args, short) for stage in STAGES} | said
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}

    begun = {name for name in STAGES if latest_training_state(folder / "state" / name)}
    anew = args.restart and begun <= anew_by_restart(stages_of(args))
    stored = load_run(folder) if (folder / "run.json").is_file() and not anew else None
    missing = [name for name in ("preset", *RUN) if stored and name not in stored]
    if missing:  # painting does without them
        raise UserError(f"{folder / 'run.json'} is damaged ({', '.join(missing)} missing): put it back, or begin anew with --restart")
    preset = args.preset or (stored["preset"] if stored else "base" if jt.has_cuda else "tiny")
    config = replace(stored["config"] if stored and stored["preset"] == preset else PRESETS[preset], **said)
    check_config(config)
    run = {"preset": preset, "config": config, "seed": 0, "val_fraction": 0.05, "input_path": None, "val_path": None}
    for name in RUN:
        given = getattr(args, name)
        run[name] = str(given.resolve()) if isinstance(given, Path) else given if given is not None else (stored or run)[name]
    if stored and begun:
        changed = [name for name in ARCHITECTURE if getattr(config, name) != getattr(stored["config"], name)]
        changed += [name for name in ("seed", "val_fraction") if run[name] != stored[name]]
        if changed:
            raise UserError(
                f"{folder} was trained with preset {stored['preset']}; this command changes what it cannot: {', '.join(changed)}. "
                "Give the run another name with --run, or begin all its stages anew with --restart."
            )
    return run


def training_and_validation_pairs(run: dict, args: argparse.Namespace, folder: Path) -> tuple[list[Pair], list[Pair]]:
    """The checked data set, split. Draws the built-in one where there is none and none is named."""
    root = Path(run["input_path"] or BUILT_IN)
    if run["input_path"] is None and not BUILT_IN.is_dir():
        print(f"No --input_path, and no data in {BUILT_IN}: drawing the built-in landscapes there.")
        write_dataset(BUILT_IN, train=BUILT_IN_PAIRS[0], test=BUILT_IN_PAIRS[1], seed=0)

    def checked(root: Path, what: str) -> list[Pair]:
        report, cache = folder / f"bad_{what}_files.txt", folder / f"checked_{what}.json"
        return check_training_pairs(root, args.skip_bad, report_path=report, cache=cache)

    pairs = checked(root, "training")
    if run["val_path"] is not None:
        return pairs, checked(Path(run["val_path"]), "validation")
    return split(pairs, run["val_fraction"], run["seed"])


class Stop:
    """Whether training is to stop: after Ctrl-C or SIGTERM, or when the time is up.

    While `saving` is True a signal lets the step end, so that it can be saved; a second one, or one outside the training loop, where
    nothing is to be saved, stops at once.
    """

    def __init__(self, max_minutes: float):
        self.deadline = time.monotonic() + 60 * max_minutes
        self.signal, self.saving = None, False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.catch)

    def catch(self, number: int, frame: object) -> None:
        twice, self.signal = self.signal is not None, number
        if twice or not self.saving:
            raise KeyboardInterrupt
        tqdm.write("Stopping after this step, to save it. Once more to stop at once.", file=sys.stderr)

    @property
    def wanted(self) -> bool:
        return self.signal is not None or time.monotonic() > self.deadline


def train(stage, train_pairs: list[Pair], val_pairs: list[Pair], args: argparse.Namespace, folder: Path, seed: int, stop: Stop) -> bool:
    """Trains a stage to its last step, or until `stop`; returns whether it is done. The only training loop there is."""
    states = folder / "state" / stage.name
    start, path = 0, latest_training_state(states)
    if path is not None:
        arrays, info = read_training_state(path)
        stage.learner.load(arrays, str(path))
        start = info["step"]
    parallel.check_alike("All processes must see the same checkpoints/: share that folder between the machines; steps done differ", start)
    if start >= stage.steps:
        print(f"Stage {stage.name}: done ({start} steps)")
        return True
    later = [name for name in following(stage.name)[1:] if latest_training_state(folder / "state" / name)]
    if later:
        raise UserError(
            f"Stage {', '.join(later)} of {folder} builds on stage {stage.name} as it is: to train that on, give --restart too."
        )
    with parallel.main_first():
        training_set, validation_set = stage.datasets(train_pairs, val_pairs)
    log = RunLog(folder, stage.name, resume_step=start) if parallel.MAIN else None
    metrics = {}

    def save(step: int) -> None:
        export(stage, folder)  # first: a run killed in between goes on from the state before, and exports again
        save_training_state(states, step, stage.learner.state(), {"stage": stage.name, **metrics}, KEEP)

    def due(step: int, every: int) -> bool:
        """Whether it is for this process to write what is written every so many steps and after the last."""
        return parallel.MAIN and (step % every == 0 or step == stage.steps)

    share = parallel.RANK, parallel.SIZE
    stream = batches(training_set, stage.batch_size, seed, start * args.accumulate, args.workers, share)
    bar = tqdm(initial=start, total=stage.steps, desc=stage.name, unit="step", dynamic_ncols=True, disable=not parallel.MAIN)
    with closing(log) if log else nullcontext(), closing(stream), bar:
        stop.saving = True
        for step in range(start, stage.steps):
            begun = time.monotonic()
            micro_batches = list(islice(stream, args.accumulate))
            waited = time.monotonic() - begun
            scalars = train_step(stage, micro_batches, step, args)
            scalars |= {"seconds": time.monotonic() - begun, "waited": waited}  # for the step, and of these for its pictures
            done = step + 1
            if parallel.MAIN:
                log.scalars(done, scalars)
            bar.update()
            bar.set_postfix({name: f"{value:.4f}" for name, value in (scalars | metrics).items() if name in ("loss", "val_loss")})
            if due(done, stage.config.validate_every):
                metrics = validate(stage, validation_set, seed)
                log.scalars(done, metrics)
                note_best(stage, folder, done, metrics)
            if due(done, stage.config.preview_every):
                preview(stage, val_pairs, folder, done, log)
            stopping = parallel.anywhere(stop.wanted)  # asked once: what arrives between saving and leaving must wait for the next step
            if due(done, 1 if stopping else stage.config.save_every):
                save(done)
            if stopping:
                break
        stop.saving = False
    parallel.wait_for_all()  # for the last save: what comes next reads it
    return done == stage.steps


def train_step(stage, micro_batches: list[dict[str, np.ndarray]], step: int, args: argparse.Namespace) -> dict[str, float]:
    """One update by this process's share of each micro-batch; returns the means of their losses."""
    scalars = []

    def losses():
        for batch in micro_batches:
            with recomputation(args.recompute):
                scalars.append(stage.losses(batch))
            if args.recompute:
                scalars[-1]["loss"].sync()  # run together, the forward and the backward pass would hold more at once
            yield scalars[-1]["loss"]

    update = stage.learner.update(losses(), step)
    return parallel.mean_scalars({name: float(np.mean([float(part[name].item()) for part in scalars])) for name in scalars[0]}) | update


def validate(stage, dataset, seed: int) -> dict[str, float]:
    """Means over the validation pairs, under the averaged weights. The same pictures and noise every time."""
    count = min(len(dataset), VALIDATION_PAIRS)
    totals: dict[str, float] = {}
    with stage.learner.averaged():
        for first in tqdm(range(0, count, VALIDATION_BATCH), desc="validating", unit="batch", leave=False, dynamic_ncols=True):
            indices = range(first, min(first + VALIDATION_BATCH, count))
            examples = [dataset.example(i, np.random.default_rng((seed, i))) for i in indices]
            for name, value in stage.validate(stack(examples)).items():
                totals[name] = totals.get(name, 0) + value * len(indices) / count
    return totals


def preview(stage, pairs: list[Pair], folder: Path, step: int, log: RunLog) -> None:
    """Writes <run>/previews/<stage>-<step>.png, painted with the averaged weights."""
    with stage.learner.averaged():
        sheet = contact_sheet(stage.preview(pairs[:PREVIEW_PAIRS]), titles=stage.columns)
    write_png(folder / "previews" / f"{stage.name}-{step:08d}.png", sheet)
    log.pictures(step, {"preview": sheet})


def export(stage, folder: Path) -> None:
    """Writes the averaged weights in diffusers' layout."""
    for name, network in stage.learner.networks.items():
        save_network(network, stage.learner.averages[name].averages, folder / name)


def note_best(stage, folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Keeps the weights of the lowest validation loss in <run>/best, and says in best.json which step they are of."""
    path = folder / "best" / "best.json"
    best = json.loads(path.read_text()) if path.is_file() else {}
    if metrics["val_loss"] < best.get(stage.name, {}).get("val_loss", math.inf):
        export(stage, folder / "best")
        write_json(path, best | {stage.name: {"step": step, **metrics}})


def anew_by_restart(stages: list[str]) -> set[str]:
    """The stages that --restart begins anew: those that are asked for, and those that build on them."""
    return {name for asked in stages for name in following(asked)}


def restart(stages: set[str], folder: Path) -> None:
    """Throws away what these stages have made. Nothing but what a run writes is ever removed."""
    if not (folder / "run.json").is_file():
        return  # a new run, or a folder that is none of ours
    path = folder / "best" / "best.json"
    if path.is_file():
        write_json(path, {name: best for name, best in json.loads(path.read_text()).items() if name not in stages})
    for stage in stages:
        for part in ("state", "best"):
            shutil.rmtree(folder / part / stage, ignore_errors=True)
    if "vae" in stages:
        shutil.rmtree(folder / "latents", ignore_errors=True)


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    folder = ROOT / "checkpoints" / args.run
    stages = stages_of(args)
    stop = Stop(args.max_minutes)
    parallel.begin()
    print(f"Device: {jittor_setup.DEVICE}{f', {parallel.SIZE} processes' if parallel.SIZE > 1 else ''}")
    run = choose_config(args, folder)
    parallel.wait_for_all()  # before one writes what others have yet to read
    config, seed = run["config"], run["seed"]
    sizes = {f"--{name}_batch_size": getattr(config, f"{name}_batch_size") for name in stages}
    uneven = [f"{name} {size}" for name, size in sizes.items() if size % parallel.SIZE]
    if uneven:
        raise UserError(f"{' and '.join(uneven)} cannot be shared out evenly among {parallel.SIZE} processes.")
    print(f"Preset {run['preset']}: {config.width}x{config.height}. Run: {folder}")
    try:
        with parallel.main_first():
            pairs = training_and_validation_pairs(run, args, folder)
            print(f"{len(pairs[0])} pairs to train on, {len(pairs[1])} to validate on")
            if parallel.MAIN:
                if args.restart:
                    restart(anew_by_restart(stages), folder)
                write_json(folder / "run.json", run | {"config": asdict(config)})
        for name in stages:
            jt.set_global_seed(seed, different_seed_for_mpi=False)
            stage = STAGES[name](config, folder)
            if args.amp == "float16":
                stage.learner.optimizer.scale_loss()
            weights = getattr(args, f"init_{name}")
            if weights is not None and latest_training_state(folder / "state" / name) is None:
                stage.learner.initialise(name, weights)
            with autocast(args.amp):  # validation too: what cuDNN finds the best way for one type Jittor takes for the other
                done = not parallel.anywhere(stop.wanted) and train(stage, *pairs, args, folder, seed, stop)
            if not done:
                say_how_to_go_on("Saved.")
                sys.exit(128 + stop.signal if stop.signal else 0)
    except KeyboardInterrupt:
        say_how_to_go_on("What was saved before is there.")
        sys.exit(128 + stop.signal)
    if args.stage is None:
        print(f"Done. To paint: python3 MainTest.py --checkpoint {folder} --input_path <masks> --img_path <photos> --output_path <results>")


def say_how_to_go_on(what_is_saved: str) -> None:
    again = shlex.join([sys.executable, *(word for word in sys.argv if word != "--restart")])
    if parallel.MAIN:
        print(f"Stopped. {what_is_saved} To go on: {f'mpirun -np {parallel.SIZE} … ' if parallel.SIZE > 1 else ''}{again}", file=sys.stderr)


if __name__ == "__main__":
    with parallel.failing_together():
        or_exit(main)
