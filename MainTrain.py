"""Trains Shanshui: the autoencoder (stage `vae`), the UNet on its latents (`unet`), and the decoder once more for texture (`decoder`).

    python3 MainTrain.py --input_path /data/landscape        # the competition's training set, or any in its layout
    python3 MainTrain.py                                     # datasets/landscape, or else a set that is drawn there
    python3 MainTrain.py --system judge --input_path …       # another system: here the judge of the score's mask accuracy

Everything goes to checkpoints/<run>/. A run that was stopped, by Ctrl-C or a power cut, goes on where it was when the same command is
given again, and ends with the same weights as one that was never stopped.
"""

import argparse
import math
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from utils import jittor_setup  # before anything that imports Jittor

# isort: split
import jittor as jt

from datasets.pairs import Pair, split
from datasets.synthetic.write import draw_built_in
from models.networks.layers import DTYPES, autocast
from models.networks.recompute import recomputation
from models.systems import DEFAULT, SYSTEMS, system_of
from models.training.learner import start_from
from models.training.loop import train
from models.training.options import StageOptions
from models.training.rehearsal import rehearse
from models.training.run import Run, begun_stages, choose_run, parts, published_weights, restart, stages_of, write_run
from utils import parallel
from utils.errors import UserError, or_exit, telling_of_memory
from utils.files import locked
from utils.options import add_arguments, argument_parser
from utils.signals import on_stop
from utils.stop import Stop

ROOT = Path(__file__).resolve().parent
BUILT_IN, CHECKPOINTS = ROOT / "datasets" / "landscape", ROOT / "checkpoints"
WORKERS = min(8, len(os.sched_getaffinity(0))) if jt.has_cuda else 2  # on the CPU the step itself wants the cores
MOST_WORKERS = 1024
# A run's own text encoder can start from no other, for its tokens are learnt from the run's captions; a style is many networks; and stages
# joint and joint_decoder start from the run's
NEVER_PUBLISHED = ("text_encoder", "style", "joint_vae", "joint_unet", "joint_conditioner", "joint_decoder")
LESS_MEMORY = "take --preset small, --recompute, or a smaller --batch_size with more --accumulate"


def parse_arguments() -> argparse.Namespace:
    """The chosen system's options; which system that is, is asked first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--system", choices=SYSTEMS)
    first.add_argument("--run")
    first.add_argument("--restart", action="store_true")
    chosen, _ = first.parse_known_args()
    run_name = chosen.run or chosen.system or DEFAULT
    name = chosen.system or system_of(CHECKPOINTS / run_name, chosen.restart)
    system = SYSTEMS[name]

    parser = argument_parser(__doc__)
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--system", choices=SYSTEMS, default=name, help=f"what is trained, here %(default)s (default: the run's, or {DEFAULT})"
    )
    run.add_argument("--run", default=run_name, help="name of its folder below checkpoints/, or a path (default: the system's name)")
    run.add_argument(
        "--input_path", type=Path, help="training set: above train_resized/, train/, or imgs/ and labels/ (default: the run's)"
    )
    run.add_argument("--val_path", type=Path, help="validate on these pairs instead of a part of the training set")
    run.add_argument("--val_fraction", type=float, help="share of the pairs held out (default: the run's own, or 0.05)")
    run.add_argument("--leave_out", type=Path, help="list of training pictures to leave out, a stem a line (default: the run's)")
    names, usual = [stage.name for stage in system.stages], ", ".join(system.usual)
    run.add_argument("--stage", choices=names, help=f"train this stage only (default: {usual}, one after the other)")
    run.add_argument("--preset", choices=system.presets, help="(default: base on CUDA, tiny on the CPU)")
    run.add_argument("--seed", type=int, help="default: the run's own, or 0")
    run.add_argument("--restart", action="store_true", help="throw away these stages and those that build on them, and begin anew")
    run.add_argument("--skip_bad", action="store_true", help="leave out damaged pictures and masks instead of stopping")
    run.add_argument("--max_minutes", type=float, default=math.inf, help="stop after so long, ready to go on; exit status 0")
    run.add_argument("--workers", type=int, default=WORKERS, help="threads that read pictures (default: %(default)s)")
    for network in (network for stage in system.stages for network in stage.networks if network not in NEVER_PUBLISHED):
        run.add_argument(f"--init_{network}", type=Path, help=f"start network {network} from published weights (folder or file)")
    run.add_argument("--amp", choices=DTYPES, default="float32", help="precision of products; weights stay float32 (default: %(default)s)")
    run.add_argument("--recompute", action="store_true", help="keep less for the gradient and compute it again: less memory, longer steps")
    group = parser.add_argument_group("every stage of this command; a resumed run keeps its own")
    add_arguments(group, StageOptions, "", {})
    for stage in system.stages:
        group = parser.add_argument_group(f"stage {stage.name}; the presets' values in parentheses")
        add_arguments(group, stage.Options, f"{stage.name}_", {name: preset[stage.name] for name, preset in system.presets.items()})
    return parser.parse_args()


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError, naming every fault, for what makes no sense here."""
    system = SYSTEMS[args.system]
    trained = stages_of(args, system)
    faults = [f"--workers is {args.workers}, but must be 0 to {MOST_WORKERS}"] if not 0 <= args.workers <= MOST_WORKERS else []
    faults += ["--seed must be at least 0 and below 2^31"] if args.seed is not None and not 0 <= args.seed < 2**31 else []
    faults += ["--max_minutes must be above 0"] if not args.max_minutes > 0 else []
    faults += ["--run must name a folder of its own"] if CHECKPOINTS.is_relative_to((CHECKPOINTS / args.run).resolve()) else []
    faults += ["--val_fraction must be above 0 and below 1"] if args.val_fraction is not None and not 0 < args.val_fraction < 1 else []
    for stage in system.stages:
        for network, path in published_weights(args, stage).items():
            faults += [f"{path} does not exist"] if not path.exists() else []
            faults += [f"--init_{network}: this command does not train stage {stage.name}"] if stage.name not in trained else []
    if faults:
        raise UserError("; ".join(faults))


