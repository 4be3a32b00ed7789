"""Hostile use at random: kills, stops, damaged files, full disks, options that make no sense.

    python3 tests/fuzz.py --minutes 30 --seed 1 --systems diffusion judge lggan sr
    python3 tests/fuzz.py --seed 1 --trial 17        # that trial alone, as a failure names it

A small data set is drawn, trained with and painted once, without disturbance. Then each trial disturbs one thing, at random: what must come
of it is either the same bytes, or one sentence and an exit status that says whose fault it is, never a traceback, a hang or half a file.
Prints counts, and for each failure what was done, in one line to repeat it; the exit status is 1 where there was one.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import MainTest
import MainTrain
from datasets.pairs import check_training_pairs
from datasets.synthetic.write import write_dataset
from datasets.test_pairs import find_test_pairs
from models.painters.pictures import painted
from models.systems import DEFAULT, SYSTEMS
from models.training.run import choose_run, read_best, read_run
from tests.hostile import SIZE, Failure, answered, arguments_of, asked, contents, damage, ended, finished, options_of, same
from tests.small import arguments
from utils.checkpoint import read_training_state, read_weights
from utils.logger import RunLog

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("vae", "unet", "decoder")
PAINTING = ("--steps", "3", "--batch_size", "2")


class Base:
    """What every trial starts from: a data set, the run after each of its stages, its pictures and their score, all undisturbed."""

    def __init__(self, place: Path, systems: list[str]):
        self.place, self.data, self.run, self.systems = place, place / "data", place / "run", systems
        write_dataset(self.data, train=10, test=5, seed=1, size=SIZE, progress=False)
        self.after, self.seconds = [], []
        for stage in STAGES:
            begun = time.monotonic()
            finished(*self.training(self.run), "--stage", stage)
            self.seconds.append(time.monotonic() - begun)
            self.after.append(place / f"after-{stage}")
            shutil.copytree(self.run, self.after[-1])
        begun = time.monotonic()
        finished(*self.painting(self.run, place / "results"), "--score")
        self.painting_seconds = time.monotonic() - begun

    @cache  # noqa: B019  (there is one base)
    def other(self, system: str) -> tuple[Path, float]:
        """What a system of one stage leaves, and how long that takes."""
        begun = time.monotonic()
        finished(*self.training(self.place / system, system=system))
        return self.place / system, time.monotonic() - begun

    def training(self, run: Path, data: Path | None = None, system: str = DEFAULT) -> list[str]:
        """The command, which compiles its kernels by one process, so that a kill leaves none behind."""
        words = ["--input_path", str(data or self.data), "--run", str(run), "--val_fraction", "0.3", "--system", system]
        stages = STAGES if system == DEFAULT else [stage.name for stage in SYSTEMS[system].stages]
        return [sys.executable, str(ROOT / "MainTrain.py"), *words, *arguments(*stages)]

    def painting(self, run: Path, output: Path, data: Path | None = None) -> list[str]:
        words = ["--input_path", str(data or self.data), "--img_path", str(data or self.data), "--checkpoint", str(run)]
        return [sys.executable, str(ROOT / "MainTest.py"), *words, "--output_path", str(output), *PAINTING]


# ------------------------------------------------------------------------------------------------------------------- trials
# A trial is a function of the base, a generator of chance and an empty folder; it notes what it does, and raises Failure.


def stopped_training(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """One to three signals at random moments of one stage, or of all three with their rehearsal; then it ends with the same bytes."""
    which, system = chance.choice([0, 1, 2, None]), chance.choice(base.systems)
    run, words = place / "run", base.training(place / "run", system=system)
    if system != DEFAULT:
        whole, usual = base.other(system)
    elif which is None:
        whole, usual = base.after[-1], sum(base.seconds)
    else:
        words, whole, usual = [*words, "--stage", STAGES[which]], base.after[which], base.seconds[which]
        if which:
            shutil.copytree(base.after[which - 1], run)
    for _ in range(chance.randint(1, 3)):
        seconds = chance.uniform(0.3, 1.1 * usual)
        by = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        note(f"signal {by} after {seconds:.2f} s of training {system if system != DEFAULT or which is None else STAGES[which]}")
        result = ended(*words, stop_after=seconds, by=by)
        if result.returncode not in (0, -by, 128 + by):
            raise Failure(f"signal {by} ends it with {result.returncode}: {result.stderr[-1500:]}")
    finished(*words)
    same(run, whole)


def stopped_painting(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    words = [*base.painting(base.run, place / "results"), "--score"]
    for _ in range(chance.randint(1, 3)):
        seconds, by = chance.uniform(0.3, 1.1 * base.painting_seconds), chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        note(f"signal {by} after {seconds:.2f} s of painting and scoring")
        result = ended(*words, stop_after=seconds, by=by)
        if result.returncode not in (0, -by, 128 + by):
            raise Failure(f"signal {by} ends it with {result.returncode}: {result.stderr[-1500:]}")
    finished(*words)
    same(place / "results", base.place / "results")
    same_score(base, place)


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
        finished(*base.training(place / "run"), "--stage", "unet")
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
    data = place / "data"
    shutil.copytree(base.data, data)
    for _ in range(chance.choice([1, 1, 3])):
        note(damage(chance, chance.choice(sorted(path for path in data.rglob("*") if path.is_file())), renamed=True))
    for check in (
        lambda: check_training_pairs(data),
        lambda: check_training_pairs(data, skip_bad=True, report_path=place / "report.txt", cache=place / "checked.json"),
        lambda: find_test_pairs(data, data),
    ):
        asked(check)
    if chance.random() < 0.1:
        words = [*base.training(place / "run", data), "--stage", "vae", "--skip_bad"]
        answered(*words)
        answered(*base.painting(base.run, place / "results", data), "--zip")


def damaged_weights(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Files that PyTorch wrote: nothing in them is run, and none takes more memory than it has bytes."""
    golden = [path for path in sorted((ROOT / "tests" / "golden").iterdir()) if path.suffix in (".pth", ".ckpt", ".safetensors")]
    path = Path(shutil.copy(chance.choice(golden), place))
    for _ in range(chance.choice([1, 1, 4])):
        note(damage(chance, path))
    asked(lambda: read_weights(path))


