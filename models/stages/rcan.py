"""Stage `rcan`: RCAN learns to double photos from their halves, some of which are given the faults that painted pictures have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jittor as jt
import numpy as np
from PIL import Image

from datasets.degradation import degraded, halved
from datasets.landscape import read_image
from datasets.pairs import Pair
from datasets.transforms import random_crop, random_flip
from models.losses.reconstruction import l1
from models.metrics.reconstruction import psnr
from models.networks.layers import edited, zeros_
from models.networks.rcan import BORDER, RCAN, SCALE, RCANConfig, double
from models.training.learner import Learner, Recipe
from models.training.options import MOST_EXAMPLES, MOST_PIXELS, StageOptions
from utils.lr_schedule import warmup_halving
from utils.options import option


@dataclass(frozen=True)
class RCANOptions(StageOptions):
    width: int = option(512, "of the photos that it learns to make of their halves, in pixels", least=1, most=MOST_PIXELS, fixed=True)
    height: int = option(384, "of the same", least=1, most=MOST_PIXELS, fixed=True)
    groups: int = option(10, "residual groups", least=1, fixed=True)
    blocks: int = option(20, "residual channel attention blocks of each group", least=1, fixed=True)
    channels: int = option(64, "features", least=3, fixed=True)
    reduction: int = option(16, "by which channel attention has fewer features inside", least=1, fixed=True)
    patch: int = option(96, "it is trained on random squares of photos of so many pixels a side", least=6 * BORDER)
    degraded: float = option(0.5, "share of the examples in which the half has a painted picture's faults", least=0, most=1)
    steps: int = option(32_000, "updates", least=1)
    batch_size: int = option(32, "examples a micro-batch, of all processes together", least=1, most=MOST_EXAMPLES)
    lr: float = option(2e-4, "learning rate after the warm-up", least=1e-12)
    warmup: int = option(1, "steps in which the learning rate rises", least=1)
    halve_every: int = option(8000, "steps after which the learning rate is halved, again and again", least=1)
    weight_decay: float = option(0.0, "of AdamW", least=0)
    ema: float = option(0.999, "decay of the averaged weights", least=0, most=0.999999)

    @property
    def network(self) -> RCANConfig:
        return RCANConfig(n_resgroups=self.groups, n_resblocks=self.blocks, n_feats=self.channels, reduction=self.reduction)

    @property
    def recipe(self) -> Recipe:
        return replace(super().recipe, lr=warmup_halving(self.lr, self.warmup, self.halve_every))

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        sides = {name: getattr(self, name) for name in ("width", "height", "patch")}
        faults = [f"--rcan_{name} {value} is not even" for name, value in sides.items() if value % SCALE]
        if self.patch > min(self.size):
            faults.append(f"--rcan_patch {self.patch} is more than a side of the photos, {self.width}x{self.height}")
        if self.channels % self.reduction:
            faults.append(f"--rcan_channels {self.channels} is not a multiple of --rcan_reduction {self.reduction}")
        return faults


class PhotosAndHalves:
    """Random squares of photos, turned and mirrored, with their halves; or, if `whole`, photos with a clean half and a faulty one."""

    def __init__(self, pairs: list[Pair], options: RCANOptions, whole: bool):
        self.pairs, self.options, self.whole = pairs, options, whole

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """photo: uint8 [H, W, 3]; half: uint8 [H/2, W/2, 3]; if whole also faulty: the same with faults."""
        photo = read_image(self.pairs[index].image, self.options.size)
        if self.whole:
            half = halved(photo)
            return {"photo": photo, "half": half, "faulty": degraded(half, rng)}
        channels_first = random_crop(np.moveaxis(photo, -1, 0), self.options.patch, self.options.patch, rng)
        turned = np.rot90(random_flip(channels_first, rng), int(rng.integers(4)), axes=(1, 2))
        photo = np.ascontiguousarray(np.moveaxis(turned, 0, -1))
        half = halved(photo)
        return {"photo": photo, "half": degraded(half, rng) if rng.random() < self.options.degraded else half}


def start_as_interpolation(rcan: RCAN) -> None:
    """Initialises the network to interpolate linearly, so that it begins with what it is to improve.

    From the usual random start it first has to learn that the picture it is given is nearly the one that is wanted, which takes thousands
    of steps. Here three features are the colours, the residual body adds nothing (Goyal et al. 2017, section 5.1), and the tail makes
    each cell's four pixels of the colours around. All other weights keep their random start.
    """
    colors = range(3)
    zeros_(rcan.body[-1])
    with edited(rcan.head[0]) as (weight, bias):
        weight[:3], bias[:3] = 0, 0
        weight[colors, colors, 1, 1] = 1
    with edited(rcan.tail[0][0]) as (weight, bias):
        weight[:12], bias[:12] = 0, 0
        before, behind = [0.25, 0.75, 0], [0, 0.75, 0.25]  # a cell's two pixels of a row lie a quarter of a cell from its centre
        kernels = [np.outer(down, across) for down in (before, behind) for across in (before, behind)]
        for color in colors:
            weight[4 * color : 4 * color + 4, color] = kernels
    with edited(rcan.tail[1]) as (weight, bias):
        weight[:], bias[:] = 0, 0
        weight[colors, colors, 1, 1] = 1


class RCANStage:
    name = "rcan"
    builds_on = ()
    networks = ("rcan",)
    columns = ("photo", "half, bicubic", "half, RCAN", "faulty half, bicubic", "faulty half, RCAN")
    Options = RCANOptions

    def __init__(self, options: RCANOptions, folder: Path):
        self.options = options
        self.rcan = RCAN(options.network)
        start_as_interpolation(self.rcan)
        self.learners = {"rcan": Learner({"rcan": self.rcan}, options.recipe)}

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[PhotosAndHalves, PhotosAndHalves]:
        return PhotosAndHalves(train, self.options, whole=False), PhotosAndHalves(validation, self.options, whole=True)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        return self.learners["rcan"].step(self.losses, batches, step)

    def losses(self, batch: dict[str, np.ndarray]) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: the mean absolute error, of values 0..1, but for the border that use cuts off."""
        half, photo = (jt.array(np.float32(np.moveaxis(batch[name], -1, 1))) for name in ("half", "photo"))
        cut = slice(SCALE * BORDER, -SCALE * BORDER)
        error = ((self.rcan(half) - photo) / 255)[:, :, cut, cut]
        return {"loss": l1(error), "psnr": -10 * jt.log(error.sqr().mean()) / np.log(10)}

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """PSNR in dB of whole photos from their clean halves, from faulty ones, and by bicubic interpolation of the clean ones."""

        def quality(name: str, enlarge: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            return np.array([psnr(enlarge(half), photo) for half, photo in zip(batch[name], batch["photo"], strict=True)])

        return {
            "val_psnr": quality("half", self.doubled),
            "val_psnr_faulty": quality("faulty", self.doubled),
            "val_psnr_bicubic": quality("half", bicubic),
        }

    def doubled(self, picture: np.ndarray) -> np.ndarray:
        return double(self.rcan, picture)

    def to_minimise(self, metrics: dict[str, float]) -> float:
        """Minus the PSNR, with as many faulty halves as there are in training."""
        share = self.options.degraded
        return -((1 - share) * metrics["val_psnr"] + share * metrics["val_psnr_faulty"])

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`."""
        dataset, rows = PhotosAndHalves(pairs, self.options, whole=True), []
        for i in range(len(pairs)):
            example = dataset.example(i, np.random.default_rng(i))
            enlarged = [enlarge(example[name]) for name in ("half", "faulty") for enlarge in (bicubic, self.doubled)]
            rows.append([example["photo"], *enlarged])
        return rows


def bicubic(picture: np.ndarray) -> np.ndarray:
    """The picture uint8 [H, W, 3] at twice its size by Pillow's bicubic filter, to compare with."""
    height, width = picture.shape[:2]
    return np.array(Image.fromarray(picture).resize((SCALE * width, SCALE * height), Image.Resampling.BICUBIC))
