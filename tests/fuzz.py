"""Hostile use at random: kills, stops, damaged files, full disks, options that make no sense.

    python3 tests/fuzz.py --minutes 30 --seed 1 --systems diffusion judge lggan sr
    python3 tests/fuzz.py --minutes 90 --trials 100 --only killed --systems all     # a kill in each of 100 runs of all stages there are
    python3 tests/fuzz.py --seed 1 --trial 17        # that trial alone, as a failure names it

A small data set is drawn, trained with and painted once, without disturbance. Then each trial disturbs one thing, at random: what must come
of it is either the same bytes, or one sentence and an exit status that says whose fault it is, never a traceback, a hang or half a file.
Prints counts, where the signals came, and for each failure what was done, in one line to repeat it; the exit status is 1 where there was
one. tests/growing_disk.py has the disk that is full at every write.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import MainTest
import MainTrain
from datasets.pairs import check_training_pairs
from datasets.prepare.clean import write_report
from datasets.prepare.split import write_split
from datasets.prepare.super_resolution import write_resolutions
from datasets.styles import check_styles, find_style_prompts
from datasets.synthetic.write import write_dataset
from datasets.synthetic.write_styles import write_styles
from datasets.test_pairs import find_test_pairs
from datasets.text_pairs import check_text_pairs, find_prompts
from models.metrics.mask_accuracy import load_judge
from models.painters.pictures import painted
from models.painters.super_resolution import rcan_of
from models.systems import DEFAULT, SYSTEMS
from models.training.run import choose_run, read_best, read_run
from tests.hostile import (
    ROOT,
    SIZE,
    Failure,
    answered,
    arguments_of,
    asked,
    contents,
    damage,
    ended,
    finished,
    mounted,
    options_of,
    said_to_be_full,
    same,
    whereabouts,
)
from tests.small import arguments
from utils.checkpoint import read_training_state, read_weights
from utils.logger import RunLog

OPTIONAL = {name: system for system in SYSTEMS for name in SYSTEMS[system].optional}  # stages, and whose they are
WORDS = {"unet_text_channels": 16, "unet_text_layers": 1, "unet_text_vocabulary": 300}  # of a small text encoder
PAINTING = ("--steps", "3", "--batch_size", "2")


@dataclass(frozen=True)
class Job:
    """A training command: what it begins with, and what it leaves where nothing disturbs it."""

    name: str
    words: list[str]  # all but --run
    before: Path | None  # a run; None: there is nothing
    whole: Path
    seconds: float

    def on(self, run: Path) -> list[str]:
        """The command for a run in another folder, which is made what it was before, unless it is there."""
        if self.before and not run.exists():
            shutil.copytree(self.before, run)
        return [*self.words, "--run", str(run)]


class Base:
    """What every trial starts from: a data set, the run after each of its stages, its pictures and their score, all undisturbed."""

    def __init__(self, place: Path, trained: list[str]):
        self.place, self.trained, self.places = place, trained, Counter()
        self.data, self.described, self.styles = place / "data", place / "described", place / "styles"
        write_dataset(self.data, train=10, test=5, seed=1, size=SIZE, progress=False)
        write_styles(self.styles, styles=2, pictures=3, prompts=2, size=SIZE)
        shutil.copytree(self.data / "train_resized" / "imgs", self.described / "train")
        described = {path.stem: f"picture {i}" for i, path in enumerate(sorted((self.described / "train").iterdir()))}
        for name in ("train_info.json", "test.json"):
            (self.described / name).write_text(json.dumps(described))
        self.after = [job.whole for job in self.jobs(DEFAULT)[:3]]
        self.run = self.after[-1]
        begun = time.monotonic()
        finished(*self.painting(self.run, place / "results"), "--score")
        self.painting_seconds = time.monotonic() - begun

    @cache  # noqa: B019  (there is one base)
    def jobs(self, name: str) -> list[Job]:
        """The commands that train a system: its usual stages one by one, and all of them at once with their rehearsal, where there are
        several. Or the one that trains a stage that must be named, on what is usual."""
        system, jobs = OPTIONAL.get(name, name), []
        stages = [name] if name in OPTIONAL else SYSTEMS[system].usual
        before = self.jobs(system)[-1].whole if name in OPTIONAL else None
        for stage in stages:
            whole, words = self.place / f"after-{system}-{stage}", [*self.training(system), "--stage", stage]
            job = Job(f"{stage} of {system}", words, before, whole, 0.0)
            begun = time.monotonic()
            finished(*job.on(whole))
            before = whole
            jobs.append(replace(job, seconds=time.monotonic() - begun))
        if len(jobs) > 1:
            jobs.append(Job(f"all of {system}", self.training(system), None, before, sum(job.seconds for job in jobs)))
        return jobs

    def any_job(self, chance: random.Random) -> Job:
        return chance.choice([job for name in self.trained for job in self.jobs(name)])

    def training(self, system: str = DEFAULT, data: Path | None = None) -> list[str]:
        """The command that trains a small run of a system, all but --run."""
        options = arguments(*(stage.name for stage in SYSTEMS[system].stages), **(WORDS if system == "text" else {}))
        options += ["--style_pictures", str(self.styles)] if system == "text" else []
        words = ["--input_path", str(data or self.data), "--val_fraction", "0.3", "--system", system, *options]
        return [sys.executable, str(ROOT / "MainTrain.py"), *words]

    def painting(self, run: Path, output: Path, data: Path | None = None) -> list[str]:
        words = ["--input_path", str(data or self.data), "--img_path", str(data or self.data), "--checkpoint", str(run)]
        return [sys.executable, str(ROOT / "MainTest.py"), *words, "--output_path", str(output), *PAINTING]


# ------------------------------------------------------------------------------------------------------------------- trials
# A trial is a function of the base, a generator of chance and an empty folder; it notes what it does, and raises Failure.


def killed(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A kill at a random moment of training; then it ends with the same bytes."""
    disturbed_training(base, chance, place, note, [signal.SIGKILL])


