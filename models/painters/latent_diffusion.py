"""The main system at work: masks and reference photos in, pictures out."""

from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.transforms import color_statistics, to_array, to_image
from models.diffusion.denoiser import Denoiser, guidance_branches, guide
from models.diffusion.samplers import SAMPLERS, sampling_timesteps, seeded_noise
from models.diffusion.schedule import NoiseSchedule
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import UNKNOWN, Conditioner, ConditionerConfig, denoise
from models.networks.pretrained import load_network, load_run
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.presets import Config


def noise_schedule(config: Config) -> NoiseSchedule:
    return NoiseSchedule.make(config.noise_schedule, rescale_zero_snr=bool(config.zero_snr))


@dataclass
class LatentDiffusion:
    config: Config
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    conditioner: Conditioner

    @classmethod
    def load(cls, folder: Path) -> "LatentDiffusion":
        """From a run's folder, or from `best` in it: the autoencoder is the run's in both cases, as the UNet has learnt its latents.

        Raises UserError where something is missing or damaged.
        """
        run = folder.parent if folder.name == "best" else folder
        return cls(
            load_run(run)["config"],
            load_network(AutoencoderKL, AutoencoderKLConfig, run / "vae"),
            load_network(UNet2DConditionModel, UNet2DConditionConfig, folder / "unet"),
            load_network(Conditioner, ConditionerConfig, folder / "conditioner"),
        )

    def generate(
        self,
        masks: np.ndarray,  # uint8 [B, H, W], values 0..28
        references: np.ndarray,  # uint8 [B, H, W, 3]
        seeds: list[int],  # one a picture, not negative
        sampler: str,  # a key of SAMPLERS
        steps: int,
        guidance: float,  # scale for the mask; 1: none
        ref_guidance: float,  # scale for the reference; 1: none
        ref_start: float = 1.0,  # below 1, start from the reference's latents noised to this share of the process
        tile: int | None = None,  # pixels a side of what is decoded at once; None: the picture
    ) -> np.ndarray:
        """Pictures uint8 [B, H, W, 3]. A picture depends on its own mask, reference and seed alone."""
        schedule = noise_schedule(self.config)
        timesteps = sampling_timesteps(schedule, steps, ref_start)
        branches = guidance_branches(guidance, ref_guidance)
        with jt.no_grad():
            # one by one, as below: full-size feature maps of a whole batch would be the most memory that sampling takes
            latents = jt.concat([jt.array(self.vae.encode(jt.array(photo[None]))[0].numpy()) for photo in to_array(references)])
            colors = np.stack([color_statistics(photo) for photo in references])
            conditions = self.conditioner(
                jt.array(np.concatenate([masks if branch.use_mask else np.full_like(masks, UNKNOWN) for branch in branches])),
                jt.concat([latents] * len(branches)),
                jt.array(np.concatenate([colors] * len(branches))),
                np.repeat([branch.use_reference for branch in branches], len(masks)),
            )

            def model(x: jt.Var, t: int) -> jt.Var:
                timestep = np.full(len(branches) * len(masks), t)
                return guide(branches, denoise(self.unet, jt.concat([x] * len(branches)), timestep, conditions))

            noise = seeded_noise(seeds, latents.shape[1:])
            first = noise(0)
            x = jt.array(first) if ref_start == 1 else jt.array(schedule.add_noise(latents.numpy(), first, timesteps[0]))
            denoiser = Denoiser(model, schedule, self.config.prediction_type)
            for x in SAMPLERS[sampler](denoiser, x, timesteps, noise):  # noqa: B020  (each step's x replaces the last)
                x.sync()
            return np.concatenate([to_image(self.decode(latent, tile)) for latent in x.split(1)])

    def decode(self, latent: jt.Var, tile: int | None) -> np.ndarray:
        """One picture [1, 3, H, W], nominally −1..1."""
        if tile is None:
            return self.vae.decode(latent).numpy()
        return self.vae.decode_in_tiles(latent, tile // self.vae.config.downscale)
