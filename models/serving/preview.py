"""What a picture will be, seen in its latents: a linear map from latents to colours, which costs nothing beside a sampling step."""

from dataclasses import dataclass

import numpy as np

from models.painters.latent_diffusion import LatentDiffusion
from utils.image import resize

BLOCK = 4  # pixels a side that are shown of one latent cell
RIDGE = 1e-2


@dataclass(frozen=True)
class LatentColors:
    weights: np.ndarray  # [9 · channels + 1, BLOCK² · 3]: from a cell, its eight neighbours and 1 to the cell's block of colours

    @classmethod
    def fitted(cls, painter: LatentDiffusion, photos: np.ndarray) -> "LatentColors":
        """By least squares on the latents of photos uint8 [N, H, W, 3], as the painter's own autoencoder makes them."""
        latents = painter.latents_of(photos)
        size = latents.shape[3] * BLOCK, latents.shape[2] * BLOCK
        inputs = np.concatenate([neighbourhoods(latent) for latent in latents]).astype(np.float64)
        colors = np.concatenate([blocks(resize(photo, size)) for photo in photos]).astype(np.float64)
        normal = inputs.T @ inputs + RIDGE * len(inputs) * np.diag([1.0] * (inputs.shape[1] - 1) + [0.0])
        return cls(np.linalg.solve(normal, inputs.T @ colors).astype(np.float32))

    def __call__(self, latent: np.ndarray) -> np.ndarray:
        """Latents [C, h, w] → a picture uint8 [BLOCK h, BLOCK w, 3]."""
        _, h, w = latent.shape
        colors = neighbourhoods(latent) @ self.weights
        picture = colors.reshape(h, w, BLOCK, BLOCK, 3).transpose(0, 2, 1, 3, 4).reshape(h * BLOCK, w * BLOCK, 3)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def neighbourhoods(latent: np.ndarray) -> np.ndarray:
    """[C, h, w] → [hw, 9C + 1]: each cell with those around it, the border repeated, and a 1."""
    c, h, w = latent.shape
    padded = np.pad(latent, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)])  # [9C, h, w]
    return np.concatenate([around.reshape(9 * c, h * w), np.ones((1, h * w), latent.dtype)]).T


def blocks(picture: np.ndarray) -> np.ndarray:
    """[BLOCK h, BLOCK w, 3] → [hw, BLOCK² · 3]."""
    h, w = picture.shape[0] // BLOCK, picture.shape[1] // BLOCK
    return picture.reshape(h, BLOCK, w, BLOCK, 3).transpose(0, 2, 1, 3, 4).reshape(h * w, -1)
