"""Stage `unet`: the UNet and its conditioner, on the latents of the frozen autoencoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_mask
from datasets.loader import spread
from datasets.pairs import Pair
from datasets.transforms import class_shares, random_crop
from models.diffusion.schedule import NOISE_SCHEDULES, PREDICTION_TYPES, NoiseSchedule
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import LEFT_OUT, Conditioner, ConditionerConfig, denoise
from models.networks.pretrained import load_network
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.painters.pictures import preview_rows
from models.stages.latents import Latents, bring_to_scale, cache_latents
from models.training.learner import Learner
from models.training.options import StageOptions
from utils import parallel
from utils.options import option

PREVIEW = PaintingOptions(steps=20)
STATISTICS = 2000  # pictures that the linear start is measured on, at most


@dataclass(frozen=True)
class UNetOptions(StageOptions):
    channels: tuple[int, ...] = option((320, 640, 1280, 1280), "channels of each level, finest first", least=1, fixed=True)
    layers: int = option(2, "residual blocks a level", least=1, fixed=True)
    attention: tuple[int, ...] = option((1, 1, 1, 0), "1 for each level that has attention", choices=(0, 1), fixed=True)
    heads: int = option(8, "of attention", least=1, fixed=True)
    norm_groups: int = option(32, "of every group norm", least=1, fixed=True)
    cross_attention_dim: int = option(768, "channels of a reference token", least=1, fixed=True)
    mask_channels: tuple[int, ...] = option((32, 64, 128), "of the mask encoder", least=1, fixed=True)
    patch_size: int = option(4, "latent cells a side of one reference token", least=1, fixed=True)
    noise_schedule: str = option("scaled_linear", "how noise grows with the timestep", choices=NOISE_SCHEDULES, fixed=True)
    zero_snr: int = option(1, "1: the last timestep is pure noise (Lin et al. 2023); 0: it is not quite", choices=(0, 1), fixed=True)
    prediction_type: str = option("v_prediction", "what the network predicts", choices=PREDICTION_TYPES, fixed=True)
    min_snr_gamma: float = option(5.0, "bound of the Min-SNR weights (Hang et al. 2023)", least=1e-6)
    linear_start: int = option(1, "1: learn what a linear estimate leaves; 0: all of the prediction", choices=(0, 1), fixed=True)
    whiten: int = option(1, "1: latents of unit variance in every channel; 0: one scale for all", choices=(0, 1), fixed=True)
    drop: float = option(0.05, "chance to leave out the mask, the reference, or both: for each of the three", least=0, most=1 / 3)

    @property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.make(self.noise_schedule, rescale_zero_snr=bool(self.zero_snr))

    def for_published_weights(self) -> "UNetOptions":
        return replace(self, linear_start=0, whiten=0)  # those predict all of it, of latents as they are

    def conditioner(self, vae: AutoencoderKLConfig) -> ConditionerConfig:
        return ConditionerConfig(
            linear_start=(self.height // vae.downscale, self.width // vae.downscale) if self.linear_start else None,
            downscale=vae.downscale,
            mask_channels=self.mask_channels,
            level_channels=(self.channels[0], *self.channels[:-1]),
            latent_channels=vae.latent_channels,
            patch_size=self.patch_size,
            cross_attention_dim=self.cross_attention_dim,
        )

    def network(self, vae: AutoencoderKLConfig) -> UNet2DConditionConfig:
        conditioner = self.conditioner(vae)
        return UNet2DConditionConfig(
            in_channels=vae.latent_channels + conditioner.num_classes,
            out_channels=vae.latent_channels,
            block_out_channels=self.channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in self.attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in self.attention[::-1]),
            layers_per_block=self.layers,
            norm_num_groups=self.norm_groups,
            cross_attention_dim=self.cross_attention_dim,
            attention_head_dim=self.heads,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=conditioner.num_statistics,
        )

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        f, levels = others["vae"].network.downscale, len(self.channels)
        cell, token = f * math.lcm(2 ** (levels - 1), self.patch_size), f * self.patch_size
        faults = [
            f"--unet_{side} {getattr(self, side)} is not a multiple of {cell}" for side in ("width", "height") if getattr(self, side) % cell
        ]
        faults += [
            f"--unet_{side} {getattr(self, side)} must be more than one reference token, {token} pixels"
            for side in ("width", "height")
            if getattr(self, side) <= token
        ]
        for name, count in (("norm_groups", self.norm_groups), ("heads", self.heads)):
            faults += [f"--unet_channels: {width} is not a multiple of --unet_{name} {count}" for width in self.channels if width % count]
        if len(self.attention) != levels:
            faults.append(f"--unet_attention has {len(self.attention)} values for {levels} levels")
        if 2 ** len(self.mask_channels) != f:
            faults.append(f"--unet_mask_channels has {len(self.mask_channels)} values; one for each halving down to 1/{f} is needed")
        if self.prediction_type == "epsilon" and self.zero_snr:
            faults.append("--unet_prediction_type epsilon says nothing of pure noise: give --unet_zero_snr 0 too")
        return faults


class LatentPairs:
    """Latents, masks and references of photos, and everything random in a training example. A photo is its own reference."""

    def __init__(self, pairs: list[Pair], latents: Latents, scaling_factor: float, options: UNetOptions, drop: float):
        self.pairs, self.latents, self.scaling_factor = pairs, latents, np.float32(scaling_factor)
        self.options, self.drop = options, drop

    def __len__(self) -> int:
        return len(self.pairs)

    def posterior(self, index: int, flip: int) -> np.ndarray:
        """Mean and standard deviation, float32 [2, 4, h, w], of the scaled latents of a photo or of its mirror image."""
        return self.latents.posterior(index, flip) * self.scaling_factor

    def for_statistics(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Latents [4, h, w] and class shares [29, h, w] of up to STATISTICS of the pictures, an even spread."""
        for i in spread(len(self), STATISTICS):
            mean, _ = self.posterior(int(i), flip=0)
            yield mean, class_shares(read_mask(self.pairs[i].mask, self.options.size), self.options.height // mean.shape[1])

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """latent and noise: float32 [4, h, w]; time: 0..1, for `stratified`; mask: uint8 [H, W]; reference: float32 [4, h', w'];
        colors: [54]; known: 1, or 0 where the reference is left out. A mask that is left out is UNKNOWN everywhere."""
        p = self.options.patch_size
        flip = int(rng.integers(2))
        mean, std = self.posterior(index, flip)
        mask = read_mask(self.pairs[index].mask, self.options.size)
        mask = np.ascontiguousarray(mask[:, ::-1] if flip else mask)
        # The reference must not give the layout away: a crop whose patches lie elsewhere than the picture's, flipped on its own account.
        # The patches need not be shuffled: the reference encoder has no positions.
        reference, _ = self.posterior(index, int(rng.integers(2)))
        reference = random_crop(reference, reference.shape[1] - p, reference.shape[2] - p, rng)
        chance, drop = rng.random(), self.drop
        drop_mask, drop_reference = chance < 2 * drop, drop <= chance < 3 * drop  # below `drop` the mask alone, up to twice that both
        example = {
            "latent": mean + std * rng.standard_normal(mean.shape, np.float32),
            "noise": rng.standard_normal(mean.shape, np.float32),
            "time": np.array(rng.random()),
            "mask": mask,
            "reference": np.ascontiguousarray(reference),
            "colors": self.latents.colors(index),
            "known": np.array(1.0, np.float32),
        }
        for name, dropped in (("mask", drop_mask), ("reference", drop_reference)):
            example |= LEFT_OUT[name](example) if dropped else {}
        return example


def stratified(times: np.ndarray, timesteps: int, part: int = 0, parts: int = 1) -> np.ndarray:
    """Timesteps [B] of times 0..1 [B], each in a stratum of its own: every batch sees all levels of noise, and its loss varies less.

    The batch is one of so many equal parts of a larger one, which is spread as a whole.
    """
    places = part * len(times) + np.arange(len(times))
    return (timesteps * (places + times) / (parts * len(times))).astype(int)


class UNetStage:
    name = "unet"
    builds_on = ("vae",)
    networks = ("unet", "conditioner")
    columns = ("mask", "reference", "result", "truth")
    Options = UNetOptions

    def __init__(self, options: UNetOptions, folder: Path):
        self.options, self.folder = options, folder
        self.vae = load_network(AutoencoderKL, AutoencoderKLConfig, folder / "vae")
        self.unet = UNet2DConditionModel(options.network(self.vae.config))
        self.conditioner = Conditioner(options.conditioner(self.vae.config))
        self.learners = {"unet": Learner({"unet": self.unet, "conditioner": self.conditioner}, options.recipe)}
        self.schedule = options.schedule

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[LatentPairs, LatentPairs]:
        """Brings the autoencoder's latents to unit variance if nobody has, encodes what is not in the cache, which takes minutes the first
        time, and measures the linear start."""
        self.vae = bring_to_scale(self.folder, train, self.options.size, bool(self.options.whiten))
        latents, val_latents = (cache_latents(self.vae, pairs, self.options.size, self.folder / "latents") for pairs in (train, validation))
        scale = self.vae.config.scaling_factor
        training_set = LatentPairs(train, latents, scale, self.options, drop=self.options.drop)
        if self.options.linear_start and not self.conditioner.linear_start.is_measured():
            self.conditioner.linear_start.measure(training_set.for_statistics)
            self.learners["unet"].restart_average("conditioner")
        return training_set, LatentPairs(validation, val_latents, scale, self.options, drop=0)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        return self.learners["unet"].step(self.losses, batches, step)

    def losses(self, batch: dict[str, np.ndarray]) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: the squared error of the prediction with Min-SNR weights (Hang et al. 2023)."""
        t = stratified(batch["time"], self.schedule.num_train_timesteps, parallel.RANK, parallel.SIZE)
        error = self.errors(batch, t)
        return {"loss": (error * jt.array(self.weights(t))).mean(), "mse": error.mean()}

    def errors(self, batch: dict[str, np.ndarray], t: np.ndarray) -> jt.Var:
        """Mean squared error of the prediction, [B], for latents noised to timesteps t [B]."""
        latent, noise = batch["latent"], batch["noise"]
        conditions = self.conditioner(
            {
                "mask": {"mask": batch["mask"]},
                "reference": {"latents": batch["reference"], "colors": batch["colors"], "known": batch["known"]},
            }
        )
        noisy = jt.array(self.schedule.add_noise(latent, noise, t))
        output = denoise(self.unet, noisy, t, conditions, self.schedule, self.options.prediction_type)
        target = jt.array(self.schedule.target(latent, noise, t, self.options.prediction_type))
        return (output - target).sqr().mean(dims=(1, 2, 3))

    def weights(self, t: np.ndarray) -> np.ndarray:
        return self.schedule.min_snr_weight(t, self.options.prediction_type, self.options.min_snr_gamma).reshape(-1)

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The loss with the right conditions, with another picture's mask, and with another picture's reference; and with the right ones
        the squared error by tenths of the timesteps, val_mse_0 to val_mse_9."""
        t = stratified(batch["time"], self.schedule.num_train_timesteps)

        def errors(*others: str) -> np.ndarray:
            changed = {name: np.roll(batch[name], 1, axis=0) for name in others}
            return self.errors(batch | changed, t).numpy()

        right, weights = errors(), self.weights(t)
        metrics = {"val_loss": right * weights}
        if len(t) > 1:  # a single picture has no other
            metrics["val_loss_other_mask"] = errors("mask") * weights
            metrics["val_loss_other_reference"] = errors("reference", "colors") * weights
        tenths = t * 10 // self.schedule.num_train_timesteps
        return metrics | {f"val_mse_{tenth}": right[tenths == tenth] for tenth in range(10)}

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`. The reference of a picture is the next one's photo."""
        return preview_rows(LatentDiffusion(self.options, self.vae, self.unet, self.conditioner), pairs, PREVIEW)
