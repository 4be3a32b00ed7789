"""Peak memory of FID, KID and style of 1000 pictures, against more and more training photos.

    python tests/benchmarks/score_memory.py --photos 1000 10000

Pictures and photos are 512x384 files of noise, and Inception's weights are drawn, which changes no size. Most features are written
beforehand and the last 64 of each set are measured, as where a scoring is finished that was killed: all of the scorer's code runs, at full
size, in minutes. Each line is a process of its own; printed is the most that it had resident, files mapped into memory included.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np
from memory import peak_memory
from tqdm import tqdm

from datasets.test_pairs import TestPair
from models.metrics import pictures as scored
from models.metrics import score
from models.networks.inception import FEATURES, Inception
from utils.checkpoint import module_arrays, write_safetensors
from utils.image import resize, write_jpeg
from utils.rows import digest, measured

FRESH = 64  # of each set, measured by the network


def prepare(folder: Path, results: int, photos: int) -> None:
    """Writes the pictures, the photos, the weights, and the features of nearly all."""
    random = np.random.default_rng(0)
    for name, count in (("results", results), ("imgs", photos)):
        for i in tqdm(range(count), desc=name, unit="picture"):
            write_jpeg(folder / name / f"{i:05d}.jpg", resize(random.integers(0, 256, (12, 16, 3), np.uint8), (512, 384)))
    write_safetensors(folder / "inception.safetensors", module_arrays(Inception()))
    for name, cache in (("results", folder / "cache"), ("imgs", folder)):
        keys = [digest(path) for path in sorted((folder / name).iterdir())][:-FRESH]
        rows = cache / f"inception-{scored.short(folder / 'inception.safetensors')}.rows"
        row = np.dtype((np.float32, (FEATURES,)))
        measured(rows, keys, row, lambda indices: random.random((len(indices), FEATURES), np.float32), 256, name)


def measure(folder: Path) -> float:
    """Scores in this process; returns its peak memory in GB."""
    scored.find_weights = lambda *_: [folder / "inception.safetensors"]  # has no published file's checksum
    results, photos = (sorted((folder / name).iterdir()) for name in ("results", "imgs"))
    pictures = scored.Pictures(
        pairs=[TestPair(path.stem, mask=path, reference=photos[0]) for path in results],
        folder=folder / "results",
        photos=photos,
        truths=None,
        judge=None,
        weights=folder,
        style_metric="faithful",
        cache=folder / "cache",
        size=(512, 384),
    )
    for name in ("FID", "KID", "style"):
        print(name, score.METRICS[name](pictures).value, file=sys.stderr)
    return peak_memory() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=1000)
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(measure(args.folder))
        return
    print("| results | training photos | peak |\n|---|---|---|")
    for photos in args.photos:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), args.results, photos)
            found = subprocess.run([sys.executable, __file__, "--folder", folder], check=True, stdout=subprocess.PIPE).stdout
        print(f"| {args.results} | {photos} | {float(found.split()[-1]):.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
