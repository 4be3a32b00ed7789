"""What super-resolution is worth: photos that RCAN has never seen are halved, brought back to their size, and compared with what they were.

    python tests/benchmarks/super_resolution.py --sr_checkpoint checkpoints/sr --input_path real/test --train_path real

Prints a table: for clean halves, and for halves with the faults of painted pictures (datasets/degradation.py), by Pillow's bicubic and
Lanczos filters and by RCAN,

- PSNR: mean over the photos, dB
- KID: kernel distance x1000 to the training photos by features of EfficientNet-lite0 (the photos' own scale); the photos' own beside it

in the size the run was trained in, and writes a sheet of a few photos, enlarged.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np
from tqdm import tqdm

from datasets.degradation import degraded, halved
from datasets.landscape import read_image
from datasets.loader import spread
from datasets.pairs import check_training_pairs
from models.metrics.fid import kernel_distance_of_all
from models.metrics.reconstruction import psnr
from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.weights import LITE0, packaged_weights
from models.painters.super_resolution import SuperResolution, rcan_of
from models.stages.rcan import bicubic
from models.systems import SYSTEMS
from models.training.run import read_run, run_of
from utils.errors import or_exit
from utils.image import contact_sheet, resize, write_png

BATCH = 16


def lanczos(picture: np.ndarray) -> np.ndarray:
    """What is done where super-resolution is not asked for."""
    return resize(picture, (2 * picture.shape[1], 2 * picture.shape[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sr_checkpoint", "input_path", "train_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--count", type=int, default=10_000, help="photos of each set, spread over it")
    parser.add_argument("--sheet", type=Path, default=Path("super_resolution.png"))
    args = parser.parse_args()

    run = read_run(run_of(args.sr_checkpoint), SYSTEMS)
    size, enlarge = run.options["rcan"].size, SuperResolution(rcan_of(run), tile=0).doubled
    network = load_efficientnet_lite("lite0", packaged_weights(LITE0))

    def photos_of(folder: Path) -> list[np.ndarray]:
        pairs = check_training_pairs(folder)
        return [read_image(pairs[i].image, size) for i in spread(len(pairs), args.count)]

    def features(pictures: list[np.ndarray]) -> np.ndarray:
        parts = range(0, len(pictures), BATCH)
        return np.concatenate([lite_features(network, pictures[i : i + BATCH]) for i in tqdm(parts, "features", leave=False)])

    photos, of_training = photos_of(args.input_path), features(photos_of(args.train_path))

    def kid(pictures: list[np.ndarray]) -> float:
        return 1000 * kernel_distance_of_all(features(pictures), of_training)

    halves = {"clean half": [halved(photo) for photo in photos]}
    halves["faulty half"] = [degraded(half, np.random.default_rng(i)) for i, half in enumerate(halves["clean half"])]
    print(f"{len(photos)} photos of {size[0]}x{size[1]}; KID of the photos themselves: {kid(photos):.1f}")
    print("\n| | PSNR | KID |\n|---|---|---|")
    shown, columns = spread(len(photos), 6), {"photo": photos}
    for kind, pictures in halves.items():
        for name, method in {"bicubic": bicubic, "Lanczos": lanczos, "RCAN": enlarge}.items():
            begun = time.monotonic()
            results = [method(picture) for picture in tqdm(pictures, f"{kind}, {name}", leave=False)]
            seconds = (time.monotonic() - begun) / len(pictures)
            quality = np.mean([psnr(result, photo) for result, photo in zip(results, photos, strict=True)])
            print(f"| {kind}, {name} | {quality:.2f} dB | {kid(results):.1f} |", flush=True)
            if name != "Lanczos":
                columns[f"{kind}, {name}"] = results
    print(f"\nRCAN takes {seconds:.2f} s a picture.")
    write_png(args.sheet, contact_sheet([[pictures[i] for pictures in columns.values()] for i in shown], [*columns], size=(512, 384)))


if __name__ == "__main__":
    or_exit(main)
