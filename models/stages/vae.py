"""Stage `vae`: the autoencoder alone, on random crops."""

from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_image
from datasets.pairs import Pair
from datasets.transforms import random_crop, random_flip, to_array, to_image
from models.losses.reconstruction import kl_divergence, l1, tone
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.layers import edited, zeros_
from models.training.learner import Learner
from models.training.options import StageOptions
from utils.options import option

LOGVAR_BOUND = 10.0  # log-variances are kept within ±10 in training, so that sampled latents and the KL stay bounded


@dataclass(frozen=True)
class VAEOptions(StageOptions):
    channels: tuple[int, ...] = option(
        (128, 256, 512, 512), "channels of each level, finest first; n levels reduce 2^(n-1)-fold", least=12, fixed=True
    )
    layers: int = option(2, "residual blocks a level", least=1, fixed=True)
    latent_channels: int = option(4, "channels of the latents", least=3, fixed=True)
    norm_groups: int = option(32, "of every group norm", least=1, fixed=True)
    kl_weight: float = option(1e-4, "weight of the KL divergence, a mean over latents, against a mean absolute error", least=0)
    crop_width: int = option(256, "it is trained on random crops of this size", least=1)
    crop_height: int = option(256, "of the same", least=1)

    @property
    def network(self) -> AutoencoderKLConfig:
        return AutoencoderKLConfig(
            block_out_channels=self.channels,
            layers_per_block=self.layers,
            latent_channels=self.latent_channels,
            norm_num_groups=self.norm_groups,
            scaling_factor=None,  # measured on the training set when the autoencoder is done
        )

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        return crop_faults(self, "vae", self.network.downscale) + [
            f"--vae_channels: {width} is not a multiple of --vae_norm_groups {self.norm_groups}"
            for width in self.channels
            if width % self.norm_groups
        ]


def crop_faults(options: StageOptions, stage: str, cell: int) -> list[str]:
    """What is wrong with the sizes of a stage's pictures and crops, where latents have cells of so many pixels a side."""
    faults = [
        f"--{stage}_{name} {getattr(options, name)} is not a multiple of {cell}"
        for name in ("width", "height", "crop_width", "crop_height")
        if getattr(options, name) % cell
    ]
    return faults + [
        f"--{stage}_crop_{side} {getattr(options, f'crop_{side}')} is more than --{stage}_{side} {getattr(options, side)}"
        for side in ("width", "height")
        if getattr(options, f"crop_{side}") > getattr(options, side)
    ]


