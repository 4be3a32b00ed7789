"""All that can be chosen about a run, in one dataclass, and the named choices. A checkpoint stores the whole of it."""

import math
from dataclasses import dataclass, field

import numpy as np

from models.diffusion.schedule import NOISE_SCHEDULES, PREDICTION_TYPES
from models.networks.autoencoder_kl import AutoencoderKLConfig
from models.networks.conditioner import ConditionerConfig
from models.networks.segformer import SEGFORMERS
from models.networks.unet_2d_condition import UNet2DConditionConfig
from utils.errors import UserError

# What a run cannot change once it has begun: its networks, and the process they have learnt to invert
ARCHITECTURE = (
    "width", "height", "vae_channels", "vae_layers", "latent_channels", "norm_groups", "unet_channels", "unet_layers", "unet_attention",
    "heads", "cross_attention_dim", "mask_channels", "patch_size", "noise_schedule", "zero_snr", "prediction_type", "segformer",
)  # fmt: skip

# What must be above zero
POSITIVE = (
    "width", "height", "crop_width", "crop_height", "vae_channels", "vae_layers", "latent_channels", "norm_groups", "unet_channels",
    "unet_layers", "heads", "cross_attention_dim", "mask_channels", "patch_size", "vae_steps", "unet_steps", "vae_batch_size",
    "unet_batch_size", "vae_lr", "unet_lr", "segformer_steps", "segformer_batch_size", "segformer_lr", "warmup", "max_norm",
    "min_snr_gamma", "validate_every", "preview_every", "save_every",
)  # fmt: skip


def option(default: object, text: str) -> object:
    """A field of `Config`; `text` is what --help says of it."""
    return field(default=default, metadata={"help": text})


@dataclass
class Config:
    """The fields of a run."""

    # resolution
    width: int = option(512, "of the pictures the model works on, in pixels; results are always written at 512x384")
    height: int = option(384, "of the same")
    # autoencoder
    vae_channels: tuple[int, ...] = option((128, 256, 512, 512), "channels of each level, finest first; n levels reduce 2^(n-1)-fold")
    vae_layers: int = option(2, "residual blocks a level")
    latent_channels: int = option(4, "channels of the latents")
    norm_groups: int = option(32, "of every group norm, in the autoencoder and in the UNet")
    kl_weight: float = option(1e-4, "weight of the KL divergence, a mean over latents, against a mean absolute error")
    crop_width: int = option(256, "the autoencoder is trained on random crops of this size")
    crop_height: int = option(256, "of the same")
    # UNet
    unet_channels: tuple[int, ...] = option((320, 640, 1280, 1280), "channels of each level, finest first")
    unet_layers: int = option(2, "residual blocks a level")
    unet_attention: tuple[int, ...] = option((1, 1, 1, 0), "1 for each level that has attention")
    heads: int = option(8, "of attention")
    cross_attention_dim: int = option(768, "channels of a reference token")
    mask_channels: tuple[int, ...] = option((32, 64, 128), "of the mask encoder")
    patch_size: int = option(4, "latent cells a side of one reference token")
    # diffusion
    noise_schedule: str = option("scaled_linear", f"one of {', '.join(NOISE_SCHEDULES)}")
    zero_snr: int = option(1, "1: the last timestep is pure noise (Lin et al. 2023); 0: it is not quite")
    prediction_type: str = option("v_prediction", f"one of {', '.join(PREDICTION_TYPES)}")
    min_snr_gamma: float = option(5.0, "bound of the Min-SNR weights (Hang et al. 2023)")
    drop: float = option(0.05, "chance to leave out the mask, the reference, or both: for each of the three")
    # the judge of mask accuracy
    segformer: str = option("b2", f"size of the judge's network, one of {', '.join(SEGFORMERS)}")
    # optimisation
    vae_steps: int = option(100_000, "updates of stage vae")
    unet_steps: int = option(200_000, "updates of stage unet")
    segformer_steps: int = option(80_000, "updates of stage segformer")
    vae_batch_size: int = option(8, "crops a micro-batch")
    unet_batch_size: int = option(8, "photos a micro-batch")
    segformer_batch_size: int = option(16, "photos a micro-batch")
    vae_lr: float = option(1e-4, "highest learning rate, reached after the warm-up")
    unet_lr: float = option(1e-4, "highest learning rate")
    segformer_lr: float = option(2e-4, "highest learning rate")
    warmup: int = option(1000, "steps in which the learning rate rises; then it falls as a cosine")
    weight_decay: float = option(0.01, "of AdamW")
    max_norm: float = option(1.0, "gradients are clipped to this norm")
    ema: float = option(0.9999, "decay of the averaged weights")
    # rhythm
    validate_every: int = option(2000, "steps")
    preview_every: int = option(2000, "steps")
    save_every: int = option(1000, "steps")


