"""Hostile use at random: kills, stops, damaged files, full disks, options that make no sense.

    python3 tests/fuzz.py --minutes 30 --seed 1 --systems diffusion judge lggan sr
    python3 tests/fuzz.py --minutes 90 --trials 100 --only killed --systems all     # a kill in each of 100 runs of all stages there are
    python3 tests/fuzz.py --seed 1 --trial 17        # that trial alone, as a failure names it

A small data set is drawn, trained with and painted once, without disturbance (tests/fuzz_base.py). Then each trial disturbs one thing, at
random: what is read (tests/fuzz_files.py) or a command at work (tests/fuzz_commands.py). What must come of it is either the same bytes, or
one sentence and an exit status that says whose fault it is, never a traceback, a hang or half a file. Prints counts, where the signals
came, and for each failure what was done, in one line to repeat it; the exit status is 1 where there was one. tests/growing_disk.py has the
disk that is full at every write.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
from models.systems import DEFAULT, SYSTEMS
from tests import fuzz_commands as commands
from tests import fuzz_files as files
from tests.fuzz_base import OPTIONAL, Base
from tests.hostile import Failure

TRIALS = {  # and how often each comes
    commands.killed: 4, commands.stopped_training: 4, commands.stopped_painting: 4, commands.killed_writing: 4, commands.started_twice: 3,
    commands.restarted: 4, commands.confused_paths: 5, commands.vanishing_data: 4, commands.odd_surroundings: 5,
    commands.strange_commands: 4, commands.power_cut: 2, commands.full_disk: 5, commands.filled_disk: 3, commands.by_two: 2,
    files.spoilt_measurements: 4, files.changed_pictures: 3, files.damaged_data: 40, files.damaged_weights: 30, files.bombs: 6,
    files.damaged_run: 20, files.damaged_results: 3, files.strange_options: 10,
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
