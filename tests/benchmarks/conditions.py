"""Do the pictures follow mask and reference? Paints test pairs with their references and with each other's, and compares.

    python tests/benchmarks/conditions.py --checkpoint checkpoints/diffusion --input_path <test set> --img_path <photos>
                                          --truth_path <photos of the test set>

Prints, as JSON:

- tone_follows: how far the mean colour of a picture (CIELAB) moves towards its new reference when references are swapped, as a share of
  the distance between the references (1: all the way; 0: not at all); the mean over the pictures, by least squares
- edges_stay: correlation of the gradient magnitudes of a picture and of itself with the other reference, at a quarter of the resolution
- edges_of_another_mask: the same with the picture of another mask under the first reference, for comparison

and writes a sheet: mask, reference, result, other reference, result with that, truth.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import cv2
import numpy as np
from tqdm import tqdm

from datasets.landscape import read_image, read_mask
from datasets.test_pairs import find_test_pairs
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.systems import SYSTEMS
from models.training.run import read_run, run_of
from utils.errors import or_exit
from utils.image import colorize_mask, contact_sheet, to_lab, write_png


def mean_lab(image: np.ndarray) -> np.ndarray:
    return to_lab(image).mean(axis=(0, 1))


def edges(image: np.ndarray) -> np.ndarray:
    """Gradient magnitude, normalised to mean 0 and length 1."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).ravel()
    magnitude -= magnitude.mean()
    return magnitude / np.linalg.norm(magnitude)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "input_path", "img_path", "truth_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, default=Path("sheet.png"))
    parser.add_argument("--count", type=int, default=32, help="pairs to paint, spread over the test set")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--ref_guidance", type=float, default=1.5)
    args = parser.parse_args()

    painter = LatentDiffusion.load(read_run(run_of(args.checkpoint), SYSTEMS), args.checkpoint.resolve())
    options = PaintingOptions(guidance=args.guidance, ref_guidance=args.ref_guidance)
    pairs = find_test_pairs(args.input_path, args.img_path)
    pairs = pairs[:: max(1, len(pairs) // args.count)][: args.count]
    masks = np.stack([read_mask(pair.mask, painter.size) for pair in pairs])
    references = np.stack([read_image(pair.reference, painter.size) for pair in pairs])
    truths = [read_image(args.truth_path / f"{pair.stem}.jpg", painter.size) for pair in pairs]
    others = np.roll(references, 1, axis=0)

    def paint(masks: np.ndarray, references: np.ndarray) -> np.ndarray:
        pictures = []
        for first in tqdm(range(0, len(masks), 8), desc="painting", unit="batch", dynamic_ncols=True):
            part = slice(first, first + 8)
            seeds = list(range(first, first + len(masks[part])))
            pictures.append(painter.paint(masks[part], references[part], [""] * len(masks[part]), seeds, options))
        return np.concatenate(pictures)

    own, swapped, elsewhere = paint(masks, references), paint(masks, others), paint(np.roll(masks, 1, axis=0), references)
    towards = np.stack([mean_lab(b) - mean_lab(a) for a, b in zip(references, others, strict=True)])
    moved = np.stack([mean_lab(b) - mean_lab(a) for a, b in zip(own, swapped, strict=True)])
    print(
        json.dumps(
            {
                "pictures": len(pairs),
                "tone_follows": round(float((towards * moved).sum() / (towards**2).sum()), 3),
                "edges_stay": round(float(np.mean([edges(a) @ edges(b) for a, b in zip(own, swapped, strict=True)])), 3),
                "edges_of_another_mask": round(float(np.mean([edges(a) @ edges(b) for a, b in zip(own, elsewhere, strict=True)])), 3),
            }
        )
    )
    rows = zip(colorize_mask(masks), references, own, others, swapped, truths, strict=True)
    titles = ["mask", "reference", "result", "other reference", "result with it", "truth"]
    write_png(args.sheet, contact_sheet([list(row) for row in rows], titles))


if __name__ == "__main__":
    or_exit(main)
