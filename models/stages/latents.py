"""The latents of a whole data set, encoded once and kept on disk."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from datasets.landscape import read_image
from datasets.loader import spread
from datasets.pairs import Pair
from datasets.transforms import NUM_COLOR_STATISTICS, color_statistics, to_array
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.layers import autocast
from models.networks.pretrained import exported_step, load_network, save_networks
from utils import parallel
from utils.checkpoint import module_arrays
from utils.errors import UserError
from utils.rows import Rows, digest, measured

BATCH = 8  # photos encoded at once
MEASURED = 512  # photos that the scale of latents is measured on, at most


@dataclass
class Latents:
    """Posteriors and colour statistics of N photos, in the order of their pairs, read from the disk as they are asked for."""

    rows: Rows

    def posterior(self, index: int, flip: int) -> np.ndarray:
        """Mean and standard deviation, float32 [2, 4, h, w], of a photo's unscaled latents, or of its mirror image's where `flip` is 1."""
        return self.rows[index]["posterior"][flip].astype(np.float32)

    def colors(self, index: int) -> np.ndarray:
        """float32 [54]."""
        return self.rows[index]["colors"]


def bring_to_scale(folder: Path, pairs: list[Pair], size: tuple[int, int], whitened: bool) -> AutoencoderKL:
    """The autoencoder of a run's folder, whose latents are brought to unit variance first if nobody has (`measure_latents`).

    Raises UserError where somebody has, otherwise than is wanted: what stands on them has learnt them so.
    """
    vae = load_network(AutoencoderKL, AutoencoderKLConfig, folder / "vae")
    if vae.config.scaling_factor is None and parallel.MAIN:  # the others come here when it is done
        measure_latents(vae, pairs, size, whitened)
        save_networks({"vae": (vae, vae.state_dict())}, folder, exported_step(folder / "vae"))
    if vae.config.scaling_factor is not None and whitened != (vae.config.scaling_factor == 1):
        found, advice = ("not whitened", 0) if whitened else ("whitened", 1)
        again = "train the autoencoder anew too, with --restart --stage vae"
        raise UserError(f"The latents of {folder / 'vae'} are {found} already: give --unet_whiten {advice}, or {again}")
    return vae


def measure_latents(vae: AutoencoderKL, pairs: list[Pair], size: tuple[int, int], whitened: bool) -> None:
    """Brings the autoencoder's latents to unit variance: by whitening its channels, or by one scaling factor for all of them.

    The factor is 1 / standard deviation of all sampled latents (Rombach et al. 2022, section 4.3.2 and appendix G).
    """
    indices = spread(len(pairs), MEASURED)
    total, gram, variance, count = 0.0, 0.0, 0.0, 0
    for first in tqdm(range(0, len(indices), BATCH), desc="measuring latents", unit="batch", dynamic_ncols=True):
        photos = np.stack([read_image(pairs[i].image, size) for i in indices[first : first + BATCH]])
        with jt.no_grad(), autocast("float32"):
            mean, logvar = (part.numpy().astype(np.float64) for part in vae.posterior(jt.array(to_array(photos))))
        flat = np.moveaxis(mean, 1, 0).reshape(mean.shape[1], -1)
        total, gram, count = total + flat.sum(axis=1), gram + flat @ flat.T, count + flat.shape[1]
        variance = variance + np.exp(logvar).sum(axis=(0, 2, 3))
    mean, variance = total / count, variance / count  # by channel; of the posteriors' means, and within a posterior
    if whitened:
        whiten(vae, mean, gram / count - np.outer(mean, mean) + np.diag(variance), variance)
        vae.config.scaling_factor = 1.0
    else:
        vae.config.scaling_factor = float(1 / np.sqrt((np.diag(gram) / count + variance).mean() - mean.mean() ** 2))


def whiten(vae: AutoencoderKL, mean: np.ndarray, covariance: np.ndarray, variance: np.ndarray) -> None:
    """Changes the autoencoder so that its latents have mean 0 and covariance 1 over channels; its pictures stay the same.

    Of channels of unequal scale the smaller ones would be drowned in noise. z' = W (z − mean) with W = covariance^(−1/2) is folded into
    `quant_conv`, and z = W⁻¹ z' + mean into `post_quant_conv`. The posteriors, of `variance` [4] on the mean, stay independent by channel
    and keep the variance that they have on the mean.
    """
    w, inverse = whitening(covariance)
    changed = folded(module_arrays(vae), mean, w, inverse, np.log(w**2 @ variance / variance))
    for name, var in vae.state_dict().items():
        if name in changed:
            var.update(jt.array(changed[name])).stop_grad()


def whitening(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """covariance^(−1/2) and its inverse, of [C, C]: of all maps that whiten the one that changes least."""
    values, vectors = np.linalg.eigh(covariance)
    w, inverse = (vectors @ np.diag(np.maximum(values, 1e-12) ** power) @ vectors.T for power in (-0.5, 0.5))
    return w, inverse


def folded(
    weights: Mapping[str, np.ndarray], mean: np.ndarray, w: np.ndarray, inverse: np.ndarray, log: np.ndarray
) -> dict[str, np.ndarray]:
    """Of an autoencoder's weights by name those that change, by name, so that its latents are z' = W (z − mean), its pictures are the same,
    and the log-variances of its posteriors grow by `log` [4]; mean: [4]; W and its inverse: [4, 4]."""
    names = [f"{conv}.{part}" for conv in ("quant_conv", "post_quant_conv") for part in ("weight", "bias")]
    channels = len(mean)
    quant_weight, quant_bias, post_weight, post_bias = (weights[name].astype(np.float64) for name in names)
    quant_weight[:channels] = np.tensordot(w, quant_weight[:channels], 1)
    quant_bias[:channels] = w @ (quant_bias[:channels] - mean)
    quant_bias[channels:] += log
    post_bias += post_weight[:, :, 0, 0] @ mean
    post_weight[:, :, 0, 0] = post_weight[:, :, 0, 0] @ inverse
    changed = (quant_weight, quant_bias, post_weight, post_bias)
    return {name: array.astype(np.float32) for name, array in zip(names, changed, strict=True)}


def cache_latents(vae: AutoencoderKL, pairs: list[Pair], size: tuple[int, int], folder: Path) -> Latents:
    """Reads the latents of the photos at `size` from `folder`, and encodes those that are not there yet.

    The file is named after the autoencoder's weights and the size, and photos are known by their contents, so that a change of any makes
    new latents; those of other weights are removed. They are computed in float32 whatever precision training has.
    """
    identity = hashlib.sha256(repr(size).encode())
    for name, array in sorted(module_arrays(vae).items()):
        identity.update(name.encode() + array.tobytes())
    path = folder / f"{identity.hexdigest()[:16]}.rows"
    for other in folder.glob("*.rows"):
        if other != path:
            other.unlink(missing_ok=True)
    f, channels = vae.config.downscale, vae.config.latent_channels
    row = np.dtype([("posterior", "<f2", (2, 2, channels, size[1] // f, size[0] // f)), ("colors", "<f4", (NUM_COLOR_STATISTICS,))])

    def encode(indices: list[int]) -> np.ndarray:
        photos = np.stack([read_image(pairs[i].image, size) for i in indices])
        rows = np.empty(len(indices), row)
        rows["colors"] = [color_statistics(photo) for photo in photos]
        with jt.no_grad(), autocast("float32"):
            for flip, images in enumerate((photos, photos[:, :, ::-1])):
                mean, logvar = vae.posterior(jt.array(to_array(images)))
                rows["posterior"][:, flip] = np.stack([mean.numpy(), np.exp(0.5 * logvar.numpy())], axis=1)
        return rows

    return Latents(measured(path, [digest(pair.image) for pair in pairs], row, encode, BATCH, "encoding"))
