"""Latents of photos as the UNet paints them, for the decoder to learn from: its faults, beside the photo that should have come of them."""

import hashlib
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.pairs import Pair
from datasets.transforms import color_statistics, to_array
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.layers import autocast
from models.networks.pretrained import WEIGHTS
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.painters.pictures import captions_of
from models.stages.unet import UNetOptions
from models.training.run import read_json
from utils.options import from_stored
from utils.rows import Rows, digest, measured

LEVELS = (0.3, 0.45, 0.6, 0.75)  # of noise that a photo is painted anew from: its large shapes stay, its details are the UNet's
STEPS = 4  # of the sampler
BATCH = 8  # pictures painted at once


def painted_latents(folder: Path, vae: AutoencoderKL, pairs: list[Pair], size: tuple[int, int], prefix: str = "") -> Rows:
    """Scaled latents float16 [4, h, w] of photos at `size`, which the UNet of a run's folder paints anew: from the photo's own, noised to
    one of LEVELS, under its mask, its caption and itself as the reference, with the guidance that painting has. `prefix` is before the
    names of the networks, as `joint_` of those of stage joint.

    They are kept in `latents/` of the folder, so that a killed run goes on from what it has, until the UNet changes. Raises UserError where
    there is no UNet.
    """
    painter = LatentDiffusion.of(from_stored(UNetOptions(), read_json(folder)["stages"].get("unet", {})), vae, folder, prefix)
    identity = hashlib.sha256(repr((size, LEVELS, STEPS)).encode())
    for name in ("vae", "unet", "conditioner"):
        identity.update((folder / f"{prefix}{name}" / WEIGHTS).read_bytes())
    path = folder / "latents" / f"{prefix}painted-{identity.hexdigest()[:16]}.painted"
    for other in path.parent.glob(f"{prefix}painted-*"):
        if other != path:
            other.unlink(missing_ok=True)
    row = np.dtype(("<f2", (vae.config.latent_channels, size[1] // vae.config.downscale, size[0] // vae.config.downscale)))

    def paint(indices: list[int]) -> np.ndarray:
        rows = np.empty(len(indices), row)
        for i, level in enumerate(LEVELS):
            some = [k for k, index in enumerate(indices) if index % len(LEVELS) == i]
            if some:
                own = [indices[k] for k in some]
                photos, masks = (np.stack(part) for part in zip(*(read(pairs[index], size) for index in own), strict=True))
                with jt.no_grad(), autocast("float32"):
                    latents = np.concatenate([vae.encode(jt.array(photo[None]))[0].numpy() for photo in to_array(photos)])
                    colors = np.stack([color_statistics(photo) for photo in photos])
                    captions = captions_of([pairs[index] for index in own])
                    options = PaintingOptions(steps=STEPS, ref_start=level)
                    rows[some] = painter.sample(masks, latents, colors, captions, own, options).numpy()
        return rows

    def key(pair: Pair) -> bytes:
        return digest(pair.image, pair.mask, *([text.encode() for text in captions_of([pair])] if painter.words else []))

    return measured(path, [key(pair) for pair in pairs], row, paint, BATCH * len(LEVELS), "painting latents")


def read(pair: Pair, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return read_image(pair.image, size), read_mask(pair.mask, size)
