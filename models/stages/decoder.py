"""Stage `decoder`: the autoencoder's decoder once more, for texture, and for latents as the UNet makes them; the encoder stays as it is.

A mean absolute error alone paints blur. Here features of a network that has seen many pictures are compared as well, and a discriminator
judges them. Half of the latents are those that the UNet has painted, so that the decoder learns to see through the UNet's faults; on the
others is noise. What stands on the latents, stays valid.

Stage `joint_decoder` does the same to what stage `joint` has trained.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import jittor as jt
import numpy as np

from datasets.landscape import read_image
from datasets.loader import spread
from datasets.pairs import Pair
from datasets.transforms import to_array, to_image
from models.losses.adversarial import discriminator_hinge, generator_hinge
from models.losses.perceptual import LITE_CHANNELS, feature_distance, lite_maps, load_backbone, load_teacher
from models.losses.reconstruction import l1, tone
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.discriminators import ProjectedDiscriminator
from models.networks.layers import freeze
from models.networks.pretrained import load_network
from models.stages.latents import bring_to_scale
from models.stages.painted_latents import painted_latents
from models.stages.unet import size_faults
from models.stages.vae import PhotoCrops, crop_faults
from models.training.learner import Learner, Recipe, verdict
from models.training.options import StageOptions
from utils.checkpoint import load_vars, module_arrays
from utils.errors import UserError
from utils.lr_schedule import warmup_cosine
from utils.options import option

RAMP = 0.15, 0.45  # between these shares of the steps the adversarial loss sets in


@dataclass(frozen=True)
class DecoderOptions(StageOptions):
    stage: ClassVar[str] = "decoder"
    weight_decay: float = option(0.0, "of AdamW", least=0)
    crop_width: int = option(256, "it is trained on random crops of this size, at least 32", least=32)
    crop_height: int = option(256, "of the same", least=32)
    perceptual_weight: float = option(0.5, "of LPIPS or EfficientNet-lite1's distance, against a mean absolute error", least=0)
    adversarial_weight: float = option(0.1, "of the discriminator's verdict, in the end", least=0)
    latent_noise: float = option(0.35, "noise on the latents, of up to this standard deviation", least=0)
    painted: int = option(1000, "photos whose latents the UNet paints, which half of the crops are of; 0: none", least=0, fixed=True)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        faults = size_faults(self.stage, self, others["unet"]) if self.painted else []
        return faults + crop_faults(self, self.stage, others["vae"].network.downscale)


@dataclass(frozen=True)
class JointDecoderOptions(DecoderOptions):
    stage: ClassVar[str] = "joint_decoder"

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        return super().faults(others) + faults_of_joining(others["unet"])


def faults_of_joining(unet: StageOptions) -> list[str]:
    """Why the autoencoder and the UNet of a run with these options cannot be trained on together, as sentences."""
    faults = [] if unet.whiten else ["stage joint is for runs with whitened latents, and --unet_whiten is 0"]
    if unet.words:
        faults.append(f"stage joint is for runs with masks and references alone, and --unet_words is {unet.words}")
    return faults


class PaintedCrops(PhotoCrops):
    """PhotoCrops, of which half have latents that the UNet has painted: of some of the photos, an even spread."""

    def __init__(self, pairs: list[Pair], options: DecoderOptions, folder: Path, vae: AutoencoderKL, prefix: str):
        super().__init__(pairs, options, vae.config.latent_channels, vae.config.downscale, whole=False)
        self.painted = [pairs[i] for i in spread(len(pairs), options.painted)]
        self.latents = painted_latents(folder, vae, self.painted, options.size, prefix)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As of PhotoCrops, and painted: 1, with the latents float32 [4, h/f, w/f] of the crop, or 0."""
        if rng.random() < 0.5:
            example = super().example(index, rng)
            return example | {"painted": np.array(0.0, np.float32), "latent": np.zeros_like(example["noise"])}
        which, f = int(rng.integers(len(self.painted))), self.downscale
        photo, latent = to_array(read_image(self.painted[which].image, self.options.size)), self.latents[which].astype(np.float32)
        h, w = self.options.crop_height // f, self.options.crop_width // f
        top, left = int(rng.integers(latent.shape[1] - h + 1)), int(rng.integers(latent.shape[2] - w + 1))
        latent = np.ascontiguousarray(latent[:, top : top + h, left : left + w])
        image = np.ascontiguousarray(photo[:, f * top : f * (top + h), f * left : f * (left + w)])
        return {
            "image": image, "noise": np.zeros_like(latent), "level": np.array(0.0), "painted": np.array(1.0, np.float32), "latent": latent,
        }  # fmt: skip


