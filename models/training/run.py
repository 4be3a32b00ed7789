"""A run: a folder below checkpoints/, and what was chosen for it, which is kept in its run.json."""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jittor as jt

from datasets.pairs import check_training_pairs
from models.networks.pretrained import BESIDE, finish_saving
from models.training.options import StageOptions
from utils import options as fields
from utils import parallel
from utils.checkpoint import latest_training_state, write_json
from utils.errors import UserError
from utils.files import atomic_write, remove_leftovers
from utils.logger import read_log

SHIPPED = "demo"  # the run below checkpoints/ that comes with the program
BEST_ADVICE = "put it back, or remove it, and the next validation is taken for the best so far"
OWN = ("seed", "val_fraction", "input_path", "val_path", "leave_out")  # a run keeps these, its system, its preset and its stages' options


@dataclass(frozen=True)
class System:
    """Stages that are trained one after the other, and what paints with them. models/systems.py lists those there are."""

    stages: tuple[type, ...]
    painter: type | None
    presets: dict[str, dict[str, StageOptions]]  # by preset and stage
    optional: tuple[str, ...] = ()  # of the stages, those that are trained only when they are named
    check: Callable = check_training_pairs  # finds and checks the data set that it is trained on

    @property
    def usual(self) -> list[str]:
        """The stages that are trained where none is named."""
        return [stage.name for stage in self.stages if stage.name not in self.optional]

    def stage(self, name: str) -> type:
        return next(stage for stage in self.stages if stage.name == name)

    def following(self, names: Iterable[str]) -> list[str]:
        """These stages and all that build on them, directly or by way of others, in order."""
        found = set(names)
        for stage in self.stages:  # each stands after those that it builds on
            if found & {*stage.builds_on}:
                found.add(stage.name)
        return [stage.name for stage in self.stages if stage.name in found]


@dataclass(frozen=True)
class Run:
    folder: Path
    system: str  # a key of SYSTEMS
    preset: str
    options: dict[str, StageOptions]  # by stage
    seed: int = 0
    val_fraction: float = 0.05  # share of the pairs held out
    input_path: str | None = None  # None: the built-in data set
    val_path: str | None = None  # None: a share of the training set
    leave_out: str | None = None  # a list of pictures of the training set (datasets/leave_out.py); None: all are taken
    threads: int | None = None  # of the CPU, that it began with: others add up in another order; None: not known, or several processes


def read_run(folder: Path, systems: dict[str, System]) -> Run:
    """The run in a folder. Options that were added after its run.json was written take the preset's value. Raises UserError."""
    path = folder / "run.json"
    stored = read_json(folder)
    system = systems.get(stored["system"])
    if system is None:
        raise UserError(f"{path} names system {stored['system']}, which does not exist: choose {', '.join(systems)}")
    preset = system.presets.get(stored["preset"])
    if preset is None:
        raise UserError(f"{path} names preset {stored['preset']}, which does not exist: choose {', '.join(system.presets)}")
    options, wrong = {}, []
    for name, defaults in preset.items():
        try:
            options[name] = fields.from_stored(defaults, stored["stages"].get(name, {}))
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{path} has {error} for stage {name}: it was written by another version of this program, or is damaged. Nothing is lost: "
                "use that version, or take the option out of the file."
            ) from error
        wrong += fields.faults(options[name], f"{name}_")
    trained = [stage.name for stage in system.stages if any((folder / network).is_dir() for network in stage.networks)]
    wrong = wrong or [fault for name in trained for fault in options[name].faults(options)]
    if wrong:
        raise UserError(f"{path} is damaged, or names what is no longer there ({'; '.join(wrong)}): put right what it says")
    return Run(folder, stored["system"], stored["preset"], options, **{name: stored[name] for name in (*OWN, "threads")})


