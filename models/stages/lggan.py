"""Stage `lggan`: a generator that paints from the mask alone, against a discriminator of its three pictures.

The losses are those of the competition's port of LGGAN: adversarial, feature matching, perceptual, L1 and total variation, each summed
over the final, the global and the local picture, and for the classes of the mask one of features and one of pictures. Their weights change
once in the course of training.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import NUM_CLASSES
from datasets.pairs import Pair
from datasets.transforms import to_image
from models.losses.adversarial import discriminator_hinge, feature_matching, generator_hinge, scores
from models.losses.perceptual import PerceptualLoss
from models.losses.reconstruction import l1, total_variation
from models.losses.segmentation import negative_log_likelihood
from models.networks.conditioner import one_hot
from models.networks.discriminators import MultiscaleDiscriminator
from models.networks.layers import NORMS, xavier_
from models.networks.lggan import DOWNSCALE, LGGAN, LGGANConfig
from models.ops.transpose import swap_last_axes
from models.stages.photos import PhotosWithMasks
from models.training.learner import Learner, Recipe, verdict
from models.training.options import MOST_EXAMPLES, MOST_PIXELS, StageOptions
from utils import parallel
from utils.image import colorize_mask
from utils.lr_schedule import warmup_linear
from utils.options import option

DECAY, CHANGE = 50 / 120, 90 / 120  # from these shares of the steps on the learning rate falls, and the losses weigh otherwise
WEIGHTS = (  # before and after the change; the adversarial loss weighs 1
    {"feature_matching": 8, "perceptual": 3, "l1": 2, "class_l1": 2, "class_entropy": 5, "variation": 4},
    {"feature_matching": 10, "perceptual": 5, "l1": 20, "class_l1": 20, "class_entropy": 5, "variation": 4},
)


@dataclass(frozen=True)
class LGGANOptions(StageOptions):
    width: int = option(
        256, "of the pictures it works on, in pixels; results are always written at 512x384", least=1, most=MOST_PIXELS, fixed=True
    )
    height: int = option(192, "of the same", least=1, most=MOST_PIXELS, fixed=True)
    steps: int = option(600_000, "updates of each of the two", least=1)
    batch_size: int = option(2, "examples a micro-batch, of all processes together", least=1, most=MOST_EXAMPLES)
    warmup: int = option(1, "steps in which the learning rates rise; they are held to 5/12 of the steps, and then fall on a line", least=1)
    weight_decay: float = option(0.0, "of AdamW", least=0)
    max_norm: float = option(1000.0, "gradients are clipped to this norm", least=1e-12)
    channels: int = option(64, "of the generator's finest feature maps", least=4, fixed=True)
    blocks: int = option(9, "residual blocks of the local branch", least=1, fixed=True)
    norm: str = option("instance", "whose statistics SPADE normalises by", choices=NORMS, fixed=True)
    discriminator_channels: int = option(64, "of the discriminator's first layer", least=1, fixed=True)
    discriminator_lr: float = option(4.0, "learning rate of the discriminator, as a multiple of the generator's", least=1e-12)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        sides = {side: getattr(self, side) for side in ("width", "height")}
        return [f"--lggan_{side} {value} is not a multiple of {DOWNSCALE}" for side, value in sides.items() if value % DOWNSCALE]


class LGGANStage:
    name = "lggan"
    builds_on = ()
    networks = ("lggan",)
    columns = ("mask", "global", "local", "result", "photo")
    Options = LGGANOptions

    def __init__(self, options: LGGANOptions, folder: Path):
        self.options = options
        self.lggan = xavier_(LGGAN(LGGANConfig(NUM_CLASSES, options.channels, options.blocks, options.norm)), gain=0.02)
        self.discriminator = xavier_(MultiscaleDiscriminator(NUM_CLASSES + 3, options.discriminator_channels), gain=0.02)
        self.perceptual = PerceptualLoss(self.name)
        recipe = partial(Recipe, betas=(0.0, 0.9), weight_decay=options.weight_decay, max_norm=options.max_norm)
        lr, faster = (  # two time scales (Heusel et al. 2017)
            warmup_linear(factor * options.lr, options.warmup, round(DECAY * options.steps), options.steps)
            for factor in (1, options.discriminator_lr)
        )
        self.learners = {
            "lggan": Learner({"lggan": self.lggan}, recipe(lr, ema=options.ema)),
            "discriminator": Learner({"discriminator": self.discriminator}, recipe(faster, ema=None)),
        }

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[PhotosWithMasks, PhotosWithMasks]:
        return tuple(PhotosWithMasks(pairs, self.options.size, whole) for pairs, whole in ((train, False), (validation, True)))

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        """The generator's step, then the discriminator's on what the generator has just made."""
        judged = []
        made = self.learners["lggan"].step(partial(self.losses, step=step, judged=judged), batches, step)
        return made | verdict(self.learners["discriminator"], self.discriminator_losses, judged, step)

    def losses(self, batch: dict[str, np.ndarray], step: int, judged: list[dict]) -> dict[str, jt.Var]:
        """The losses of the generator by name; `loss` is their weighted sum. What the discriminator is to judge is added to `judged`."""
        real, label = jt.array(batch["image"]), one_hot(jt.array(batch["mask"]), NUM_CLASSES)
        painted = self.lggan(batch["mask"])
        with jt.no_grad():
            true = self.judge(label, real)
        made = [self.judge(label, picture) for picture in painted.pictures]
        parts = {
            "adversarial": sum(generator_hinge(scores(maps)) / len(maps) for maps in made),
            "feature_matching": sum(feature_matching(maps, true) for maps in made),
            "l1": sum(l1(picture - real) for picture in painted.pictures),
            "class_l1": class_l1(painted.classes, real, label),
            "class_entropy": class_entropy(painted.logits, label),
            "variation": sum(total_variation(picture) for picture in painted.pictures),
        }
        if self.perceptual.network:
            with jt.no_grad():
                seen = [map_.stop_grad() for map_ in self.perceptual.features(real)]
            parts["perceptual"] = sum(self.perceptual.distance(self.perceptual.features(picture), seen) for picture in painted.pictures)
        judged.append({"label": label, "real": real, "pictures": [picture.detach() for picture in painted.pictures]})
        weights = WEIGHTS[step >= CHANGE * self.options.steps]
        return {"loss": sum(weights.get(name, 1) * part for name, part in parts.items()), **parts}

    def discriminator_losses(self, batch: dict[str, jt.Var | list[jt.Var]]) -> dict[str, jt.Var]:
        """Hinge losses, summed over the three pictures, of which each is held against the photo."""
        real = scores(self.judge(batch["label"], batch["real"]))
        made = [scores(self.judge(batch["label"], picture)) for picture in batch["pictures"]]
        return {"loss": sum(discriminator_hinge(real, fake) / len(real) for fake in made)}

    def judge(self, label: jt.Var, picture: jt.Var) -> list[list[jt.Var]]:
        """The discriminator's maps, scores last, for each of its scales."""
        return self.discriminator(jt.concat([label, picture], dim=1))

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """How far results are from the photos, in features or, without a network for that, in colour; with the right mask and with another
        picture's. And the mean absolute error."""
        photo = jt.array(batch["image"])

        def distance(mask: np.ndarray) -> tuple[float, float]:
            result = self.lggan(mask).final
            error = l1(result - photo).item()
            return error, self.perceptual(result, photo).item() if self.perceptual.network else error

        error, loss = distance(batch["mask"])
        metrics = {"val_l1": error, "val_loss": loss}
        if len(photo) > 1:  # a single picture has no other
            metrics["val_loss_other_mask"] = distance(np.roll(batch["mask"], 1, axis=0))[1]
        return metrics

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`."""
        _, dataset = self.datasets([], pairs)
        rows = []
        for i in range(len(pairs)):
            example = dataset.example(i, np.random.default_rng(i))
            painted = self.lggan(example["mask"][None])
            pictures = [picture.numpy()[0] for picture in (painted.global_, painted.local, painted.final)]
            rows.append([colorize_mask(example["mask"]), *map(to_image, (*pictures, example["image"]))])
        return rows


def class_l1(made: jt.Var, real: jt.Var, label: jt.Var) -> jt.Var:
    """Mean absolute error of what each class makes [B, 29, 3, H, W] against its part of the photos [B, 3, H, W], black around it, summed
    over all classes; label: one-hot [B, 29, H, W]."""
    error = (made - real.unsqueeze(1) * label.unsqueeze(2)).abs()
    return error.mean(dims=(3, 4)).mean(dims=(0, 2)).sum()  # in parts: a sum of millions of floats would be a thousandth off


def class_entropy(logits: jt.Var, label: jt.Var) -> jt.Var:
    """Mean over the classes that occur in a picture of the cross-entropy of their logits [B, 29, 29]; label: one-hot [B, 29, H, W]."""
    b, n = logits.shape[:2]
    occurs = label.reshape(b, n, -1).max(dim=2)  # [B, 29]
    diagonal = jt.array(np.eye(n, dtype=np.float32))
    shares = (occurs.unsqueeze(1) * diagonal).unsqueeze(-1)  # [B, 29 of logits, 29 classes, 1]
    (count,) = parallel.mean([occurs.sum()])  # so that every class weighs the same, whichever process has its picture
    return negative_log_likelihood(swap_last_axes(logits).unsqueeze(-1), shares) / (count + 1e-6)