class PhotoCrops:
    """Random crops, or whole photos where `whole`, with noise for their latents. `options` have crop_width and crop_height."""

    def __init__(self, pairs: list[Pair], options: StageOptions, latent_channels: int, downscale: int, whole: bool):
        self.pairs, self.options, self.whole = pairs, options, whole
        self.latent_channels, self.downscale = latent_channels, downscale

    def __len__(self) -> int:
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """image: float32 [3, h, w] in −1..1; noise: float32 [4, h/f, w/f], normal; level: 0..1, by which a stage may scale noise."""
        options = self.options
        image = to_array(read_image(self.pairs[index].image, options.size))
        if not self.whole:
            image = random_flip(random_crop(image, options.crop_height, options.crop_width, rng), rng)
        size = (self.latent_channels, image.shape[1] // self.downscale, image.shape[2] // self.downscale)
        return {"image": np.ascontiguousarray(image), "noise": rng.standard_normal(size, np.float32), "level": np.array(rng.random())}


# Brightness, red against green, yellow against blue, each of about unit variance over photos: in −1..1, brightness varies most
OPPONENT = np.array([[0.67, 0.67, 0.67], [5.0, -5.0, 0.0], [1.5, 1.5, -3.0]], np.float32)


def start_as_averages(vae: AutoencoderKL) -> None:
    """Initialises the autoencoder to encode cells as their mean colour and to decode by interpolation, which training would learn late.

    From the usual random start it learns brightness first and is colourless for a thousand steps and more. Here residual branches start
    at zero (Goyal et al. 2017, section 5.1) and all other convolutions pass channels on (Zagoruyko & Komodakis 2017), halving by means
    and doubling by interpolation. Three latents start as opponent colours. A colour c travels in four channels, c, −c, 1 and −1: that
    the means are 0 and two are constant keeps its value through a normalisation, and silu(c) − silu(−c) = c undoes the activation.
    All other weights keep their random start.
    """
    encoder, decoder = vae.encoder, vae.decoder
    box, tent = np.full((2, 2), 0.25), np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    for name, module in vae.named_modules():
        if name.endswith((".conv2", ".to_out.0")):
            zeros_(module)
        elif name.endswith((".conv", ".conv_shortcut")):
            with edited(module) as (weight, _):
                n = min(weight.shape[:2])
                weight[:n] = 0
                kernel = np.ones((1, 1))
                if "downsamplers" in name:
                    kernel = np.pad(box, (0, 1))
                elif "upsamplers" in name:
                    kernel = tent
                weight[range(n), range(n)] = kernel

    def spread(weight: np.ndarray, bias: np.ndarray, colors: np.ndarray) -> None:
        """Makes the first twelve outputs c, −c, 1, −1 for the three `colors`, rows of coefficients for the inputs."""
        weight[:12], bias[:12] = 0, np.tile([0, 0, 1, -1], 3)
        weight[0:12:4, :, 1, 1], weight[1:12:4, :, 1, 1] = colors, -colors

    def gather(weight: np.ndarray, bias: np.ndarray, colors: np.ndarray) -> None:
        """Makes each output the sum, with a row of `colors` as coefficients, of what `spread` has spread."""
        weight[:], bias[:] = 0, 0
        weight[:, 0:12:4, 1, 1], weight[:, 1:12:4, 1, 1] = colors, -colors

    with edited(encoder.conv_in) as (weight, bias):
        spread(weight, bias, OPPONENT)
    with edited(encoder.conv_out) as (weight, bias):
        gather(weight[:3], bias[:3], np.eye(3))
    with edited(vae.quant_conv) as (weight, bias):
        latents = len(bias) // 2
        weight[:], bias[:latents], bias[latents:] = 0, 0, -6  # a posterior as wide as the prior would drown what is to be learnt in noise
        weight[range(latents), range(latents)] = 1
    with edited(vae.post_quant_conv) as (weight, bias):
        weight[:, :, 0, 0], bias[:] = np.eye(len(bias)), 0
    with edited(decoder.conv_in) as (weight, bias):
        spread(weight, bias, np.eye(3, weight.shape[1]))
    with edited(decoder.conv_out) as (weight, bias):
        gather(weight, bias, np.linalg.inv(OPPONENT))


class VAEStage:
    name = "vae"
    builds_on = ()
    networks = ("vae",)
    columns = ("photo", "reconstruction")
    Options = VAEOptions

    def __init__(self, options: VAEOptions, folder: Path):
        self.options = options
        self.vae = AutoencoderKL(options.network)
        start_as_averages(self.vae)
        self.learners = {"vae": Learner({"vae": self.vae}, options.recipe)}

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[PhotoCrops, PhotoCrops]:
        channels, downscale = self.vae.config.latent_channels, self.vae.config.downscale
        return tuple(PhotoCrops(pairs, self.options, channels, downscale, whole) for pairs, whole in ((train, False), (validation, True)))

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        return self.learners["vae"].step(self.losses, batches, step)

    def losses(self, batch: dict[str, np.ndarray]) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: |x − x̂| + |mean over a cell of x − x̂| + β KL(q(z|x) ‖ N(0, 1)).

        It is the variational bound (Kingma & Welling 2014, eq. 7) under a Laplace likelihood, of the pixels and of the means of cells:
        tone, which the latents can hold exactly, is learnt before texture.
        """
        image, noise = jt.array(batch["image"]), jt.array(batch["noise"])
        mean, logvar = self.vae.posterior(image)
        logvar = jt.clamp(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
        std = jt.exp(0.5 * logvar)
        reconstruction = self.vae.reconstruct(mean + std * noise)
        error = reconstruction - image
        parts = {"l1": l1(error), "tone": tone(error, self.vae.config.downscale), "kl": kl_divergence(mean, std, logvar)}
        return {
            "loss": parts["l1"] + parts["tone"] + self.options.kl_weight * parts["kl"],
            **parts,
            "psnr": -10 * jt.log(error.sqr().mean() / 4) / np.log(10),  # dB; the range of values is 2
            "posterior_mean_rms": mean.sqr().mean().sqrt(),
            "posterior_std": std.mean(),
        }

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """The losses of whole photos, decoded from the mean of the posterior; PSNR in dB, mean over the photos."""
        image = batch["image"]
        mean, logvar = self.vae.posterior(jt.array(image))
        reconstruction = np.clip(self.vae.reconstruct(mean).numpy(), -1, 1)
        square = ((reconstruction - image) ** 2).mean(axis=(1, 2, 3))
        return {
            "val_loss": float(np.abs(reconstruction - image).mean()),
            "val_psnr": float((-10 * np.log10(square / 4)).mean()),
            "val_posterior_mean_rms": float(np.sqrt((mean.numpy() ** 2).mean())),
            "val_posterior_std": float(np.exp(0.5 * logvar.numpy()).mean()),
        }

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`."""
        photos = np.stack([read_image(pair.image, self.options.size) for pair in pairs])
        mean, _ = self.vae.posterior(jt.array(to_array(photos)))
        return [list(row) for row in zip(photos, to_image(self.vae.reconstruct(mean).numpy()), strict=True)]