def stopped_training(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """One to three signals of all kinds, in as many attempts."""
    disturbed_training(base, chance, place, note, chance.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], k=chance.randint(1, 3)))


def disturbed_training(base: Base, chance: random.Random, place: Path, note: Callable, signals: list[signal.Signals]) -> None:
    job = base.any_job(chance)
    words = job.on(place / "run")
    for number in signals:
        disturb(base, number, chance.uniform(0.3, 1.1 * job.seconds), job.name, place / "run", note, words)
    finished(*words)
    same(place / "run", job.whole)


def stopped_painting(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    words = [*base.painting(base.run, place / "results"), "--score"]
    for number in chance.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], k=chance.randint(1, 3)):
        disturb(base, number, chance.uniform(0.3, 1.1 * base.painting_seconds), "painting and scoring", place, note, words)
    finished(*words)
    same(place / "results", base.place / "results")
    same_score(base, place)


def disturb(base: Base, number: signal.Signals, seconds: float, what: str, folder: Path, note: Callable, words: list[str]) -> None:
    """Gives a command, and it a signal after some seconds, and takes down where in its work that came."""
    note(f"{number.name} after {seconds:.2f} s of {what}")
    result = ended(*words, stop_after=seconds, by=number)
    if result.returncode not in (0, -number, 128 + number):
        raise Failure(f"{number.name} ends it with {result.returncode}: {result.stderr[-1500:]}")
    where = whereabouts(result, folder) if result.returncode else "it had ended"
    base.places[f"{number.name} in {what}: {where}"] += 1


def same_score(base: Base, place: Path) -> None:
    one, two = (json.loads((folder / "results-score" / "score.json").read_text()) for folder in (base.place, place))
    if one["pictures"] != two["pictures"] or [row["value"] for row in one["table"]] != [row["value"] for row in two["table"]]:
        raise Failure("another score")