def read_json(folder: Path) -> dict:
    """What run.json holds, with everything in it that a run must have. Raises UserError."""
    path = folder / "run.json"
    types = {"system": str, "preset": str, "stages": dict, "seed": int, "val_fraction": (float, int)}
    types["threads"] = (int, type(None))
    types |= dict.fromkeys(("input_path", "val_path", "leave_out"), (str, type(None)))
    try:
        stored = json.loads(path.read_text("utf-8", errors="surrogateescape"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is missing: {folder} is not a run of MainTrain.py") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): put it back, or begin the run anew with --restart") from error
    if isinstance(stored, dict):
        stored = {"leave_out": None, "threads": None} | stored  # which are younger than some runs
    wrong = (
        ["its content"] if not isinstance(stored, dict) else [name for name in types if not isinstance(stored.get(name, ()), types[name])]
    )
    if wrong:
        raise UserError(f"{path} is damaged ({', '.join(wrong)} missing or wrong): put it back, or begin the run anew with --restart")
    return stored


def stored_run(folder: Path, system: System, systems: dict[str, System], needed: bool) -> Run | None:
    """The run in a folder, or None where there is none. Raises UserError where it cannot be read, or is of another system than `system`; if
    it is not needed, since all is begun anew, that counts as none."""
    if not (folder / "run.json").is_file():
        return None
    try:
        run = read_run(folder, systems)
        if not {stage.name for stage in systems[run.system].stages} <= {stage.name for stage in system.stages}:
            raise UserError(f"{folder} is a run of system {run.system}: give this one another name with --run")
    except UserError:
        if needed:
            raise
        return None
    return run


def choose_run(args: argparse.Namespace, folder: Path, name: str, systems: dict[str, System], default_preset: str) -> Run:
    """The run that a command trains: its stored options, or the preset's, with what the command line says. Raises UserError naming every
    fault."""
    system, stages = systems[name], stages_of(args, systems[name])
    begun = begun_stages(folder)
    anew = set(system.following(stages)) if args.restart else set()
    check_that_it_is_ours(folder, system, stages, begun, anew)
    stored = stored_run(folder, system, systems, needed=bool(begun - anew) or not args.restart)
    preset = args.preset or (stored.preset if stored else default_preset)
    options = dict(system.presets[preset]) | (stored.options if stored and stored.preset == preset else {})
    for stage in system.stages:
        said = fields.given(args, StageOptions, "") if stage.name in stages else {}
        said |= fields.given(args, stage.Options, f"{stage.name}_")
        published = published_weights(args, stage) if stage.name not in begun - anew else {}
        options[stage.name] = options[stage.name].for_published_weights(published, said)
    own = {key: resolved(getattr(args, key)) for key in OWN if getattr(args, key) is not None}
    run = replace(stored or Run(folder, name, preset, options), system=name, preset=preset, options=options, **own)
    check_options(options, stages)
    if stored:
        check_unchanged(stored, run, begun - anew)
    if not begun - anew:
        run = replace(run, threads=threads_here())
    if begun - anew:
        if None not in (run.threads, threads_here()) and run.threads != threads_here():
            print(
                f"This run began with {run.threads} threads and goes on with {threads_here()}. The weights are bit for bit those of a "
                f"run that was never stopped only with as many threads (OMP_NUM_THREADS={run.threads})."
            )
        read_best(folder)  # that it is damaged is to be said now, and not at the first validation
    return run


def check_options(options: dict[str, StageOptions], stages: list[str]) -> None:
    """Raises UserError naming every fault in a run's options, and in how those of these stages go together."""
    faults = [fault for stage in options for fault in fields.faults(options[stage], f"{stage}_")]
    if not faults:
        faults = [fault for stage in stages for fault in options[stage].faults(options)]
        faults += [
            f"--{stage}_batch_size {options[stage].batch_size} cannot be shared out evenly among {parallel.SIZE} processes"
            for stage in stages
            if options[stage].batch_size % parallel.SIZE
        ]
    if faults:
        raise UserError("These options do not go: " + "; ".join(faults))


def check_unchanged(before: Run, after: Run, begun: set[str]) -> None:
    """Raises UserError naming what stages that have begun cannot change, and yet do."""
    changed = [
        f"{name}_{field}" for name in sorted(begun) for field in fields.changed_though_fixed(before.options[name], after.options[name])
    ]
    changed += [key for key in ("seed", "val_fraction") if begun and getattr(before, key) != getattr(after, key)]
    if changed:
        raise UserError(
            f"{before.folder} was trained with preset {before.preset}; this command changes what it cannot: {', '.join(changed)}. "
            "Give the run another name with --run, or begin its stages anew with --restart."
        )


def threads_here() -> int | None:
    """How many threads a process alone computes with on the CPU; None where that is not all that decides in which order it adds up."""
    if parallel.SIZE > 1 or jt.flags.use_cuda:
        return None
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdigit() else len(os.sched_getaffinity(0))


def published_weights(args: argparse.Namespace, stage: type) -> dict[str, Path]:
    """Where networks of a stage are to start from, by name."""
    return {network: path for network in stage.networks if (path := getattr(args, f"init_{network}", None)) is not None}


def stages_of(args: argparse.Namespace, system: System) -> list[str]:
    """The stages that a command trains."""
    return [args.stage] if args.stage else system.usual


def parts(stage: type, run: Run) -> list[Run]:
    """The runs that a stage is trained in: this one, or one in a folder below it for each of the `parts` that the stage has."""
    if not hasattr(stage, "parts"):
        return [run]
    return [replace(run, folder=run.folder / stage.name / part) for part in stage.parts(run.options[stage.name])]


def resolved(value: object) -> object:
    return str(value.resolve()) if isinstance(value, Path) else value


def begun_stages(folder: Path) -> set[str]:
    """The stages that a run has a training state of, or a part of it, and not what a run that stands in this one's folder has."""
    states = [path for run in (folder, *begun_parts(folder)) for path in run.glob("state/*")]
    return {path.name for path in states if latest_training_state(path)}


def begun_parts(folder: Path) -> list[Path]:
    """The folders of the parts that stages of a run are trained in (`parts`): <stage>/<part>, with state/<stage> in them."""
    return [path.parents[1] for path in folder.glob("*/*/state/*") if path.name == path.parents[2].name]


def check_that_it_is_ours(folder: Path, system: System, stages: list[str], begun: set[str], anew: set[str]) -> None:
    """Raises UserError where training would write over networks in a folder of which nothing says that they may be lost."""
    is_run = (folder / "run.json").is_file()
    if begun - anew and not is_run:
        raise UserError(
            f"{folder / 'run.json'} is missing, though stage {', '.join(sorted(begun - anew))} is there, and with which seed and "
            "split is not known: put it back, or begin all stages anew with --restart and no --stage"
        )
    networks = [name for stage in stages if stage not in begun for name in system.stage(stage).networks]
    # A stage with `parts` keeps latents there before it has a training state, and what a validation has found best; networks lie beside
    configs = {name: [path.relative_to(folder / name) for path in (folder / name).rglob("config.json")] for name in networks}
    theirs = [name for name in networks if any("best" not in path.parts for path in configs[name])]
    if theirs and not is_run and not begun:
        raise UserError(f"{folder} holds {', '.join(theirs)}, but is not a run of MainTrain.py: give the run another name with --run")
    if theirs and not anew:
        raise UserError(
            f"{folder} holds {', '.join(theirs)}, but not the training state to go on from: put {folder}/state back, give the run another "
            "name with --run, or begin anew with --restart"
        )


def write_run(run: Run) -> None:
    """Writes run.json, in a folder that is locked. What killed processes have left half-written in it is removed."""
    for folder in (run.folder, *(path for path in run.folder.rglob("*") if path.is_dir())):
        remove_leftovers(folder, "*")
    for folder in (run.folder, *begun_parts(run.folder)):
        finish_saving(folder)
        finish_saving(folder / "best")
    stages = {name: asdict(options) for name, options in run.options.items()}
    content = {"system": run.system, "preset": run.preset, **{name: getattr(run, name) for name in (*OWN, "threads")}, "stages": stages}
    write_json(run.folder / "run.json", content)


def restart(run: Run, system: System, stages: list[str]) -> None:
    """Throws away all that these stages and those that build on them have made. Nothing but what a run writes is ever removed.

    What painting reads goes first: a restart that is killed leaves nothing that looks finished and is not.
    """
    folder, anew = run.folder, system.following(stages)
    for place in (folder, folder / "best"):
        shutil.rmtree(place / BESIDE, ignore_errors=True)
    path = folder / "best" / "best.json"
    if path.is_file():  # first, for it keeps networks from being written that are worse than it says
        best = {} if len(anew) == len(system.stages) else read_best(folder)  # all of it goes, damaged or not
        write_json(path, {name: about for name, about in best.items() if name not in anew})
    for name in reversed(anew):
        for network in system.stage(name).networks:
            for place in (folder, folder / "best"):
                shutil.rmtree(place / network, ignore_errors=True)
        for part in ("state", "tensorboard"):
            shutil.rmtree(folder / part / name, ignore_errors=True)
        for preview in (folder / "previews").glob(f"{name}-*.png"):
            preview.unlink(missing_ok=True)
    if (folder / "log.jsonl").is_file():
        kept = [line for line in read_log(folder / "log.jsonl") if line.get("stage") not in anew]
        with atomic_write(folder / "log.jsonl") as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())