# Steps and batches of `small` are for one 24 GB card and a day; those of `tiny` for two CPU cores and minutes.
PRESETS = {
    "base": Config(),  # the shape of Stable Diffusion v1, so that its weights can initialise it
    "small": Config(
        width=256, height=192, vae_channels=(64, 128, 256, 256), unet_channels=(192, 384, 576, 768), unet_attention=(0, 1, 1, 1),
        cross_attention_dim=512, vae_steps=50_000, unet_steps=100_000, vae_batch_size=16, unet_batch_size=32, crop_width=128,
        crop_height=128, vae_lr=2e-4, unet_lr=2e-4, segformer="b1", segformer_steps=40_000, ema=0.999,
    ),
    "tiny": Config(
        width=256, height=192, vae_channels=(16, 32, 64, 96), vae_layers=1, norm_groups=4, unet_channels=(64, 128, 192), unet_layers=1,
        unet_attention=(0, 1, 1), heads=4, cross_attention_dim=128, mask_channels=(16, 32, 64), crop_width=96, crop_height=64,
        vae_steps=100, unet_steps=200, vae_batch_size=4, unet_batch_size=4, vae_lr=5e-4, unet_lr=1e-3, warmup=25, ema=0.99,
        segformer="b0", segformer_steps=200, segformer_batch_size=8, segformer_lr=1e-3, validate_every=500, preview_every=500,
        save_every=100,
    ),
}  # fmt: skip


def vae_config(config: Config) -> AutoencoderKLConfig:
    return AutoencoderKLConfig(
        block_out_channels=config.vae_channels,
        layers_per_block=config.vae_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        scaling_factor=None,  # measured on the training set when the autoencoder is done
    )


def conditioner_config(config: Config) -> ConditionerConfig:
    channels = config.unet_channels
    return ConditionerConfig(
        downscale=vae_config(config).downscale,
        mask_channels=config.mask_channels,
        level_channels=(channels[0], *channels[:-1]),
        latent_channels=config.latent_channels,
        patch_size=config.patch_size,
        cross_attention_dim=config.cross_attention_dim,
    )


def unet_config(config: Config) -> UNet2DConditionConfig:
    conditioner = conditioner_config(config)
    return UNet2DConditionConfig(
        in_channels=config.latent_channels + conditioner.num_classes,
        out_channels=config.latent_channels,
        block_out_channels=config.unet_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.unet_attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in config.unet_attention[::-1]),
        layers_per_block=config.unet_layers,
        norm_num_groups=config.norm_groups,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=config.heads,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=conditioner.num_statistics,
    )


def check_config(config: Config) -> None:
    """Raises UserError, naming every fault, where the fields do not go together."""
    faults = [f"{name} {value} is not positive" for name in POSITIVE for value in np.ravel(getattr(config, name)) if value <= 0]
    if faults:
        raise UserError("These must be positive: " + "; ".join(faults))
    f, levels = vae_config(config).downscale, len(config.unet_channels)
    cell = f * math.lcm(2 ** (levels - 1), config.patch_size)
    faults = [
        f"{name} {getattr(config, name)} is not a multiple of {multiple}"
        for name, multiple in [("width", cell), ("height", cell), ("crop_width", f), ("crop_height", f)]
        if getattr(config, name) % multiple
    ]
    faults += [
        f"{crop} {getattr(config, crop)} is more than {whole} {getattr(config, whole)}"
        for crop, whole in [("crop_width", "width"), ("crop_height", "height")]
        if getattr(config, crop) > getattr(config, whole)
    ]
    faults += [
        f"{name} {getattr(config, name)} must be more than one reference token, {f * config.patch_size} pixels"
        for name in ("width", "height")
        if getattr(config, name) <= f * config.patch_size
    ]
    if config.segformer not in SEGFORMERS:
        faults.append(f"segformer {config.segformer} is none of {', '.join(SEGFORMERS)}")
    if config.noise_schedule not in NOISE_SCHEDULES:
        faults.append(f"noise_schedule {config.noise_schedule} is none of {', '.join(NOISE_SCHEDULES)}")
    if config.prediction_type not in PREDICTION_TYPES:
        faults.append(f"prediction_type {config.prediction_type} is none of {', '.join(PREDICTION_TYPES)}")
    elif config.prediction_type == "epsilon" and config.zero_snr:
        faults.append("prediction_type epsilon says nothing of pure noise: give --zero_snr 0 too")
    if not (0 <= config.drop <= 1 / 3 and 0 <= config.ema < 1):
        faults.append("drop must be within 0..1/3, and ema at least 0 and below 1")
    if min(config.vae_channels) < 12 or config.latent_channels < 3:  # what three colours take: models/stages/vae.py
        faults.append("vae_channels must be at least 12, and latent_channels at least 3")
    for name in ("vae_channels", "unet_channels"):
        faults += [
            f"{name}: {width} is not a multiple of norm_groups {config.norm_groups}"
            for width in getattr(config, name)
            if width % config.norm_groups
        ]
    faults += [
        f"unet_channels: {width} is not a multiple of {config.heads} heads" for width in config.unet_channels if width % config.heads
    ]
    if len(config.unet_attention) != levels:
        faults.append(f"unet_attention has {len(config.unet_attention)} values for {levels} levels")
    if 2 ** len(config.mask_channels) != f:
        faults.append(f"mask_channels has {len(config.mask_channels)} values; one for each halving down to 1/{f} is needed")
    if faults:
        raise UserError("These fields of the configuration do not go together: " + "; ".join(faults))
