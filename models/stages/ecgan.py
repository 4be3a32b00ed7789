"""Stage `ecgan`: ECGAN and its discriminators, on whole photos with their masks; with its own parts off it is a plain SPADE generator."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import NUM_CLASSES
from datasets.pairs import Pair
from datasets.transforms import edge_map
from models.losses.adversarial import discriminator_hinge, feature_matching, generator_hinge, scores
from models.losses.contrastive import pixel_contrast
from models.losses.perceptual import LITE_CHANNELS, PerceptualLoss, lite_maps, load_backbone
from models.losses.reconstruction import kl_divergence, l1
from models.networks.conditioner import one_hot
from models.networks.discriminators import MultiscaleDiscriminator, ProjectedDiscriminator
from models.networks.ecgan import ECGAN, ECGANConfig, Painted, PixelProjection, sampled
from models.networks.layers import NORMS, xavier_
from models.painters.ecgan import ECGANPainter, PaintingOptions
from models.painters.pictures import preview_rows
from models.stages.photos import PhotosWithMasks
from models.training.learner import Learner, Recipe, verdict
from models.training.options import StageOptions
from utils import parallel
from utils.lr_schedule import warmup_linear
from utils.options import option

WEIGHTS = {"image": 1, "edge": 1, "result": 2}  # of the losses of what is made, where there are all three
TRUTH = {"image": "photo", "edge": "edge", "result": "photo"}  # what each is to look like
GAIN = 0.02  # of the weights of SPADE blocks and discriminators at the start, as published
ANCHORS = 50  # pixels of a class of a picture, at most, that the contrastive loss compares
TEMPERATURE = 0.1  # of the contrastive loss
PROJECTION = 64  # its dimensions


@dataclass(frozen=True)
class ECGANOptions(StageOptions):
    channels: tuple[int, ...] = option(
        (1024, 1024, 1024, 512, 256, 128, 64), "of the blocks; from one to the next the size is doubled", least=8, fixed=True
    )
    hidden: int = option(128, "channels inside SPADE", least=1, fixed=True)
    norm: str = option("group", "statistics of SPADE's normalisation; published: batch", choices=NORMS, fixed=True)
    edge_branch: int = option(1, "1: edges are painted too, and the picture is refined; 0: plain SPADE", choices=(0, 1), fixed=True)
    style: int = option(256, "length of the style vector", least=1, fixed=True)
    style_channels: tuple[int, ...] = option(
        (64, 128, 256, 512, 512, 512), "of the style encoder, which halves with each", least=1, fixed=True
    )
    style_size: int = option(256, "pixels a side of the reference as it is encoded", least=1, fixed=True)
    style_norm: str = option("group", "statistics of its normalisation; published: instance", choices=NORMS, fixed=True)
    discriminator_channels: int = option(64, "of the discriminators' first layer", least=1, fixed=True)
    adversarial_weight: float = option(1.0, "of the discriminator's scores", least=0)
    feature_weight: float = option(10.0, "of feature matching", least=0)
    perceptual_weight: float = option(10.0, "of the perceptual loss", least=0)
    l1_weight: float = option(0.0, "of the mean absolute error of the result; published: 0", least=0)
    kl_weight: float = option(0.05, "of the styles' divergence from a normal distribution, a sum over their elements", least=0)
    contrastive_weight: float = option(0.1, "of the contrastive loss of pixels; 0: plain SPADE", least=0, fixed=True)
    projected_weight: float = option(
        0.0, "of the scores of a further discriminator, on features of EfficientNet-lite1; 0: there is none", least=0, fixed=True
    )
    hold: float = option(0.25, "share of the steps in which the learning rate is held", least=0, most=1)
    lr: float = option(2e-4, "learning rate; the generator's is half, the discriminators' twice as high", least=1e-12)
    warmup: int = option(1, "steps in which the learning rate rises; after `hold` it falls in a line", least=1)
    weight_decay: float = option(0.0, "of AdamW", least=0)
    max_norm: float = option(100.0, "gradients are clipped to this norm", least=1e-12)

    @property
    def network(self) -> ECGANConfig:
        return ECGANConfig(
            size=self.size,
            channels=self.channels,
            hidden=self.hidden,
            norm=self.norm,
            edge_branch=bool(self.edge_branch),
            style=self.style,
            style_channels=self.style_channels,
            style_size=self.style_size,
            style_norm=self.style_norm,
        )

    def gan_recipe(self, factor: float, ema: float | None) -> Recipe:
        lr = warmup_linear(factor * self.lr, self.warmup, round(self.hold * self.steps), self.steps)
        return Recipe(lr, betas=(0.0, 0.9), weight_decay=self.weight_decay, max_norm=self.max_norm, ema=ema)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        cell, reduction = 2 ** (len(self.channels) - 1), 2 ** len(self.style_channels)
        faults = [
            f"--ecgan_{side} {getattr(self, side)} is not a multiple of {cell}, which {len(self.channels)} --ecgan_channels ask for"
            for side in ("width", "height")
            if getattr(self, side) % cell
        ]
        if self.style_size % reduction:
            faults.append(f"--ecgan_style_size {self.style_size} is not a multiple of {reduction}")
        return faults


class ECGANStage:
    name = "ecgan"
    builds_on = ()
    networks = ("ecgan",)
    columns = ("mask", "reference", "result", "truth")
    Options = ECGANOptions

    def __init__(self, options: ECGANOptions, folder: Path):
        self.options = options
        self.ecgan = ECGAN(options.network)
        xavier_(self.ecgan.blocks, GAIN)
        self.discriminator = xavier_(MultiscaleDiscriminator(NUM_CLASSES + 3, options.discriminator_channels), GAIN)
        self.perceptual = PerceptualLoss(self.name)
        makers, judges = {"ecgan": self.ecgan}, {"discriminator": self.discriminator}
        if options.contrastive_weight:
            self.projection = makers["projection"] = PixelProjection(options.channels[-1], PROJECTION)
            if options.batch_size < 2 * parallel.SIZE:
                print("Stage ecgan trains without the contrastive loss, which compares pictures: it needs batches of 2 and more")
        self.backbone = load_backbone(self.name, "the projected discriminator") if options.projected_weight else None
        if self.backbone:
            self.projected = judges["projected"] = ProjectedDiscriminator(LITE_CHANNELS)
        self.learners = {  # two time scales (Heusel et al. 2017)
            "ecgan": Learner(makers, options.gan_recipe(0.5, options.ema)),
            "discriminator": Learner(judges, options.gan_recipe(2, None)),
        }

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[PhotosWithMasks, PhotosWithMasks]:
        o = self.options
        shown = partial(PhotosWithMasks, size=o.size, reference=(o.style_size, o.style_size), noise=o.style, pixels=ANCHORS)
        return shown(train, whole=False), shown(validation, whole=True)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        """The generator's step, then the discriminators' on what it has just made."""
        judged = []
        scalars = self.learners["ecgan"].step(partial(self.losses, judged=judged), batches, step)
        return scalars | verdict(self.learners["discriminator"], self.discriminator_losses, judged, step)

    def paint(self, batch: dict[str, np.ndarray]) -> tuple[Painted, jt.Var]:
        """What the generator makes of a batch, and the divergence of its styles from a normal distribution."""
        mean, logvar = self.ecgan.encoder(jt.array(batch["reference"]))
        painted = self.ecgan(jt.array(batch["mask"]), sampled(mean, logvar, jt.array(batch["z"])))
        return painted, self.options.style * kl_divergence(mean, (0.5 * logvar).exp(), logvar)

    def losses(self, batch: dict[str, np.ndarray], judged: list[dict]) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what the generator minimises: their sum as the options weigh them. Of the pictures that are made, the
        losses are those of all, by `WEIGHTS`. What the discriminators are to judge is added to `judged`."""
        painted, kl = self.paint(batch)
        made, true = compared(painted, batch["image"])
        fake = self.verdicts(batch["mask"], made)
        with jt.no_grad():
            real = self.verdicts(batch["mask"], true)
        parts = {
            "adversarial": self.weighted(made, lambda name: generator_hinge(scores(fake[name])) / len(fake[name])),
            "feature": self.weighted(made, lambda name: feature_matching(fake[name], real[TRUTH[name]])),
            "l1": l1(painted.result - true["photo"]),
            "kl": kl,
        }
        to_judge = {"mask": batch["mask"], "made": {name: picture.detach() for name, picture in made.items()}, "true": true}
        if self.perceptual.network:
            features = {name: self.perceptual.features(picture) for name, picture in made.items()}
            with jt.no_grad():
                others = {name: self.perceptual.features(picture) for name, picture in true.items()}
            parts["perceptual"] = self.weighted(made, lambda name: self.perceptual.distance(features[name], others[TRUTH[name]]))
        if self.backbone:
            maps = lite_maps(self.backbone, painted.result)
            parts["projected"] = generator_hinge(self.projected(maps))
            to_judge["maps"] = [map_.detach() for map_ in maps]
        if self.options.contrastive_weight and len(batch["mask"]) > 1:
            parts["contrastive"] = self.contrast(painted.features, batch["pixels"])
        judged.append(to_judge)
        return {"loss": sum(getattr(self.options, f"{name}_weight") * part for name, part in parts.items()), **parts}

    def discriminator_losses(self, batch: dict) -> dict[str, jt.Var]:
        """`loss` is what the discriminators minimise, of what `losses` has left them to judge."""
        outputs = self.verdicts(batch["mask"], batch["made"] | batch["true"])
        real, fake = ({name: scores(outputs[name]) for name in batch[which]} for which in ("true", "made"))
        loss = self.weighted(batch["made"], lambda name: discriminator_hinge(real[TRUTH[name]], fake[name]) / len(fake[name]))
        if self.backbone:
            with jt.no_grad():
                maps = [map_.stop_grad() for map_ in lite_maps(self.backbone, batch["true"]["photo"])]
            loss = loss + discriminator_hinge(self.projected(maps), self.projected(batch["maps"]))
        return {"loss": loss}

    def verdicts(self, mask: np.ndarray, pictures: dict[str, jt.Var]) -> dict[str, list[list[jt.Var]]]:
        """What the discriminator makes of each of several pictures [B, 3, H, W] with the mask that they share; all in one go."""
        label = one_hot(jt.array(mask), NUM_CLASSES)
        outputs = self.discriminator(jt.concat([jt.concat([label, picture], dim=1) for picture in pictures.values()]))
        b = len(mask)
        return {name: [[map_[i * b : (i + 1) * b] for map_ in maps] for maps in outputs] for i, name in enumerate(pictures)}

    def weighted(self, made: dict[str, jt.Var], loss: Callable[[str], jt.Var]) -> jt.Var:
        """The sum of a loss of all pictures, given their names, by WEIGHTS; of a single one its own."""
        return sum(WEIGHTS[name] * loss(name) for name in made) if len(made) > 1 else loss(*made)

    def contrast(self, features: jt.Var, places: np.ndarray) -> jt.Var:
        """The contrastive loss of features [B, C, H, W] at places [B, 29, n] of each class, as `class_pixels` has drawn them."""
        (_, c, h, w), (b, labels, i) = features.shape, np.nonzero(places >= 0)
        index = (b[:, None] * c + np.arange(c)) * (h * w) + places[b, labels, i][:, None]  # [M, C]
        pixels = features.float32().reshape(-1)[jt.array(index.astype(np.int32))]
        return pixel_contrast(self.projection(pixels), labels, TEMPERATURE)

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """How far results are from the photos, in features or, without a network for that, in colour; with the right mask and reference,
        with another picture's mask, and with another picture's reference. And the mean absolute error."""
        photo = jt.array(batch["image"])

        def distance(*others: str) -> tuple[float, float]:
            changed = {name: np.roll(batch[name], 1, axis=0) for name in others}
            result = self.paint(batch | changed)[0].result
            error = l1(result - photo).item()
            return error, self.perceptual(result, photo).item() if self.perceptual.network else error

        error, loss = distance()
        metrics = {"val_l1": error, "val_loss": loss}
        if len(photo) > 1:  # a single picture has no other
            metrics |= {f"val_loss_other_{name}": distance(name)[1] for name in ("mask", "reference")}
        return metrics

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`. The reference of a picture is the next one's photo."""
        return preview_rows(ECGANPainter(self.ecgan), pairs, PaintingOptions())


def compared(painted: Painted, photo: np.ndarray) -> tuple[dict[str, jt.Var], dict[str, jt.Var]]:
    """The pictures that were made and the true ones, by name; TRUTH says which belong together."""
    made, true = {"result": painted.result}, {"photo": jt.array(photo)}
    if painted.edge is not None:
        made |= {"image": painted.image, "edge": painted.edge}
        true["edge"] = jt.array(edge_map(photo))
    return made, true
