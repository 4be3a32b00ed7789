"""A configuration that trains in seconds, for whole commands and for stages alike: the same shapes, so the same compiled kernels."""

from dataclasses import replace

import numpy as np

from models.presets import PRESETS
from utils.checkpoint import as_array

FIELDS = {
    "width": 96,
    "height": 64,
    "vae_channels": (16, 16, 16, 16),
    "norm_groups": 4,
    "unet_channels": (16, 32),
    "unet_attention": (0, 1),
    "heads": 2,
    "cross_attention_dim": 16,
    "mask_channels": (8, 8, 8),
    "crop_width": 64,
    "crop_height": 64,
    "segformer_steps": 4,
    "segformer_batch_size": 2,
    "vae_steps": 4,
    "unet_steps": 4,
    "vae_batch_size": 2,
    "unet_batch_size": 2,
    "warmup": 2,
    "validate_every": 2,
    "preview_every": 4,
    "save_every": 2,
}
CONFIG = replace(PRESETS["tiny"], **FIELDS)


def arguments(**changed) -> list[str]:
    """The same for a command line."""
    words = []
    for name, value in (FIELDS | changed).items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name}", *map(str, values)]
    return words


def copies(tensors: dict) -> dict[str, np.ndarray]:
    """What Vars and arrays hold now, whatever happens to them."""
    return {name: as_array(tensor).copy() for name, tensor in tensors.items()}
