"""Stage `unet`: the UNet and its conditioner, on the latents of the frozen autoencoder."""

from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.pairs import Pair
from datasets.transforms import random_crop
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import UNKNOWN, Conditioner, denoise
from models.networks.pretrained import load_network, save_config
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion, noise_schedule
from models.presets import Config, conditioner_config, unet_config
from models.stages.latents import Latents, cache_latents
from models.training.learner import Learner
from utils import parallel
from utils.image import colorize_mask


class LatentPairs:
    """Latents, masks and references of photos, with all the chance of a training example. A photo is its own reference."""

    def __init__(self, pairs: list[Pair], latents: Latents, scaling_factor: float, config: Config, drop: float):
        self.pairs, self.latents, self.scaling_factor = pairs, latents, np.float32(scaling_factor)
        self.config, self.drop = config, drop
        self.timesteps = noise_schedule(config).num_train_timesteps

    def __len__(self) -> int:
        return len(self.pairs)

    def posterior(self, index: int, flip: int) -> np.ndarray:
        """Mean and standard deviation, float32 [2, 4, h, w], of the scaled latents of a photo or of its mirror image."""
        return self.latents.posteriors[index, flip].astype(np.float32) * self.scaling_factor

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """latent and noise: float32 [4, h, w]; timestep: int; mask: uint8 [H, W]; reference: float32 [4, h', w']; colors: [54];
        known: 1, or 0 where the reference is left out. A mask that is left out is UNKNOWN everywhere."""
        c, p = self.config, self.config.patch_size
        flip = int(rng.integers(2))
        mean, std = self.posterior(index, flip)
        mask = read_mask(self.pairs[index].mask, (c.width, c.height))
        mask = np.ascontiguousarray(mask[:, ::-1] if flip else mask)
        # The reference must not give the layout away: a crop whose patches lie elsewhere than the picture's, flipped on its own account.
        # That the patches are shuffled needs no doing, for the reference encoder knows no positions.
        reference, _ = self.posterior(index, int(rng.integers(2)))
        reference = random_crop(reference, reference.shape[1] - p, reference.shape[2] - p, rng)
        chance = rng.random() / self.drop if self.drop else 3.0
        drop_mask, drop_reference = chance < 2, 1 <= chance < 3  # in [0, 1) mask alone, [1, 2) both, [2, 3) reference alone
        return {
            "latent": mean + std * rng.standard_normal(mean.shape, np.float32),
            "noise": rng.standard_normal(mean.shape, np.float32),
            "timestep": np.array(rng.integers(self.timesteps)),
            "mask": np.full_like(mask, UNKNOWN) if drop_mask else mask,
            "reference": np.ascontiguousarray(reference),
            "colors": self.latents.colors[index],
            "known": np.array(0.0 if drop_reference else 1.0, np.float32),
        }


class UNetStage:
    name = "unet"
    builds_on = ("vae",)
    columns = ("mask", "reference", "result", "truth")

    def __init__(self, config: Config, run: Path):
        self.config, self.run = config, run
        self.vae = load_network(AutoencoderKL, AutoencoderKLConfig, run / "vae")
        self.unet = UNet2DConditionModel(unet_config(config))
        self.conditioner = Conditioner(conditioner_config(config))
        networks = {"unet": self.unet, "conditioner": self.conditioner}
        self.learner = Learner(networks, config, config.unet_lr, config.unet_steps)
        self.schedule = noise_schedule(config)
        self.steps, self.batch_size = config.unet_steps, config.unet_batch_size

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[LatentPairs, LatentPairs]:
        """Encodes what is not in the cache, which takes minutes the first time, and measures the scale of the latents if nobody has."""
        size = (self.config.width, self.config.height)
        latents, val_latents = (cache_latents(self.vae, pairs, size, self.run / "latents") for pairs in (train, validation))
        if self.vae.config.scaling_factor is None:
            self.vae.config.scaling_factor = latents.scaling_factor()
            if parallel.MAIN:
                save_config(self.vae, self.run / "vae")
        scale = self.vae.config.scaling_factor
        return (
            LatentPairs(train, latents, scale, self.config, drop=self.config.drop),
            LatentPairs(validation, val_latents, scale, self.config, drop=0),
        )

    def losses(self, batch: dict[str, np.ndarray]) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: the squared error of the prediction with Min-SNR weights (Hang et al. 2023)."""
        t = batch["timestep"]
        latent, noise = batch["latent"], batch["noise"]
        conditions = self.conditioner(jt.array(batch["mask"]), jt.array(batch["reference"]), jt.array(batch["colors"]), batch["known"])
        output = denoise(self.unet, jt.array(self.schedule.add_noise(latent, noise, t)), t, conditions)
        target = jt.array(self.schedule.target(latent, noise, t, self.config.prediction_type))
        error = (output - target).sqr().mean(dims=(1, 2, 3))  # [B]
        weight = self.schedule.min_snr_weight(t, self.config.prediction_type, self.config.min_snr_gamma).reshape(-1)
        return {"loss": (error * jt.array(weight)).mean(), "mse": error.mean()}

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """The loss with the right conditions, with another picture's mask, and with another picture's reference."""

        def other(*names: str) -> dict[str, np.ndarray]:
            return batch | {name: np.roll(batch[name], 1, axis=0) for name in names}

        return {
            "val_loss": float(self.losses(batch)["loss"].item()),
            "val_loss_other_mask": float(self.losses(other("mask"))["loss"].item()),
            "val_loss_other_reference": float(self.losses(other("reference", "colors"))["loss"].item()),
        }

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`. The reference of a picture is the next one's photo."""
        size = (self.config.width, self.config.height)
        masks = np.stack([read_mask(pair.mask, size) for pair in pairs])
        photos = np.stack([read_image(pair.image, size) for pair in pairs])
        references = np.roll(photos, -1, axis=0)
        results = LatentDiffusion(self.config, self.vae, self.unet, self.conditioner).generate(
            masks, references, seeds=list(range(len(pairs))), sampler="dpm++2m", steps=20, guidance=3.0, ref_guidance=1.5
        )
        return [list(row) for row in zip(colorize_mask(masks), references, results, photos, strict=True)]
