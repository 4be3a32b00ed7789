"""How long somebody at the page waits: for a first look at a stroke, for the first preview of the picture, and for the picture.

    python tests/benchmarks/page_times.py --checkpoint checkpoints/demo

starts the page's server with a run, draws a stroke into one of the built-in masks, asks for a quick picture and then for the real one, and
so on; prints the median of each time and the longest, in seconds, and how long the server takes to start.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import cv2
import numpy as np

from datasets.landscape import read_mask
from datasets.synthetic.write import draw_built_in
from models.painters.pictures import SIZE
from tests.page import ROOT, Served, serving
from utils.image import encode

BUILT_IN = ROOT / "datasets" / "landscape"


def waits(served: Served, mask: np.ndarray, quick: bool) -> tuple[float, float]:
    """Seconds until the first picture of a request, and until the last."""
    start = time.perf_counter()
    answer, first = served.paint(encode(mask, "PNG"), quick=quick), None
    while line := answer.readline():
        event = json.loads(line)
        if "picture" in event and first is None:
            first = time.perf_counter() - start
    assert event["event"] == "picture", event
    return first, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "demo")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--steps", type=int, help="default: the painter's")
    args = parser.parse_args()
    draw_built_in(BUILT_IN)
    rng = np.random.default_rng(0)
    mask = read_mask(sorted((BUILT_IN / "val_A_labels_resized").iterdir())[0], SIZE)
    times = {"first look": [], "first preview": [], "picture": []}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", args.steps] if args.steps else []
        with serving(BUILT_IN, args.checkpoint.resolve(), Path(folder) / "output.txt", *words) as served:
            print(f"the server starts in {time.perf_counter() - start:.1f} s")
            for _ in range(args.count):
                places = (rng.random((2, 2)) * SIZE).astype(int).tolist()
                cv2.line(mask, *places, int(rng.integers(29)), 28)
                times["first look"].append(waits(served, mask, quick=True)[1])
                for name, seconds in zip(("first preview", "picture"), waits(served, mask, quick=False), strict=True):
                    times[name].append(seconds)
    for name, seconds in times.items():
        print(f"{name}: median {np.median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)}")


if __name__ == "__main__":
    main()
