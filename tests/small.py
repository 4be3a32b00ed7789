"""A configuration that trains in seconds, for whole commands and for stages alike: the same shapes, so the same compiled kernels."""

from dataclasses import replace
from pathlib import Path

import jittor as jt
import numpy as np

from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import Conditioner
from models.networks.pretrained import save_network
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.systems import SYSTEMS
from models.training.run import Run, write_run
from utils.checkpoint import as_array

COMMON = {"width": 96, "height": 64, "steps": 4, "batch_size": 2, "warmup": 2, "validate_every": 2, "preview_every": 4, "save_every": 2}
OWN = {
    "vae": {"channels": (16, 16, 16, 16), "norm_groups": 4, "crop_width": 64, "crop_height": 64},
    "unet": {
        "channels": (16, 32), "attention": (0, 1), "heads": 2, "norm_groups": 4, "cross_attention_dim": 16, "mask_channels": (8, 8, 8),
    },
    "decoder": {"crop_width": 64, "crop_height": 64, "painted": 3},
    "style": {"rank": 2},
    "control": {"hint_channels": (8, 8, 8, 16), "rank": 2},
    "joint": {"crop_width": 64, "crop_height": 64},
    "joint_decoder": {"crop_width": 64, "crop_height": 64, "painted": 3},
    "lggan": {"channels": 8, "blocks": 2, "discriminator_channels": 8},
    "segformer": {},
    "rcan": {"groups": 2, "blocks": 2, "channels": 8, "patch": 32},
    "ecgan": {
        "channels": (16, 16, 16, 16), "hidden": 8, "style": 8, "style_channels": (8, 16, 16), "style_size": 32, "discriminator_channels": 8,
    },
}  # fmt: skip
# Where systems have a stage in common, it is the main one's
OPTIONS = {
    name: replace(options, **COMMON | OWN[name])
    for system in reversed(SYSTEMS)
    for name, options in SYSTEMS[system].presets["tiny"].items()
}


def arguments(*stages: str, **changed) -> list[str]:
    """The same for a command line, by default of all stages of the main system; `changed` are options that it gives another value."""
    values = (
        COMMON
        | {f"{stage}_{name}": value for stage in stages or ("vae", "unet", "decoder") for name, value in OWN[stage].items()}
        | changed
    )
    words = []
    for name, value in values.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def write_small_run(folder: Path) -> None:
    """A run of the main system that could be painted with if it had learnt something: its networks are as they begin."""
    jt.set_global_seed(0)
    options = {name: OPTIONS[name] for name in SYSTEMS["diffusion"].presets["tiny"]}
    vae = AutoencoderKL(options["vae"].network)
    vae.config.scaling_factor = 1.0
    unet = UNet2DConditionModel(options["unet"].network(vae.config))
    conditioner = Conditioner(options["unet"].conditioner(vae.config))
    for name, network in {"vae": vae, "decoder": vae, "unet": unet, "conditioner": conditioner}.items():
        save_network(network, network.state_dict(), folder / name, 4)
    write_run(Run(folder, "diffusion", "tiny", options))


def copies(tensors: dict) -> dict[str, np.ndarray]:
    """What Vars and arrays hold now, whatever happens to them."""
    return {name: as_array(tensor).copy() for name, tensor in tensors.items()}