def training_and_validation_pairs(run: Run, skip_bad: bool) -> tuple[list[Pair], list[Pair]]:
    """The checked data set, split. Draws the built-in one where there is none and none is named."""
    root = Path(run.input_path or BUILT_IN)
    if run.input_path is None:
        draw_built_in(BUILT_IN)

    def checked(root: Path, what: str, leave_out: Path | None = None) -> list[Pair]:
        report, cache = run.folder / f"bad_{what}_files.txt", run.folder / f"checked_{what}.json"
        return SYSTEMS[run.system].check(root, skip_bad, report_path=report, cache=cache, leave_out=leave_out)

    pairs = checked(root, "training", Path(run.leave_out) if run.leave_out else None)
    if run.val_path is not None:
        return pairs, checked(Path(run.val_path), "validation")
    return split(pairs, run.val_fraction, run.seed)


def train_stages(run: Run, stages: list[str], pairs: tuple[list[Pair], list[Pair]], args: argparse.Namespace, stop: Stop) -> bool:
    """Trains one stage after the other; returns whether all are done."""
    system = SYSTEMS[run.system]
    begun, exported = begun_stages(run.folder), {path.parent.name for path in run.folder.glob("*/config.json")}
    published = {name: published_weights(args, system.stage(name)) for name in stages if name not in begun}
    # A stage whose networks are not there yet, as the disk was full, is tried once more: others stand on it.
    to_try = [name for name in stages if name not in begun or system.stage(name).networks[0] not in exported]
    if len(to_try) > 1:
        rehearse(system, to_try, pairs, run, published)
    for name, part in ((stage, part) for stage in stages for part in parts(system.stage(stage), run)):
        if part is not run:
            print(f"Stage {name}: {part.folder.name}")
        jt.set_global_seed(run.seed, different_seed_for_mpi=False)
        stage = system.stage(name)(run.options[name], part.folder)
        start_from(stage, published.get(name, {}))
        if not train(stage, pairs, part, system.following([name])[1:], args.workers, stop):
            return False
        del stage
        jt.gc()  # its memory is the next stage's
    return True


def say_how_to_go_on(what_is_saved: str, restarted: bool) -> None:
    again = shlex.join([sys.executable, *(word for word in sys.argv if not (restarted and word == "--restart"))])
    if parallel.MAIN:
        print(f"Stopped. {what_is_saved} To go on: {f'mpirun -np {parallel.SIZE} … ' if parallel.SIZE > 1 else ''}{again}", file=sys.stderr)


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    system, folder = SYSTEMS[args.system], CHECKPOINTS / args.run
    stages, stop = stages_of(args, system), Stop(args.max_minutes)
    on_stop(stop.catch)
    parallel.begin()
    print(f"Device: {jittor_setup.DEVICE}{f', {parallel.SIZE} processes' if parallel.SIZE > 1 else ''}")
    with ExitStack() as stack:
        if parallel.MAIN:
            stack.enter_context(locked(folder))
        stack.enter_context(autocast(args.amp))
        stack.enter_context(recomputation(args.recompute))
        stack.enter_context(telling_of_memory(LESS_MEMORY))
        run = choose_run(args, folder, args.system, SYSTEMS, default_preset="base" if jt.has_cuda else "tiny")
        parallel.wait_for_all()  # before one writes what others have yet to read
        sizes = ", ".join(f"{name} {'x'.join(map(str, run.options[name].size))}" for name in stages)
        print(f"System {run.system}, preset {run.preset}: {sizes}. Run: {folder}")
        print(f"To watch it: sheets in {folder / 'previews'}, and curves by tensorboard --logdir {folder / 'tensorboard'}")
        restarted = False
        try:
            with parallel.main_first():
                pairs = training_and_validation_pairs(run, args.skip_bad)
                print(f"{len(pairs[0])} pairs to train on, {len(pairs[1])} to validate on")
                if parallel.MAIN:
                    if args.restart:
                        restart(run, system, stages)
                        restarted = True
                    write_run(run)
            if not train_stages(run, stages, pairs, args, stop):
                say_how_to_go_on("What was done is saved.", restarted)
                sys.exit(stop.status)
        except KeyboardInterrupt:
            say_how_to_go_on("What was saved before is there.", restarted)
            sys.exit(stop.status)
    if system.painter and args.stage is None:
        what = "--prompts <file>" if run.system == "text" else "--input_path <masks> --img_path <photos>"
        print(f"Done. To paint: python3 MainTest.py --checkpoint {folder} {what} --output_path <results>")


if __name__ == "__main__":
    with parallel.failing_together():
        or_exit(main)
