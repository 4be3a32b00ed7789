"""Stage `joint`: the autoencoder and the UNet of a run trained on together.

No gradient of the diffusion loss goes into the encoder. It would make latents that are easy to denoise and void of detail (Leng et al.
2025, "REPA-E", section 3.1): the autoencoder moves by its own losses alone. The UNet follows its latents, which it gets whitened by running
statistics instead of a fixed scale (there: batch normalisation without weights). These are folded into the autoencoder that is exported, so
that painting and other programs read it as any other. Batches are small here, and the mean colour of a few pictures is not that of all:
the statistics are followed slowly, and used as they are in painting (Ioffe 2017, "Batch renormalization"). What the UNet's estimates look
like (--unet_perceptual_weight) is not asked here: the decoder that would show them moves. A linear estimate that painting
starts from stays that of the latents as they were at first.

What the latents are all together, mean, scale and correlation, is bounded by a loss. Latents that drift away or lose a dimension in spite
of it end the training, before anything is saved.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn

from datasets.landscape import read_image, read_mask
from datasets.pairs import Pair
from datasets.transforms import color_statistics, random_crop, random_flip, to_array
from models.losses.reconstruction import kl_divergence
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import Conditioner
from models.networks.pretrained import load_network
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion, decoder_folder
from models.stages.decoder import PictureLosses, faults_of_joining
from models.stages.latents import folded, whitening
from models.stages.unet import UNetOptions, UNetStage, options_beside, size_faults, with_some_left_out
from models.stages.vae import LOGVAR_BOUND, crop_faults
from models.training.learner import Learner, Recipe
from models.training.options import StageOptions
from utils import parallel
from utils.checkpoint import as_array, load_vars, module_arrays
from utils.errors import TrainingError
from utils.lr_schedule import warmup_cosine
from utils.options import option

PACE = 0.05  # of the way to a batch's statistics the running ones go with each


@dataclass(frozen=True)
class JointOptions(StageOptions):
    vae_lr: float = option(2e-5, "highest learning rate of the autoencoder; the discriminator's is twice as high", least=1e-12)
    crop_width: int = option(256, "the autoencoder is trained on random crops of this size, at least 32", least=32)
    crop_height: int = option(256, "of the same", least=32)
    kl_weight: float = option(1e-4, "weight of the KL divergence, a mean over latents, against a mean absolute error", least=0)
    perceptual_weight: float = option(0.5, "of LPIPS or EfficientNet-lite1's distance, against a mean absolute error", least=0)
    adversarial_weight: float = option(0.1, "of the discriminator's verdict, in the end", least=0)
    drift_weight: float = option(0.05, "weight of the divergence of all latents together from independent normal ones, a mean", least=0)
    latent_noise: float = option(0.35, "noise on the latents that are decoded, of up to this share of their spread", least=0)
    bound: float = option(3.0, "no channel may become so many times as wide or narrow as at the start, or so far off 0", least=1)
    least_rank: float = option(0.6, "effective rank that the latents must keep, as a share of their channels", least=0, most=1)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        unet = others["unet"]
        faults = size_faults("joint", self, unet) + crop_faults(self, "joint", others["vae"].network.downscale)
        return faults + faults_of_joining(unet)


class JointPairs:
    """Photos, masks and references, and everything random in a training example. A photo is its own reference, as in `LatentPairs`."""

    def __init__(self, pairs: list[Pair], options: UNetOptions, crop: tuple[int, int], cell: int, channels: int, drop: float):
        """crop: (width, height) of the autoencoder's part; cell: pixels a side of a latent cell; drop: as UNetOptions have it."""
        self.pairs, self.options, self.crop, self.cell, self.channels, self.drop = pairs, options, crop, cell, channels, drop

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """image: float32 [3, H, W] in −1..1; crop: the same, [3, h, w]; shown: the reference, a part of the photo smaller than it by a
        token, mirrored or not; mask, colors, known, time: as in `LatentPairs`; noise [4, H/f, W/f] for the process, sample and crop_sample
        for the posteriors of picture and crop, all normal; level: 0..1, by which noise on the crop's latents is scaled."""
        pair, size = self.pairs[index], self.options.size
        photo, mask = read_image(pair.image, size), read_mask(pair.mask, size)
        array, smaller = to_array(photo), self.options.patch_size * self.cell
        image, mask = (array[..., ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (array, mask)
        shown = random_flip(random_crop(array, array.shape[1] - smaller, array.shape[2] - smaller, rng), rng)
        crop = random_flip(random_crop(array, self.crop[1], self.crop[0], rng), rng)
        example = {"image": image, "crop": crop, "shown": shown, "mask": mask}
        example = {name: np.ascontiguousarray(part) for name, part in example.items()}
        for name, (_, h, w) in (("noise", image.shape), ("sample", image.shape), ("crop_sample", crop.shape)):
            example[name] = rng.standard_normal((self.channels, h // self.cell, w // self.cell), np.float32)
        example |= {"time": np.array(rng.random()), "level": np.array(rng.random(), np.float32)}
        example |= {"colors": color_statistics(photo), "known": np.array(1.0, np.float32)}
        return with_some_left_out(example, self.drop, rng)[0]


class LatentStatistics(nn.Module):
    """Mean and second moments of latents as batches have had them of late: buffers, stored and averaged beside the autoencoder."""

    def __init__(self, channels: int):
        super().__init__()
        self.mean = jt.zeros(channels).stop_grad()
        self.square = jt.array(np.eye(channels, dtype=np.float32)).stop_grad()  # the mean of z zᵀ

    def follow(self, latents: np.ndarray) -> None:
        """Takes a batch of latents [B, C, h, w] into account, of all processes together."""
        flat = np.moveaxis(latents, 1, 0).reshape(latents.shape[1], -1).astype(np.float64)
        batch = (flat.mean(axis=1), flat @ flat.T / flat.shape[1])
        found = parallel.mean([jt.array(part.astype(np.float32)) for part in batch])
        for var, part in zip((self.mean, self.square), found, strict=True):
            var.update(jt.array(((1 - PACE) * var.numpy() + PACE * part.numpy()).astype(np.float32))).stop_grad()

    def normalised(self, latents: np.ndarray) -> np.ndarray:
        """Latents [B, C, h, w] with mean 0 and covariance 1 over channels, float32."""
        mean, covariance = moments(self.state_dict())
        centred = latents - mean.astype(np.float32)[:, None, None]
        return np.einsum("ij,bjhw->bihw", whitening(covariance)[0].astype(np.float32), centred)

    def drift(self, latents: jt.Var) -> jt.Var:
        """A scalar whose gradient is that of KL(N(mean, covariance) ‖ N(0, 1)) / C, in latents [B, C, h, w] that have a part in mean and
        covariance. It keeps mean, scale and rank where they were; those of a batch would say too little of all."""
        mean, covariance = (part.astype(np.float32) for part in moments(self.state_dict()))
        c = len(mean)
        centred = latents - jt.array(mean.reshape(1, c, 1, 1))
        pull = nn.conv2d(centred, jt.array(((np.eye(c) - np.linalg.inv(covariance)) / 2).astype(np.float32).reshape(c, c, 1, 1)))
        return (pull * centred + latents * jt.array(mean.reshape(1, c, 1, 1))).mean()

    def summary(self) -> dict[str, float]:
        """What is logged, and bounded: of all channels the mean that is farthest from 0, the smallest and the largest standard deviation;
        and the effective rank of their correlations, the exponential of its spectrum's entropy (Roy & Vetterli 2007)."""
        mean, covariance = moments(self.state_dict())
        deviation = np.sqrt(np.diag(covariance))  # nan where the variance is below the rounding of the mean
        correlation = covariance / np.outer(deviation, deviation)
        if np.isfinite(correlation).all():
            spectrum = np.maximum(np.linalg.eigvalsh(correlation), 1e-12)
            shares = spectrum / spectrum.sum()
            rank = np.exp(-(shares * np.log(shares)).sum())
        else:  # there is no spectrum of nan, and `check` refuses its rank
            rank = np.nan
        return {
            "latent_mean": float(np.abs(mean).max()), "latent_std_least": float(deviation.min()), "latent_std_most": float(deviation.max()),
            "latent_rank": float(rank),
        }  # fmt: skip


def moments(statistics: dict[str, jt.Var | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean [C] and covariance [C, C], float64, of `LatentStatistics`."""
    mean, square = (as_array(statistics[name]).astype(np.float64) for name in ("mean", "square"))
    return mean, square - np.outer(mean, mean) + 1e-12 * np.eye(len(mean))


def normalising(weights: dict[str, jt.Var | np.ndarray], statistics: dict[str, jt.Var | np.ndarray]) -> dict[str, jt.Var | np.ndarray]:
    """An autoencoder's weights, of latents that the statistics describe, as weights of one whose latents are normalised already. Variances
    within posteriors are taken for equal in all channels, which changes what it says of its own uncertainty alone."""
    mean, covariance = moments(statistics)
    w, inverse = whitening(covariance)
    arrays = {name: as_array(var) for name, var in weights.items() if "quant_conv" in name}
    return weights | folded(arrays, mean, w, inverse, np.log((w**2).sum(axis=1)))


class MovingAutoencoder(Learner):
    """The learner of the autoencoder and of its latents' statistics, which are folded into what is exported."""

    def to_export(self, name: str) -> dict[str, jt.Var | np.ndarray]:
        return normalising(super().to_export(name), super().to_export("statistics"))


class JointStage(UNetStage):
    """Its networks are apart from those it begins with, which stay as they are; its own decoder paints with its UNet, until stage
    joint_decoder has a better one."""

    name = "joint"
    builds_on = ("vae", "unet")
    networks = ("joint_vae", "joint_unet", "joint_conditioner")
    Options = JointOptions

    def __init__(self, options: JointOptions, folder: Path):
        self.options = options_beside(folder, options)
        self.own, self.folder, self.schedule = options, folder, self.options.schedule
        self.words = None
        before = load_network(AutoencoderKL, AutoencoderKLConfig, decoder_folder(folder))  # the better decoder, where there is one
        trained = LatentDiffusion.of(self.options, before, folder)
        self.vae = copied(AutoencoderKL, before)
        self.unet, self.conditioner = copied(UNet2DConditionModel, trained.unet), copied(Conditioner, trained.conditioner)
        self.statistics = LatentStatistics(before.config.latent_channels)
        lr, twice = (warmup_cosine(factor * options.vae_lr, options.warmup, options.steps) for factor in (1, 2))
        recipe = partial(Recipe, betas=(0.5, 0.99), weight_decay=0, max_norm=options.max_norm)  # as of stage decoder
        self.picture_losses = PictureLosses(self.name, options, before.config.downscale, recipe(twice, ema=None))
        self.learners = {
            "vae": MovingAutoencoder({"joint_vae": self.vae, "statistics": self.statistics}, recipe(lr, ema=options.ema)),
            "unet": Learner({"joint_unet": self.unet, "joint_conditioner": self.conditioner}, options.recipe),
            **self.picture_losses.learners,
        }

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[JointPairs, JointPairs]:
        crop, config = (self.own.crop_width, self.own.crop_height), self.vae.config
        shared = (self.options, crop, config.downscale, config.latent_channels)
        return JointPairs(train, *shared, self.options.drop), JointPairs(validation, *shared, 0)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        """The UNet's step on the latents as they are, the autoencoder's, and the discriminator's on what that has just made. Raises
        TrainingError where the latents have left their bounds."""
        judged = []
        scalars = self.learners["unet"].step(self.losses, [self.encoded(batch, step) for batch in batches], step)
        moved = self.learners["vae"].step(partial(self.vae_losses, step=step, judged=judged), batches, step)
        scalars |= {f"vae_{name}": value for name, value in moved.items()} | self.picture_losses.judge(judged, step)
        return scalars | self.statistics.summary()

    def encoded(self, batch: dict[str, np.ndarray], step: int | None = None) -> dict[str, np.ndarray]:
        """A batch with the latents of its pictures and references, as `UNetStage` takes them: arrays, by which no gradient finds its way.
        step: of training, in which the statistics take them into account. Raises TrainingError where these then leave their bounds."""
        with jt.no_grad():
            mean, std = (part.numpy() for part in self.vae.encode(jt.array(batch["image"])))
            reference = self.vae.encode(jt.array(batch["shown"]))[0].numpy()
        latent = mean + std * batch["sample"]
        if step is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # the check says it
                self.statistics.follow(latent)
                self.check(self.statistics.summary(), step)  # first: nan cannot be whitened
        return batch | {"latent": self.statistics.normalised(latent), "reference": self.statistics.normalised(reference)}

    def vae_losses(self, batch: dict[str, np.ndarray], step: int, judged: list[dict]) -> dict[str, jt.Var]:
        """Those of pictures that are decoded from noisy latents; β KL(q(z|x) ‖ N(0, 1)), which bounds each posterior; and what bounds all
        of them together."""
        image = jt.array(batch["crop"])
        mean, logvar = self.vae.posterior(image)
        logvar = jt.clamp(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
        variance = jt.exp(logvar)
        # Noise as a share of the latents' own spread: to grow does not help against it.
        spread = (mean - mean.mean(dims=(0, 2, 3), keepdims=True)).sqr().mean(dims=(2, 3), keepdims=True).mean(dim=0, keepdims=True)
        share = (self.own.latent_noise * batch["level"].reshape(-1, 1, 1, 1)) ** 2
        latents = mean + (variance + jt.array(share) * spread).sqrt() * jt.array(batch["crop_sample"])
        parts = self.picture_losses(self.vae.reconstruct(latents), image, step, judged)
        parts["kl"] = kl_divergence(mean, variance.sqrt(), logvar)
        parts["loss"] = parts["loss"] + self.own.kl_weight * parts["kl"] + self.own.drift_weight * self.statistics.drift(mean)
        return parts | {"posterior_std": variance.sqrt().mean()}

    def check(self, found: dict[str, float], step: int) -> None:
        """Raises TrainingError where the latents have left their bounds."""
        bound, rank = self.own.bound, self.own.least_rank * self.vae.config.latent_channels
        faults = [
            f"{what} is {found[name]:.3g}, {allowed} allowed"
            for name, what, sound, allowed in (
                ("latent_mean", "a channel's mean", found["latent_mean"] <= bound, f"±{bound:.3g}"),
                ("latent_std_least", "a channel's deviation", found["latent_std_least"] >= 1 / bound, f"from {1 / bound:.3g}"),
                ("latent_std_most", "a channel's deviation", found["latent_std_most"] <= bound, f"up to {bound:.3g}"),
                ("latent_rank", "their effective rank", found["latent_rank"] >= rank, f"from {rank:.3g}"),
            )
            if not sound
        ]
        if faults:
            raise TrainingError(
                f"The latents of stage joint have left their bounds in step {step + 1}: {'; '.join(faults)}. The run is as it was when it "
                "was last saved, within them: go on from there by the same command with a lower --joint_vae_lr."
            )

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What stages unet and decoder measure, of the normalised latents and of whole photos decoded from their own."""
        image = jt.array(batch["image"])
        return super().validate(self.encoded(batch)) | self.picture_losses.validate(self.vae.decode(self.vae.encode(image)[0]), image)

    def to_minimise(self, metrics: dict[str, float]) -> float:
        """The product of both losses: a tenth less of one is worth a tenth of the other. Latents that are easier to denoise for want of
        detail do not win by that alone."""
        return metrics["val_loss"] * self.picture_losses.to_minimise(metrics)

    def painter(self) -> LatentDiffusion:
        vae = AutoencoderKL(self.vae.config)
        load_vars(vae.state_dict(), normalising(module_arrays(self.vae), self.statistics.state_dict()), self.folder, "the autoencoder")
        return LatentDiffusion(self.options, vae, self.unet, self.conditioner)


def copied(network_class: type, network: jt.Module) -> jt.Module:
    """A network like a frozen one, to be trained."""
    copy = network_class(network.config)
    load_vars(copy.state_dict(), module_arrays(network), "the run", network_class.__name__)
    return copy
