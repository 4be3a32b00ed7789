"""Mask accuracy: the share of pixels in which a judge sees the class that the mask asks for. With it mean IoU, and both by class.

The organisers' judge is a SegFormer whose weights were never published. Ours is trained here (system `judge`), so that its numbers
are to be compared among themselves: how well it does on real photos it never saw goes with them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.landscape import NUM_CLASSES
from models.networks.pretrained import WEIGHTS, load_network
from models.networks.segformer import SegformerConfig, SegformerForSemanticSegmentation, normalize, predict
from models.training.run import Run, read_best
from utils.errors import UserError
from utils.image import resize


@dataclass
class Judge:
    network: SegformerForSemanticSegmentation
    size: tuple[int, int]  # (width, height) it looks at pictures in
    weights: Path
    held_out_accuracy: float  # share of the pixels of its validation photos, at that size, that it names right

    def labels(self, pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Classes uint8 [B, H, W], of `size` = (width, height), that it sees in pictures uint8 [B, h, w, 3]."""
        small = np.stack([resize(picture, self.size) for picture in pictures])
        return predict(self.network, normalize(small), size[::-1])


def judge_file(folder: Path) -> Path:
    """The file that a run has when it has a judge."""
    return folder / "best" / "segformer" / "config.json"


def load_judge(run: Run) -> Judge:
    """The judge of lowest validation loss of a run. Raises UserError where the run has none."""
    folder = run.folder / "best" / "segformer"
    best = read_best(run.folder).get("segformer")
    if "segformer" not in run.options or best is None or "val_pixel_accuracy" not in best:
        raise UserError(f"{run.folder} has no judge: train one with MainTrain.py --system judge")
    network = load_network(SegformerForSemanticSegmentation, SegformerConfig, folder)
    return Judge(network, run.options["segformer"].size, folder / WEIGHTS, best["val_pixel_accuracy"])


def confusion(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pixels by class of the mask (row) and class seen (column): [29, 29] of two uint8 [H, W]."""
    cells = mask.astype(np.int64) * NUM_CLASSES + labels
    return np.bincount(cells.ravel(), minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def by_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Of a confusion matrix: each class's share of the pixels, pixel accuracy, and IoU; float64 [29], NaN for a class in neither."""
    matrix = matrix.astype(np.float64)
    asked, seen, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    with np.errstate(invalid="ignore"):
        return {"share": asked / asked.sum(), "accuracy": right / asked, "IoU": right / (asked + seen - right)}


def evidence(confusions: np.ndarray) -> np.ndarray:
    """How much of what the judge sees in each picture speaks for its mask: float64 [N] of confusion matrices [N, 29, 29], in nats a pixel.

    The mean over the pixels of log p(class seen | class of the mask) / p(class seen), with the probabilities of the other pictures: a class
    that the judge always takes for another speaks for the mask all the same. 0 is what a mask of another picture has. The conditional
    probabilities start from those of all pixels, which count as one picture.
    """
    total, values = confusions.sum(axis=0, dtype=np.float64), []
    for own in confusions.astype(np.float64):
        others, pixels = total - own, own.sum()
        seen = (others.sum(axis=0) + 1) / (others.sum() + NUM_CLASSES)  # [29]
        given = (others + pixels * seen) / (others.sum(axis=1, keepdims=True) + pixels)  # [29, 29]
        values.append((own * np.log(given / seen)).sum() / pixels)
    return np.array(values)
