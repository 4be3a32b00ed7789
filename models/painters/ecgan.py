"""ECGAN at work: masks and reference photos in, pictures out, in one pass."""

from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.test_pairs import find_test_pairs
from datasets.transforms import to_array, to_image
from models.networks.ecgan import ECGAN, ECGANConfig, sampled
from models.networks.pretrained import load_network
from models.training.run import Run
from utils.image import resize
from utils.options import option


@dataclass(frozen=True)
class PaintingOptions:
    style_noise: float = option(1.0, "how far the style may be from the reference's: a scale of its deviation, 0 for not at all", least=0)

    def faults(self) -> list[str]:
        return []


@dataclass
class ECGANPainter:
    Options = PaintingOptions
    marker = "ecgan"  # a run can be painted with once it has this network
    color_match = "lab"  # unless another is asked for
    find_pairs = staticmethod(find_test_pairs)

    ecgan: ECGAN

    @classmethod
    def load(cls, run: Run, weights: Path) -> "ECGANPainter":
        """`weights`: the run's folder, or `best` in it. Raises UserError where something is missing or damaged."""
        return cls(load_network(ECGAN, ECGANConfig, weights / "ecgan"))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        return self.ecgan.config.size

    def paint(
        self, masks: np.ndarray, references: np.ndarray, captions: list[str], seeds: list[int], options: PaintingOptions
    ) -> np.ndarray:
        """Pictures uint8 [B, H, W, 3], each by its own mask, reference and seed alone: they are painted one at a time.

        masks: uint8 [B, H, W], values 0..28; references: uint8 [B, H, W, 3]; seeds: one a picture, not negative. Captions change nothing.
        """
        side, length = self.ecgan.config.style_size, self.ecgan.config.style
        pictures = []
        with jt.no_grad():
            for mask, reference, seed in zip(masks, references, seeds, strict=True):
                noise = options.style_noise * np.random.default_rng(seed).standard_normal((1, length), np.float32)
                mean, logvar = self.ecgan.encoder(jt.array(to_array(resize(reference, (side, side)))[None]))
                style = sampled(mean, logvar, jt.array(noise))
                pictures.append(to_image(self.ecgan(jt.array(mask[None]), style).result.numpy()))
        return np.concatenate(pictures)