class PictureLosses:
    """How far pictures that a decoder makes are from photos: in colour and tone, in the features of EfficientNet-lite1, and by the verdict
    of a discriminator on these, which learns beside, by `recipe`. Where LPIPS is at hand, it is taken for the distance. Without the package
    of EfficientNet-lite1, which is said, there are colour and tone alone. `options` have perceptual_weight, adversarial_weight and steps;
    cell: pixels a side of one latent cell.
    """

    def __init__(self, stage: str, options: StageOptions, cell: int, recipe: Recipe):
        self.options, self.cell = options, cell
        self.backbone = load_backbone(stage, "perceptual and adversarial losses")
        self.teacher = load_teacher(stage) if self.backbone else None
        self.discriminator = ProjectedDiscriminator(LITE_CHANNELS)
        self.learners = {"discriminator": Learner({"discriminator": self.discriminator}, recipe)} if self.backbone else {}

    def __call__(self, made: jt.Var, image: jt.Var, step: int, judged: list[dict]) -> dict[str, jt.Var]:
        """|x − x̂| + |mean over a cell of x − x̂| + distance of features − the discriminator's scores, as weighted by the options, under
        `loss`, and its parts. What the discriminator is to judge is added to `judged`."""
        parts = {"l1": l1(made - image), "tone": tone(made - image, self.cell)}
        loss = parts["l1"] + parts["tone"]
        if self.backbone:
            with jt.no_grad():
                real = [map_.stop_grad() for map_ in self.features(image)]
            fake = self.features(made)
            parts |= {"perceptual": self.distance(made, image, fake, real), "adversarial": generator_hinge(self.discriminator(fake))}
            weight = self.options.adversarial_weight * ramp(step / self.options.steps)
            loss = loss + self.options.perceptual_weight * parts["perceptual"] + weight * parts["adversarial"]
            judged.append({"real": real, "fake": [map_.detach() for map_ in fake]})
        return {"loss": loss, **parts}

    def judge(self, judged: list[dict], step: int) -> dict[str, float]:
        """The discriminator's step, where there is one, on what has just been made."""
        if not self.learners:
            return {}
        return verdict(self.learners["discriminator"], self.discriminator_losses, judged, step)

    def discriminator_losses(self, batch: dict[str, list[jt.Var]]) -> dict[str, jt.Var]:
        return {"loss": discriminator_hinge(self.discriminator(batch["real"]), self.discriminator(batch["fake"]))}

    def features(self, picture: jt.Var) -> list[jt.Var]:
        return lite_maps(self.backbone, picture)

    def distance(self, made: jt.Var, image: jt.Var, fake: list[jt.Var], real: list[jt.Var]) -> jt.Var:
        """Of pictures [B, 3, H, W], whose features are these."""
        return self.teacher(made, image).mean() if self.teacher else feature_distance(fake, real)

    def validate(self, made: jt.Var, image: jt.Var) -> dict[str, np.ndarray]:
        """Of whole photos: mean absolute error, PSNR in dB, and the distance in features of EfficientNet-lite1, whatever else teaches, so
        that validations can be compared."""
        made = jt.clamp(made, -1, 1)
        square = ((made - image).numpy() ** 2).mean(axis=(1, 2, 3))
        metrics = {"val_l1": (made - image).abs().mean().item(), "val_psnr": -10 * np.log10(square / 4)}
        if self.backbone:
            metrics["val_perceptual"] = feature_distance(self.features(made), self.features(image)).item()
        return metrics

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_l1"] + self.options.perceptual_weight * metrics.get("val_perceptual", 0)


