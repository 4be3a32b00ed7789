"""The latents of a whole data set, encoded once and kept on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_image
from datasets.pairs import Pair
from datasets.transforms import NUM_COLOR_STATISTICS, color_statistics, to_array
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.layers import autocast
from utils.checkpoint import module_arrays
from utils.rows import Rows, digest, measured

BATCH = 8  # photos encoded at once


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

    def scaling_factor(self) -> float:
        """1 / standard deviation of all sampled latents (Rombach et al. 2022, section 4.3.2 and appendix G)."""
        sums = np.zeros(3)  # of 1, z and z²
        for i in range(len(self.rows)):  # one by one: the file may outgrow memory
            mean, std = self.rows[i]["posterior"].astype(np.float64).swapaxes(0, 1)
            sums += mean.size, mean.sum(), (mean**2 + std**2).sum()
        return float(1 / np.sqrt(sums[2] / sums[0] - (sums[1] / sums[0]) ** 2))


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
