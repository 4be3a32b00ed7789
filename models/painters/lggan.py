"""LGGAN at work: masks in, pictures out. It looks at no reference: the result takes its colours from there afterwards."""

from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.test_pairs import find_test_pairs
from datasets.transforms import to_image
from models.networks.lggan import LGGAN, LGGANConfig
from models.networks.pretrained import load_network
from models.training.options import StageOptions
from models.training.run import Run


@dataclass(frozen=True)
class PaintingOptions:
    """There are none: a mask has one picture, whatever the seed."""

    def faults(self) -> list[str]:
        return []


@dataclass
class LGGANPainter:
    Options = PaintingOptions
    marker = "lggan"  # a run can be painted with once it has this network
    color_match = "lab"  # unless another is asked for
    find_pairs = staticmethod(find_test_pairs)

    options: StageOptions  # of stage lggan
    lggan: LGGAN

    @classmethod
    def load(cls, run: Run, weights: Path) -> "LGGANPainter":
        """`weights`: the run's folder, or `best` in it. Raises UserError where the network is missing or damaged."""
        return cls(run.options["lggan"], load_network(LGGAN, LGGANConfig, weights / "lggan"))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        return self.options.size

    def paint(
        self, masks: np.ndarray, references: np.ndarray, captions: list[str], seeds: list[int], options: PaintingOptions
    ) -> np.ndarray:
        """Pictures uint8 [B, H, W, 3] of masks uint8 [B, H, W], values 0..28, each by its own mask alone: they are painted one at a time.
        References, captions and seeds change nothing."""
        with jt.no_grad():
            return np.concatenate([to_image(self.lggan(mask[None]).final.numpy()) for mask in masks])