def damaged_run(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    run = place / "run"
    shutil.copytree(base.after[1], run)
    names = ("run.json", "best.json", "config.json", "log.jsonl", "checked_training.json", "*.safetensors")
    path = chance.choice(sorted(run.rglob(chance.choice(names))))
    note(damage(chance, path))
    for check in (
        lambda: read_run(run, SYSTEMS),
        lambda: read_best(run),
        lambda: [read_weights(file) for file in run.rglob("*.safetensors")],
        lambda: [read_training_state(file) for file in run.rglob("step-*.safetensors")],
        lambda: RunLog(run, "decoder").close(),
        lambda: paint_one(base, run),
    ):
        asked(check)
    if chance.random() < 0.15:
        answered(*chance.choice([base.training(run), [*base.training(run), "--restart"], base.painting(run, place / "results")]))


def paint_one(base: Base, run: Path) -> None:
    """A picture, in one step, in this process."""
    painter, pairs = SYSTEMS[DEFAULT].painter.load(read_run(run, SYSTEMS), run), find_test_pairs(base.data, base.data)
    painted(painter, pairs[:1], painter.Options(steps=1), seed=0, candidate=0, color="none")


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
    options = options_of(main)
    words = [chance.choice(options), *chance.choices(values, k=chance.choice([0, 1, 1, 1, 2]))]
    note(f"{script} {words}")
    base_words = base.training(place / "run") if main is MainTrain else base.painting(base.run, place / "results")

    def parse() -> None:
        args = main.parse_arguments()
        main.check_arguments(args)
        if main is MainTrain:
            choose_run(args, MainTrain.CHECKPOINTS / args.run, args.system, SYSTEMS, "tiny")

    with arguments_of([script, *base_words[2:], *words]):
        asked(parse)


# ---------------------------------------------------------------------------------------------------------------- full disks


def full_disk(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A run on a disk that grows each time it is full: each stop says so, and the end is the same."""
    which, disk = chance.choice([0, 1, 2]), place / "disk"
    disk.mkdir()
    size = chance.randint(1, 40) * 64
    if which:
        size += sum(path.stat().st_size // 1024 + 4 for path in base.after[which - 1].rglob("*"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], capture_output=True).returncode:
        note("no right to mount: left out")
        return
    try:
        if which:
            shutil.copytree(base.after[which - 1], disk / "run")
        words = [*base.training(disk / "run"), "--stage", STAGES[which]]
        for _ in range(4):
            note(f"{size} kB for stage {STAGES[which]}")
            result = answered(*words)
            if result.returncode == 0:
                break
            if "disk full" not in result.stderr and "No space left" not in result.stderr:
                raise Failure(f"a full disk is not said: {result.stderr[-1500:]}")
            size += chance.randint(1, 16) * 64
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        finished(*words)
        same(disk / "run", base.after[which])
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


TRIALS = {  # and how often each comes
    stopped_training: 8, stopped_painting: 5, full_disk: 5, spoilt_measurements: 4, damaged_data: 40, damaged_weights: 40, damaged_run: 20,
    damaged_results: 2, strange_options: 60,
}  # fmt: skip


def attempt(base: Base, seed: int, number: int) -> tuple[str, list[str], str | None]:
    """The name of a trial, what it did, and what went wrong, or None."""
    chance, notes = random.Random(f"{seed} {number}"), []
    (trial,) = chance.choices(list(TRIALS), TRIALS.values())
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
    parser.add_argument("--systems", nargs="+", default=[DEFAULT], choices=(DEFAULT, "judge", "lggan", "sr"), help="that are trained")
    parser.add_argument("--trial", type=int, help="this one alone")
    args = parser.parse_args()
    counts, failures = Counter(), []
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as place:
        base = Base(Path(place), args.systems)
        end, number = time.monotonic() + 60 * args.minutes, args.trial or 0
        while time.monotonic() < end and (args.trial is None or number == args.trial):
            name, notes, wrong = attempt(base, args.seed, number)
            counts[name] += 1
            if wrong is not None:
                failures.append(name)
                again = f"python3 tests/fuzz.py --systems {' '.join(args.systems)} --seed {args.seed} --trial {number}"
                print(f"\nFAILURE of {name}: {again}", *notes, wrong, sep="\n  ", flush=True)
            number += 1
    print(f"\n{sum(counts.values())} trials, {len(failures)} failures: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
