"""What the first command's pictures are worth: paints pairs of the built-in kind that the run has never seen, and compares.

    python tests/benchmarks/first_pictures.py --checkpoint checkpoints/diffusion

For each of --count pairs a mask, a reference of another layout in the wanted style, and the true picture are drawn. Printed are, as JSON:

- KID: kernel distance x1000 of the pictures to the true ones, by features of EfficientNet-lite0 (the photos' own scale; a true set has 0)
- edges: correlation of gradient magnitudes, at a quarter of the resolution, with the true picture (with another true picture in brackets)
- tone: mean distance of the mean colour from the true picture's, in CIELAB
- sharpness: mean gradient magnitude, over the true pictures'
- mask accuracy, where --judge names a run of system judge: share of the pixels in which it sees the mask's class (and of the true
  pictures); one that has learnt the built-in set: python MainTrain.py --system judge
- val_loss and val_mse_0 ... val_mse_9: the UNet's last validation, from the run's log

and --sheet shows mask, reference, picture and truth.
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

from datasets.synthetic.render import draw
from models.metrics.fid import kernel_distance_of_all
from models.metrics.mask_accuracy import Judge, load_judge
from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.weights import LITE0, packaged_weights
from models.systems import SYSTEMS
from models.training.run import read_run, run_of
from tests.benchmarks.conditions import edges, mean_lab
from utils.errors import or_exit
from utils.image import COLOR_MATCHES, colorize_mask, contact_sheet, resize, write_png
from utils.logger import read_log
from utils.options import add_arguments, given

SIZE = (256, 192)  # compared in this size
FIRST_SEED = 1_000_000  # beyond all that the built-in set is drawn from
BATCH = 8


def sharpness(picture: np.ndarray) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).mean())


def mask_accuracy(judge: Judge, pictures: list[np.ndarray], masks: np.ndarray) -> float:
    size = masks.shape[2], masks.shape[1]
    labels = np.concatenate([judge.labels(np.stack(pictures[i : i + BATCH]), size) for i in range(0, len(pictures), BATCH)])
    return round(float((labels == masks).mean()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--sheet", type=Path, default=Path("first_pictures.png"))
    parser.add_argument("--judge", type=Path, help="a run of system judge")
    parser.add_argument("--color_match", choices=COLOR_MATCHES, default="none")
    painter_class = SYSTEMS["diffusion"].painter
    add_arguments(parser.add_argument_group("painting"), painter_class.Options, "", {"default": painter_class.Options()})
    args = parser.parse_args()

    run = read_run(run_of(args.checkpoint), SYSTEMS)
    painter = painter_class.load(run, args.checkpoint.resolve())
    options = painter_class.Options(**given(args, painter_class.Options, ""))
    seeds = range(FIRST_SEED, FIRST_SEED + args.count)
    drawn = [(*draw(seed, seed, painter.size)[:2], draw(seed + args.count, seed, painter.size)[0]) for seed in tqdm(seeds, desc="drawing")]
    truths, masks, references = (np.stack(part) for part in zip(*drawn, strict=True))
    pictures = []
    for first in tqdm(range(0, args.count, BATCH), desc="painting", unit="batch"):
        part = slice(first, first + BATCH)
        painted = painter.paint(masks[part], references[part], [""] * len(masks[part]), list(seeds)[part], options)
        pictures += [COLOR_MATCHES[args.color_match](a, b) for a, b in zip(painted, references[part], strict=True)]
    pictures, truths = ([resize(picture, SIZE) for picture in some] for some in (pictures, truths))

    network = load_efficientnet_lite("lite0", packaged_weights(LITE0))
    features = [
        np.concatenate([lite_features(network, some[i : i + BATCH]) for i in range(0, args.count, BATCH)]) for some in (pictures, truths)
    ]
    of_truths = [edges(truth) for truth in truths]
    found = {
        "KID": round(1000 * kernel_distance_of_all(*features), 1),
        "edges": round(float(np.mean([edges(a) @ b for a, b in zip(pictures, of_truths, strict=True)])), 3),
        "edges of another": round(float(np.mean([edges(a) @ b for a, b in zip(pictures, np.roll(of_truths, 1, axis=0), strict=True)])), 3),
        "tone": round(float(np.mean([np.linalg.norm(mean_lab(a) - mean_lab(b)) for a, b in zip(pictures, truths, strict=True)])), 2),
        "sharpness": round(np.mean([*map(sharpness, pictures)]) / np.mean([*map(sharpness, truths)]), 3),
    }
    if args.judge:
        judge = load_judge(read_run(args.judge, SYSTEMS))
        found |= {f"mask accuracy{name}": mask_accuracy(judge, some, masks) for name, some in (("", pictures), (" of the true", truths))}
    validations = [line for line in read_log(run.folder / "log.jsonl") if line.get("stage") == "unet" and "val_loss" in line]
    found |= {name: round(value, 4) for name, value in validations[-1].items() if name.startswith("val_")} if validations else {}
    print(json.dumps(found))
    rows = zip(colorize_mask(masks), references, pictures, truths, strict=True)
    write_png(args.sheet, contact_sheet([list(row) for row in rows][:12], ["mask", "reference", "picture", "truth"], size=SIZE))


if __name__ == "__main__":
    or_exit(main)