def read_best(folder: Path) -> dict[str, dict]:
    """By stage, the step whose averaged weights are in `best`, and their metrics; {} where there is none. Raises UserError."""
    path = folder / "best" / "best.json"
    try:
        best = json.loads(path.read_bytes())
        numbers = {stage: {name for name, value in about.items() if isinstance(value, (int, float))} for stage, about in best.items()}
        wrong = [stage for stage, about in best.items() if not {"step", "value"} <= numbers[stage] == about.keys()]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): {BEST_ADVICE}") from error
    if wrong:
        raise UserError(f"{path} is damaged (what it says of {', '.join(wrong)}): {BEST_ADVICE}")
    return best


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that is meant by it or by `best` in it."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parent if checkpoint.name == "best" and not (checkpoint / "run.json").is_file() else checkpoint


def newest_run(checkpoints: Path, file: Callable[[Path], Path | None]) -> Path | None:
    """The run below `checkpoints` of which the file that `file(run)` names was written last; None where none has it.

    The one that comes with the program is taken where there is no other. One that cannot be read is passed over: nobody has asked for it.
    """
    times = {}
    for path in checkpoints.glob("*/run.json"):
        with suppress(UserError):
            wanted = file(path.parent)
            if wanted is not None and wanted.is_file():
                times[path.parent] = wanted.stat().st_mtime
    return max(times, key=lambda folder: (folder.name != SHIPPED, times[folder]), default=None)
