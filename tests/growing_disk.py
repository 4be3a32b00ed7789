"""A whole first run on a disk that is always full: it begins with 64 kB, and grows by as much each time a command stops for want of room.

    sudo python3 tests/growing_disk.py
    sudo python3 tests/growing_disk.py --systems judge lggan sr

Data are drawn, a small run is trained and painted with, and the results are scored and packed, all on that disk (in memory; to mount it
takes the right to). Each stop must say in a sentence that the disk is full, and leave nothing with a name that is not whole; what is there
in the end must be, to the byte, what the same commands leave that have had room from the beginning, but for curves, times, and previews and
older states that one of the two has and the other has not. Prints where it stopped, and how often.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
from PIL import Image

from models.systems import DEFAULT, SYSTEMS
from tests.hostile import ROOT, Failure, alike, answered, contents, mounted, said_to_be_full
from tests.small import arguments
from utils.checkpoint import read_weights

STEP, PLENTY = 64, 1 << 20  # kB
SMALLER = {  # it stops once for each STEP
    "steps": 2, "preview_every": 2, "vae_channels": (12, 12, 12, 12), "unet_channels": (8, 16), "unet_cross_attention_dim": 8,
    "unet_mask_channels": (4, 4, 4), "decoder_adversarial_weight": 0, "decoder_perceptual_weight": 0,
}  # fmt: skip


def commands(disk: Path, system: str) -> dict[str, list[str]]:
    """What is done, one after the other."""
    data, run = ["--input_path", disk / "data"], disk / "run"
    options = ["--val_fraction", 0.5, "--system", system, *arguments(*SYSTEMS[system].usual, **(SMALLER if system == DEFAULT else {}))]
    found = {
        "drawing": ["-m", "datasets.prepare", "draw", "--output_path", disk / "data", "--train", 4, "--test", 2],
        "training": [ROOT / "MainTrain.py", *data, "--run", run, *options],
    }
    if SYSTEMS[system].painter:
        files = [*data, "--img_path", disk / "data", "--checkpoint", run, "--output_path", disk / "results"]
        found["painting"] = [ROOT / "MainTest.py", *files, "--zip", "--score", *(["--steps", 2] if system == DEFAULT else [])]
    return {name: [sys.executable, *map(str, words)] for name, words in found.items()}


def run_on(disk: Path, system: str, size: int) -> tuple[dict[str, bytes], Counter]:
    """All commands on a disk that has so many kB at first -> what is there in the end, and what could not be written how often."""
    stops = Counter()
    with mounted(disk, size) as grow:
        if grow is None:
            raise SystemExit(f"No right to mount a disk at {disk}: this is for root.")
        for name, command in commands(disk, system).items():
            while (result := answered(*command)).returncode:
                said_to_be_full(result)
                check_what_is_there(disk)
                words = re.split(r"[\r\n]+", result.stderr.strip())[-1]
                stops[f"{name}: {re.sub('[0-9]+', 'N', words.split(': ')[0].replace(str(disk), ''))}"] += 1
                size += STEP
                grow(size)
        print(f"{system}: done with {size} kB", flush=True)
        return contents(disk), stops


def check_what_is_there(disk: Path) -> None:
    """Raises Failure where a file that has its name is not whole."""
    for path in disk.rglob("*"):
        if path.name.endswith(".tmp") or any(part.endswith(".partial") for part in path.parts):
            continue
        try:
            if path.suffix == ".safetensors":
                read_weights(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix in (".jpg", ".png"):
                Image.open(path).load()
        except Exception as error:
            raise Failure(f"{path} is not whole: {error}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=[DEFAULT], choices=[name for name in SYSTEMS if name != "text"])
    for system in parser.parse_args().systems:
        with tempfile.TemporaryDirectory(prefix="growing-") as place:
            whole, _ = run_on(Path(place) / "disk", system, PLENTY)  # of the same name, which is in what is written
            begun = time.monotonic()
            found, stops = run_on(Path(place) / "disk", system, STEP)
        print(f"{stops.total()} stops in {time.monotonic() - begun:.0f} s:", *(f"{n:4} {where}" for where, n in stops.items()), sep="\n")
        alike(found, whole)
        print(f"{len(found)} files and lines of logs are the same, {sum(map(len, found.values())) >> 10} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
