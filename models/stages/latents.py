"""The latents of a whole data set, encoded once and kept on disk."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from datasets.landscape import read_image
from datasets.pairs import Pair
from datasets.transforms import NUM_COLOR_STATISTICS, color_statistics, to_array
from models.networks.autoencoder_kl import AutoencoderKL
from utils.checkpoint import module_arrays
from utils.files import atomic_write

BATCH = 8  # photos encoded at once


@dataclass
class Latents:
    """Posteriors and colour statistics of N photos, in the order of their pairs."""

    posteriors: np.ndarray  # float16 [N, 2, 2, 4, h, w]: as it is and flipped; mean and std, unscaled
    colors: np.ndarray  # float32 [N, 54]

    def scaling_factor(self) -> float:
        """1 / standard deviation of all sampled latents (Rombach et al. 2022, section 4.3.2 and appendix G)."""
        sums = np.zeros(3)  # of 1, z and z²
        for mean, std in (photo.astype(np.float64).swapaxes(0, 1) for photo in self.posteriors):  # one by one: the file may outgrow memory
            sums += mean.size, mean.sum(), (mean**2 + std**2).sum()
        return float(1 / np.sqrt(sums[2] / sums[0] - (sums[1] / sums[0]) ** 2))


def cache_latents(vae: AutoencoderKL, pairs: list[Pair], size: tuple[int, int], folder: Path) -> Latents:
    """Reads the latents of the photos at `size` from `folder`, or encodes them and writes them there.

    The files are named after the autoencoder's weights and the photos, so that a change of either makes new ones.
    """
    digest = hashlib.sha256(json.dumps([size, [(p.image.name, p.image.stat().st_size) for p in pairs]]).encode())
    for name, array in sorted(module_arrays(vae).items()):
        digest.update(name.encode() + array.tobytes())
    stem = digest.hexdigest()[:16]
    posteriors, colors = folder / f"{stem}-posteriors.npy", folder / f"{stem}-colors.npy"
    if not (posteriors.is_file() and colors.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        encode(vae, pairs, size, posteriors, colors)
    return Latents(np.load(posteriors, mmap_mode="r"), np.load(colors))


def encode(vae: AutoencoderKL, pairs: list[Pair], size: tuple[int, int], posteriors: Path, colors: Path) -> None:
    """Writes what `Latents` holds, batch by batch: the memory needed does not grow with the number of photos."""
    f, channels = vae.config.downscale, vae.config.latent_channels
    shape = (len(pairs), 2, 2, channels, size[1] // f, size[0] // f)
    statistics = np.empty((len(pairs), NUM_COLOR_STATISTICS), np.float32)
    with atomic_write(posteriors) as file, jt.no_grad():
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for start in tqdm(range(0, len(pairs), BATCH), desc="encoding", unit="batch", dynamic_ncols=True):
            photos = np.stack([read_image(pair.image, size) for pair in pairs[start : start + BATCH]])
            statistics[start : start + BATCH] = [color_statistics(photo) for photo in photos]
            flips = []
            for images in (photos, photos[:, :, ::-1]):
                mean, logvar = vae.posterior(jt.array(to_array(images)))
                flips.append(np.stack([mean.numpy(), np.exp(0.5 * logvar.numpy())], axis=1))
            file.write(np.stack(flips, axis=1).astype(np.float16).tobytes())
    with atomic_write(colors) as file:
        np.save(file, statistics)