def spoilt_measurements(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """What is kept of photos and pictures is measured again where it is damaged: latents, features, statistics of colours."""
    if chance.random() < 0.5:
        shutil.copytree(base.after[0], place / "run")
        shutil.copytree(base.after[1] / "latents", place / "run" / "latents")  # which the UNet would encode
        note(damage(chance, chance.choice(sorted((place / "run").rglob("*.rows")))))
        finished(*base.training(), "--run", str(place / "run"), "--stage", "unet")
        found, whole = (contents(folder) for folder in (place / "run", base.after[1]))
        if any(found.get(name) != content for name, content in whole.items() if not name.endswith(".rows")):
            raise Failure("the UNet differs")
    else:
        for name in ("results", "results-score"):
            shutil.copytree(base.place / name, place / name)
        note(damage(chance, chance.choice(sorted((place / "results-score").rglob("*.rows")))))
        finished(*base.painting(base.run, place / "results"), "--score")
        same_score(base, place)


def damaged_data(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Photos, masks, captions, prompts and styles, by all that reads them."""
    data, kind = place / "data", chance.choice(["drawn", "drawn", "described", "styles"])
    shutil.copytree({"drawn": base.data, "described": base.described, "styles": base.styles}[kind], data)
    for _ in range(chance.choice([1, 1, 3])):
        note(damage(chance, chance.choice(sorted(path for path in data.rglob("*") if path.is_file())), renamed=True))
    readers = {
        "drawn": (
            lambda: check_training_pairs(data),
            lambda: check_training_pairs(data, skip_bad=True, report_path=place / "report.txt", cache=place / "checked.json"),
            lambda: find_test_pairs(data, data),
            lambda: write_report(data, place / "clean"),
            lambda: write_split(data, place / "split", 0.3, skip_bad=True),
            lambda: write_resolutions(data, place / "sr"),
        ),
        "described": (lambda: check_text_pairs(data), lambda: check_text_pairs(data, skip_bad=True), lambda: find_prompts(data)),
        "styles": (lambda: check_styles(data), lambda: find_style_prompts(data)),
    }
    for check in readers[kind]:
        asked(check)
    if kind == "drawn" and chance.random() < 0.1:
        answered(*base.training(data=data), "--run", str(place / "run"), "--stage", "vae", "--skip_bad")
        answered(*base.painting(base.run, place / "results", data), "--zip")


def damaged_weights(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Files that PyTorch wrote: nothing in them is run, and none takes more memory than it has bytes."""
    golden = [path for path in sorted((ROOT / "tests" / "golden").iterdir()) if path.suffix in (".pth", ".ckpt", ".safetensors")]
    path = Path(shutil.copy(chance.choice(golden), place))
    for _ in range(chance.choice([1, 1, 4])):
        note(damage(chance, path))
    asked(lambda: read_weights(path))


def damaged_run(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A file of a run, by all that reads it, and by the commands that go on with it."""
    run, job = place / "run", base.any_job(chance)
    shutil.copytree(job.whole, run)
    names = ("run.json", "best.json", "config.json", "tokenizer.json", "log.jsonl", "checked_training.json", "*.safetensors")
    path = chance.choice([path for name in names for path in chance.choices(sorted(run.rglob(name)) or [run / "run.json"])])
    note(damage(chance, path))
    for check in (
        lambda: read_run(run, SYSTEMS),
        lambda: read_best(run),
        lambda: [read_weights(file) for file in run.rglob("*.safetensors")],
        lambda: [read_training_state(file) for file in run.rglob("step-*.safetensors")],
        lambda: RunLog(run, "decoder").close(),
        lambda: use(base, run),
    ):
        asked(check)
    if chance.random() < 0.15:
        training = [*job.words, "--run", str(run)]
        answered(*chance.choice([training, [*training, "--restart"], base.painting(run, place / "results")]))


def use(base: Base, folder: Path) -> None:
    """What a run is for, in this process: a picture, in one step where it takes any; or its judge, or what makes pictures larger."""
    run = read_run(folder, SYSTEMS)
    painter = SYSTEMS[run.system].painter
    if painter is None:
        (load_judge if run.system == "judge" else rcan_of)(run)
        return
    pairs = painter.find_pairs(base.styles) if run.system == "text" else find_test_pairs(base.data, base.data)
    options = painter.Options(**({"steps": 1} if hasattr(painter.Options, "steps") else {}))
    painted(painter.load(run, folder), pairs[:1], options, seed=0, candidate=0, color="none")


def damaged_results(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """What is no picture is neither kept nor packed; the others stay as they are."""
    results = place / "results"
    shutil.copytree(base.place / "results", results)
    path = chance.choice(sorted(results.iterdir()))
    note(damage(chance, path))
    before = contents(results)
    result = answered(*base.painting(base.run, results), "--zip")
    if result.returncode == 0:
        find_test_pairs(base.data, base.data)
        asked(lambda: MainTest.kept(find_test_pairs(base.data, base.data), results), must=True)
    elif contents(results) != before or (place / "results.zip").exists():
        raise Failure("files have changed, though nothing was painted")


def strange_options(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Numbers, names and paths that make no sense are refused before anything is computed."""
    values = ["nan", "-1", "0", "-inf", "inf", "1e30", "1e-30", "7", str(10**9), str(10**25), "", " ", "x", "../..", "/", "x" * 300]
    values += ["\udcff", "\n", "0.5", "/dev/null", "README.md", str(base.run), str(base.data)]
    main, script = chance.choice([(MainTrain, "MainTrain.py"), (MainTest, "MainTest.py")])
    name = chance.choice(base.trained)
    base_words = [*base.training(OPTIONAL.get(name, name)), "--run", str(place / "run")]
    if main is MainTest:
        base_words = base.painting(base.run, place / "results")
    words = [chance.choice(options_of(main, base_words[2:])), *chance.choices(values, k=chance.choice([0, 1, 1, 1, 2]))]
    note(f"{script} {words}, and {base_words[2:]}")

    def parse() -> None:
        args = main.parse_arguments()
        main.check_arguments(args)
        if main is MainTrain:
            choose_run(args, MainTrain.CHECKPOINTS / args.run, args.system, SYSTEMS, "tiny")

    with arguments_of([script, *base_words[2:], *words]):
        asked(parse)


# ---------------------------------------------------------------------------------------------------------------- full disks


def full_disk(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A run on a disk that grows each time it is full: each stop says so, and the end is the same. Left out where one may not mount."""
    disk, job = place / "disk", base.any_job(chance)
    size = chance.randint(1, 40) * 64
    if job.before:
        size += sum(path.stat().st_size // 1024 + 4 for path in job.before.rglob("*"))
    with mounted(disk, size) as grow:
        if grow is None:
            return note("no right to mount")
        words = job.on(disk / "run")
        for _ in range(4):
            note(f"{size} kB for {job.name}")
            result = answered(*words)
            if result.returncode == 0:
                break
            said_to_be_full(result)
            size += chance.randint(1, 16) * 64
            grow(size)
        grow(1 << 20)
        finished(*words)
        same(disk / "run", job.whole)


TRIALS = {  # and how often each comes
    killed: 4, stopped_training: 4, stopped_painting: 5, full_disk: 5, spoilt_measurements: 4, damaged_data: 40, damaged_weights: 40,
    damaged_run: 20, damaged_results: 2, strange_options: 60,
}  # fmt: skip


def attempt(base: Base, seed: int, number: int, only: str | None) -> tuple[str, list[str], str | None]:
    """The name of a trial, what it did, and what went wrong, or None."""
    chance, notes = random.Random(f"{seed} {number}"), []
    (trial,) = chance.choices(list(TRIALS), TRIALS.values())
    trial = next((other for other in TRIALS if other.__name__ == only), trial)
    with tempfile.TemporaryDirectory(dir=base.place, ignore_cleanup_errors=True) as place:
        try:
            trial(base, chance, Path(place), notes.append)
        except Failure as failure:
            return trial.__name__, notes, str(failure)
        except Exception:
            return trial.__name__, notes, "an exception:\n" + traceback.format_exc()[-2500:]
    return trial.__name__, notes, None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="begin trials for so long")
    parser.add_argument("--seed", type=int, default=0)
    names = sorted({*SYSTEMS, *OPTIONAL})
    parser.add_argument(
        "--systems", nargs="+", default=[DEFAULT], choices=[*names, "all"], help="that are trained, and stages that must be named to be"
    )
    parser.add_argument("--only", choices=[trial.__name__ for trial in TRIALS], help="trials of this kind")
    parser.add_argument("--trials", type=int, default=sys.maxsize, help="as many at most")
    parser.add_argument("--trial", type=int, help="this one alone")
    args = parser.parse_args()
    counts, failures = Counter(), []
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as place:
        base = Base(Path(place), names if "all" in args.systems else args.systems)
        end, numbers = time.monotonic() + 60 * args.minutes, range(args.trials) if args.trial is None else [args.trial]
        for number in numbers:
            if time.monotonic() > end:
                break
            name, notes, wrong = attempt(base, args.seed, number, args.only)
            counts[name] += 1
            if wrong is not None:
                failures.append(name)
                only = f"--only {args.only} " if args.only else ""
                again = f"python3 tests/fuzz.py {only}--systems {' '.join(args.systems)} --seed {args.seed} --trial {number}"
                print(f"\nFAILURE of {name}: {again}", *notes, wrong, sep="\n  ", flush=True)
    print("", *(f"{n:4} {where}" for where, n in sorted(base.places.items())), sep="\n")
    print(f"\n{sum(counts.values())} trials, {len(failures)} failures: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
