"""Stage `segformer`: the judge of mask accuracy, trained on the photos and masks alone."""

from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import NUM_CLASSES, read_image, read_mask
from datasets.pairs import Pair
from datasets.transforms import random_flip
from models.losses.segmentation import negative_log_likelihood
from models.networks.conditioner import UNKNOWN
from models.networks.segformer import SEGFORMERS, SegformerForSemanticSegmentation, normalize, predict
from models.ops.one_hot import class_shares
from models.training.learner import Learner
from models.training.options import StageOptions
from utils import parallel
from utils.image import colorize_mask, resize, resize_mask
from utils.options import option

ZOOM = 0.75, 2.0  # of a random crop: below 1 the photo is smaller than the crop
TONE = 0.3  # gains, gammas and saturation are changed by factors up to e^±TONE


@dataclass(frozen=True)
class SegformerOptions(StageOptions):
    network: str = option("b2", "size of the network", choices=SEGFORMERS, fixed=True)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        sides = {side: getattr(self, side) for side in ("width", "height")}
        return [f"--segformer_{side} {value} is not a multiple of 32" for side, value in sides.items() if value % 32]


class AugmentedPairs:
    """Photos with masks, normalised; randomly cropped, flipped and coloured unless `whole`."""

    def __init__(self, pairs: list[Pair], size: tuple[int, int], whole: bool):
        self.pairs, self.size, self.whole = pairs, size, whole

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """image: float32 [3, H, W]; mask: uint8 [H, W], UNKNOWN outside of the photo."""
        pair = self.pairs[index]
        if self.whole:
            image, mask = read_image(pair.image, self.size), read_mask(pair.mask, self.size)
        else:
            image, mask = zoomed(read_image(pair.image), read_mask(pair.mask), self.size, rng)
            both = random_flip(np.concatenate([np.moveaxis(image, -1, 0), mask[None]]), rng)
            image, mask = recolored(np.moveaxis(both[:3], 0, -1), rng), both[3]
        return {"image": normalize(image), "mask": np.ascontiguousarray(mask)}


def zoomed(image: np.ndarray, mask: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Photo and mask at a random scale, log-uniform in ZOOM, and a window of `size` = (width, height) of them, at a random place."""
    scale = np.exp(rng.uniform(*np.log(ZOOM)))
    scaled = tuple(round(side * scale) for side in size)
    image, mask = resize(image, scaled), resize_mask(mask, scaled)
    left, top = (int(rng.integers(min(0, a - b), max(0, a - b) + 1)) for a, b in zip(scaled, size, strict=True))  # below 0: a margin
    image, mask = (array[max(0, top) : max(0, top) + size[1], max(0, left) : max(0, left) + size[0]] for array in (image, mask))
    before = max(0, -top), max(0, -left)
    margin = [(b, s - b - n) for b, s, n in zip(before, size[::-1], mask.shape, strict=True)]
    return np.pad(image, [*margin, (0, 0)]), np.pad(mask, margin, constant_values=UNKNOWN)


def recolored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light: a gain for each channel, a gamma, a saturation."""
    gains, gamma, saturation = np.exp(rng.uniform(-TONE, TONE, (1, 1, 3)) / 2), *np.exp(rng.uniform(-TONE, TONE, 2))
    values = np.float32(image / 255) ** np.float32(gamma) * np.float32(gains)
    grey = values.mean(axis=-1, keepdims=True)
    return np.uint8(np.clip((grey + (values - grey) * np.float32(saturation)) * 255, 0, 255))


class SegformerStage:
    name = "segformer"
    builds_on = ()
    networks = ("segformer",)
    columns = ("photo", "mask", "prediction")
    Options = SegformerOptions

    def __init__(self, options: SegformerOptions, folder: Path):
        self.options = options
        self.segformer = SegformerForSemanticSegmentation(SEGFORMERS[options.network])
        self.learners = {"segformer": Learner({"segformer": self.segformer}, options.recipe)}

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[AugmentedPairs, AugmentedPairs]:
        return AugmentedPairs(train, self.options.size, whole=False), AugmentedPairs(validation, self.options.size, whole=True)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        return self.learners["segformer"].step(self.losses, batches, step)

    def losses(self, batch: dict[str, np.ndarray], training: bool = True) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: the cross-entropy of cells of 4x4 pixels against their shares of each class."""
        logits = self.segformer(jt.array(batch["image"]), training).float32()  # [B, 29, h, w]
        shares = class_shares(jt.array(batch["mask"]), NUM_CLASSES, batch["mask"].shape[1] // logits.shape[2])  # [B, 29, h, w]
        total = shares.sum()
        if training:
            (total,) = parallel.mean([total])  # so that every known pixel weighs the same, whichever process has it
        return {"loss": negative_log_likelihood(logits, shares) / (total + 1e-6)}

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """The loss, and the share of pixels whose class is the mask's."""
        predicted = predict(self.segformer, batch["image"])
        return {
            "val_loss": float(self.losses(batch, training=False)["loss"].item()),
            "val_pixel_accuracy": float((predicted == batch["mask"]).mean()),
        }

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`."""
        photos = np.stack([read_image(pair.image, self.options.size) for pair in pairs])
        masks = np.stack([read_mask(pair.mask, self.options.size) for pair in pairs])
        predicted = predict(self.segformer, normalize(photos))
        return [list(row) for row in zip(photos, colorize_mask(masks), colorize_mask(predicted), strict=True)]