class DecoderStage:
    name = "decoder"
    builds_on = ("vae",)  # and not "unet", though that paints latents for it: when it trains on, this decoder stays of use
    networks = ("decoder",)
    prefix = ""  # before the names of the autoencoder, the UNet and the conditioner that it begins with
    columns = ("photo", "before", "after", "before, noisy latents", "after, noisy latents")
    Options = DecoderOptions

    def __init__(self, options: DecoderOptions, folder: Path):
        self.options, self.folder = options, folder
        source = folder / f"{self.prefix}vae"
        self.before = load_network(AutoencoderKL, AutoencoderKLConfig, source)
        self.vae = AutoencoderKL(self.before.config)
        load_vars(self.vae.state_dict(), module_arrays(self.before), source, "the autoencoder")
        freeze(self.vae.encoder), freeze(self.vae.quant_conv)
        recipe = partial(Recipe, betas=(0.5, 0.99), weight_decay=options.weight_decay, max_norm=options.max_norm)
        lr, twice = (warmup_cosine(factor * options.lr, options.warmup, options.steps) for factor in (1, 2))  # (Heusel et al. 2017)
        self.picture_losses = PictureLosses(self.name, options, self.vae.config.downscale, recipe(twice, ema=None))
        self.learners = {"decoder": Learner({self.networks[0]: self.vae}, recipe(lr, ema=options.ema)), **self.picture_losses.learners}

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[PhotoCrops, PhotoCrops]:
        if self.before.config.scaling_factor is None:  # of a run without a UNet; that of stage joint has one
            self.before = bring_to_scale(self.folder, train, self.options.size, whitened=True)
            load_vars(self.vae.state_dict(), module_arrays(self.before), self.folder / "vae", "the autoencoder")
            self.vae.config.scaling_factor = self.before.config.scaling_factor
            self.learners["decoder"].restart_average(self.networks[0])
        channels, downscale = self.vae.config.latent_channels, self.vae.config.downscale
        validation_set = PhotoCrops(validation, self.options, channels, downscale, whole=True)
        if not self.options.painted:
            return PhotoCrops(train, self.options, channels, downscale, whole=False), validation_set
        return PaintedCrops(train, self.options, self.folder, self.before, self.prefix), validation_set

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        """The decoder's step, then the discriminator's on what the decoder has just made."""
        judged = []
        scalars = self.learners["decoder"].step(partial(self.losses, step=step, judged=judged), batches, step)
        return scalars | self.picture_losses.judge(judged, step)

    def losses(self, batch: dict[str, np.ndarray], step: int, judged: list[dict]) -> dict[str, jt.Var]:
        """Scalars by name, as `PictureLosses` gives them."""
        image = jt.array(batch["image"])
        return self.picture_losses(self.vae.decode(self.noisy_latents(image, batch)), image, step, judged)

    def noisy_latents(self, image: jt.Var, batch: dict[str, np.ndarray]) -> jt.Var:
        """Scaled latents of pictures [B, 3, H, W]: those that the UNet has painted, or their own with noise of a standard deviation that
        differs from picture to picture."""
        with jt.no_grad():
            mean, _ = self.before.encode(image)
        level = self.options.latent_noise * batch["level"].astype(np.float32).reshape(-1, 1, 1, 1)
        latents = mean + jt.array(level * batch["noise"])
        if "painted" in batch:
            painted = jt.array(batch["painted"].reshape(-1, 1, 1, 1))
            latents = latents * (1 - painted) + jt.array(batch["latent"]) * painted
        return latents.stop_grad()

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of whole photos, decoded from their own latents."""
        image = jt.array(batch["image"])
        return self.picture_losses.validate(self.vae.decode(self.before.encode(image)[0]), image)

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return self.picture_losses.to_minimise(metrics)

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`."""
        dataset = PhotoCrops(pairs, self.options, self.vae.config.latent_channels, self.vae.config.downscale, whole=True)
        rows = []
        for i in range(len(pairs)):
            example = {name: array[None] for name, array in dataset.example(i, np.random.default_rng(i)).items()}
            image = jt.array(example["image"])
            clean, noisy = self.before.encode(image)[0], self.noisy_latents(image, example)
            decoded = [vae.decode(latents).numpy() for latents in (clean, noisy) for vae in (self.before, self.vae)]
            rows.append([to_image(picture)[0] for picture in (example["image"], *decoded)])
        return rows


class JointDecoderStage(DecoderStage):
    """Of the autoencoder of stage joint, which learns there from its own latents alone, by what the UNet of that stage paints."""

    name = "joint_decoder"
    builds_on = ("joint",)
    networks = ("joint_decoder",)
    prefix = "joint_"
    Options = JointDecoderOptions

    def __init__(self, options: JointDecoderOptions, folder: Path):
        if not (folder / "joint_vae" / "config.json").is_file():
            raise UserError(
                f"{folder / 'joint_vae'} is missing: stage joint_decoder follows stage joint, so train that first, by --stage joint"
            )
        super().__init__(options, folder)


def ramp(share: float) -> float:
    """0 before the first share of RAMP, 1 after the second."""
    return min(1.0, max(0.0, (share - RAMP[0]) / (RAMP[1] - RAMP[0])))
