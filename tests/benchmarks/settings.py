"""What the choices of painting do to the score: paints the test pairs under each of them, scores the pictures, prints a table.

    python tests/benchmarks/settings.py --checkpoint checkpoints/diffusion [--judge checkpoints/judge] --input_path <test set>
                                        --img_path <photos> --truth_path <photos of the test set> --train_path <training set>
                                        --output_path settings

First come the ceiling, the true photos, and the floor, masks painted in the mean colour that each class has in the training photos.
--table steps does the same for DDIM and DPM-Solver++ at 10 to 50 steps, with the default guidance and colour matching; --table start for
several --prior_start, of a run that was trained with --unet_linear_start 2; --count N takes N of the pairs, evenly spread.

Pictures and scores stay in --output_path, so that a table that was cut short is finished by the same command; another checkpoint needs
another folder.

KID is that by EfficientNet-lite0 to the photos of --img_path. In brackets behind each style is the corrected form. Without --judge there is
no mask accuracy.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np
from tqdm import tqdm

from datasets.landscape import NUM_CLASSES, read_image, read_mask
from datasets.loader import spread
from datasets.pairs import check_training_pairs
from datasets.test_pairs import find_test_pairs
from tests.benchmarks.commands import HEAD, line, painted_and_scored
from utils.checkpoint import write_json
from utils.errors import or_exit
from utils.image import write_jpeg

SIZE = (512, 384)
PLAIN = ("--color_match", "none")
TABLES = {
    "settings": {
        "mask 3, reference 1.5": PLAIN,
        "no guidance": (*PLAIN, "--guidance", 1, "--ref_guidance", 1),
        "mask 1.5": (*PLAIN, "--guidance", 1.5),
        "mask 2": (*PLAIN, "--guidance", 2),
        "mask 4": (*PLAIN, "--guidance", 4),
        "reference 1": (*PLAIN, "--ref_guidance", 1),
        "reference 2": (*PLAIN, "--ref_guidance", 2),
        "guided above 0.2": (*PLAIN, "--guidance_low", 0.2),
        "guided above 0.4": (*PLAIN, "--guidance_low", 0.4),
        "guided up to 0.8": (*PLAIN, "--guidance_high", 0.8),
        "rescaled by 0.5": (*PLAIN, "--guidance_rescale", 0.5),
        "10 steps": (*PLAIN, "--steps", 10),
        "reference start 0.8": (*PLAIN, "--ref_start", 0.8),
        "colours matched, lab": ("--color_match", "lab"),
        "colours matched, histogram": ("--color_match", "histogram"),
    },
    "start": {  # of runs that have an estimate
        f"from {start if start < 1 else 'pure noise'}": (*PLAIN, "--prior_start", start) for start in (1, 0.9, 0.75, 0.6)
    },
    "steps": {
        f"{title}, {steps} steps": ("--sampler", sampler, "--steps", steps)
        for sampler, title in (("ddim", "DDIM"), ("dpm++2m", "DPM-Solver++ 2M"))
        for steps in (10, 15, 20, 25, 50)
    },
}


def class_colors(pairs: list) -> np.ndarray:
    """Mean colour of each class over photos, uint8 [29, 3]; grey for a class that none of them has."""
    sums, counts = np.zeros((NUM_CLASSES, 3)), np.zeros(NUM_CLASSES)
    for pair in tqdm(pairs, desc="colours of classes", unit="photo"):
        photo, mask = read_image(pair.image, (128, 96)), read_mask(pair.mask, (128, 96)).ravel()
        counts += np.bincount(mask, minlength=NUM_CLASSES)
        for channel in range(3):
            sums[:, channel] += np.bincount(mask, photo[..., channel].ravel(), minlength=NUM_CLASSES)
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], 128).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, help="a run of system judge")
    for name in ("checkpoint", "input_path", "img_path", "truth_path", "train_path", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--table", choices=TABLES, default="settings")
    parser.add_argument("--count", type=int, default=1_000_000, help="pairs, at most (default: all)")
    args = parser.parse_args()

    pairs, train = find_test_pairs(args.input_path, args.img_path), check_training_pairs(args.train_path)
    pairs = [pairs[i] for i in spread(len(pairs), args.count)]
    write_json(args.output_path / "pairs.json", {pair.mask.name: pair.reference.name for pair in pairs})
    colors = class_colors(train)
    ceiling, floor = args.output_path / "true photos", args.output_path / "mean colour of each class"
    for pair in pairs:
        write_jpeg(ceiling / f"{pair.stem}.jpg", read_image(args.truth_path / f"{pair.stem}.jpg", SIZE))
        write_jpeg(floor / f"{pair.stem}.jpg", colors[read_mask(pair.mask, SIZE)])

    lines = []
    judge = ("--judge", args.judge) if args.judge else ()
    given = ("--input_path", args.input_path, "--img_path", args.img_path, "--pairs", args.output_path / "pairs.json", *judge)
    for name, words in {ceiling.name: (), floor.name: (), **TABLES[args.table]}.items():
        lines.append(line(name, painted_and_scored(args.output_path / name, *given, "--checkpoint", args.checkpoint, *words)))
        print(lines[-1], flush=True)
    print("\n" + "\n".join([HEAD.format("setting"), *lines]))


if __name__ == "__main__":
    or_exit(main)
