"""Which system is best for the same minutes on the same photos: trains each in turn, paints the test pairs, scores, and prints a table.

    python tests/benchmarks/duel.py --input_path <training set> --test_path <test set> --img_path <photos> --output_path duel --minutes 40

Before each training a few steps of it are timed on this machine, and its number of steps is chosen so that it takes --minutes; systems of
several stages share them out by SHARES. In the table is what the training took in the end, without validation and without what its stages
prepare, and its peak memory; seconds are of a picture painted alone. All that is done stays in --output_path, so the same command goes on
where it was cut short. --sheet shows six pairs: mask, reference, what each system painted, and the true photo.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.loader import spread
from datasets.test_pairs import find_test_pairs
from tests.benchmarks.commands import HEAD, call, line, painted_and_scored
from utils.checkpoint import write_json
from utils.errors import or_exit
from utils.image import colorize_mask, contact_sheet, write_png
from utils.logger import read_log

ENTRANTS = {  # how each is trained; preset tiny but for what is said here
    "diffusion": ("--decoder_batch_size", 4, "--decoder_painted", 64),
    "lggan": (),
    "ecgan": (),
    "spade": ("--system", "ecgan", "--ecgan_edge_branch", 0, "--ecgan_contrastive_weight", 0),
}
SHARES = {"diffusion": {"vae": 0.2, "unet": 0.5, "decoder": 0.3}}
TRIAL = 12  # steps of every stage that are timed, of which the first few still compile
SHEET = 6, (256, 192)  # pairs, and the size they are shown in


def seconds(log: Path, stage: str) -> list[float]:
    """Of each step of a stage in a run's log."""
    return [entry["seconds"] for entry in read_log(log) if entry.get("stage") == stage and "seconds" in entry]


def planned(name: str, minutes: float, trial: Path) -> dict[str, int]:
    """Steps of each stage that take `minutes` together, by a trial of a few."""
    shares = SHARES.get(name, {"ecgan" if name == "spade" else name: 1.0})
    a_step = {stage: np.median(seconds(trial / "log.jsonl", stage)[TRIAL // 2 :]) for stage in shares}
    return {stage: max(TRIAL, round(60 * minutes * share / a_step[stage])) for stage, share in shares.items()}


def compete(name: str, args: argparse.Namespace) -> str:
    """Trains a system, paints with it and scores; returns its line of the table."""
    output = args.output_path.resolve()
    run, pictures, note = output / "runs" / name, output / "pictures" / name, output / f"{name}.json"
    words = () if "--system" in ENTRANTS[name] else ("--system", name)
    words += ("--preset", "tiny", "--input_path", args.input_path, "--val_path", args.test_path, *ENTRANTS[name])
    found = json.loads(note.read_text()) if note.is_file() else {}

    def know(**facts) -> None:
        found.update(facts)
        write_json(note, found)

    if "steps" not in found:
        trial = output / "trials" / name
        call("MainTrain.py", "--run", trial, *words, "--steps", TRIAL)
        know(steps=planned(name, args.minutes, trial))
    if "memory" not in found:
        steps = [word for stage, count in found["steps"].items() for word in (f"--{stage}_steps", count)]
        _, memory = call("MainTrain.py", "--run", run, *words, *steps)
        know(memory=memory)
    given = ("--checkpoint", run, "--input_path", args.test_path, "--img_path", args.img_path)
    if "painting" not in found:
        call("MainTest.py", *given, "--output_path", pictures, "--batch_size", 1, "--overwrite")
        know(painting=float(np.median(np.diff(sorted(path.stat().st_mtime for path in pictures.glob("*.jpg"))))))
    table = painted_and_scored(pictures, *given, *(("--judge", args.judge) if args.judge else ()))
    minutes = sum(sum(seconds(run / "log.jsonl", stage)) for stage in found["steps"]) / 60
    total = table["total"]["value"]
    cells = f"{'n/a' if total is None else f'{total:.4f}'} | {minutes:.0f} | {found['painting']:.2f} s | {found['memory']:.2f} GB |"
    return f"{line(name, table)} {cells}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("input_path", "test_path", "img_path", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40, help="of training, for each system (default: %(default)s)")
    parser.add_argument("--judge", type=Path, help="a run of system judge")
    parser.add_argument("--systems", nargs="+", choices=ENTRANTS, default=list(ENTRANTS))
    parser.add_argument("--sheet", type=Path, default=Path("duel.png"))
    args = parser.parse_args()

    lines = []
    for name in args.systems:
        lines.append(compete(name, args))
        print(lines[-1], flush=True)
    first, second = HEAD.format("system").split("\n")
    print("\n" + "\n".join([f"{first} total | minutes trained | a picture | memory |", f"{second}---|---|---|---|", *lines]))

    pairs, (count, size) = find_test_pairs(args.test_path, args.img_path), SHEET
    rows = []
    for pair in (pairs[i] for i in spread(len(pairs), count)):
        painted = [read_image(args.output_path / "pictures" / name / f"{pair.stem}.jpg", size) for name in args.systems]
        truth = read_image(args.test_path / "imgs" / f"{pair.stem}.jpg", size)
        rows.append([colorize_mask(read_mask(pair.mask, size)), read_image(pair.reference, size), *painted, truth])
    write_png(args.sheet, contact_sheet(rows, titles=("mask", "reference", *args.systems, "photo")))


if __name__ == "__main__":
    or_exit(main)
