from dataclasses import fields, replace

import jittor as jt
import numpy as np
import pytest

from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import Conditioner, denoise
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.presets import ARCHITECTURE, PRESETS, Config, check_config, conditioner_config, unet_config, vae_config
from utils.errors import UserError


@pytest.mark.parametrize("preset", PRESETS)
def test_the_networks_of_a_preset_fit_together(preset):
    config = PRESETS[preset]
    check_config(config)
    vae, conditioner = AutoencoderKL(vae_config(config)), Conditioner(conditioner_config(config))
    unet = UNet2DConditionModel(unet_config(config))
    w, h = config.width, config.height
    # shapes are known without computing anything
    mean, _ = vae.posterior(jt.zeros(2, 3, h, w))
    latents = (2, 4, h // vae.config.downscale, w // vae.config.downscale)
    assert tuple(mean.shape) == latents
    assert tuple(vae.reconstruct(mean).shape) == (2, 3, h, w)
    conditions = conditioner(jt.zeros((2, h, w), "uint8"), jt.zeros(*latents), jt.zeros(2, 54), np.ones(2))
    assert tuple(denoise(unet, jt.zeros(*latents), np.array([1, 999]), conditions).shape) == latents


def test_what_a_run_cannot_change_are_fields():
    assert set(ARCHITECTURE) < {field.name for field in fields(Config)}


@pytest.mark.parametrize("changed, words", [
    ({"width": 200}, ["width 200 is not a multiple of 32"]),
    ({"height": 100, "crop_width": 100}, ["height 100", "crop_width 100 is not a multiple of 8"]),
    ({"patch_size": 16}, ["height 192 is not a multiple of 128"]),
    ({"crop_width": 512, "crop_height": 512}, ["crop_width 512 is more than width 256", "crop_height 512 is more than height 192"]),
    ({"vae_channels": (32, 50, 96, 96)}, ["vae_channels: 50"]),
    ({"unet_channels": (64, 102, 192)}, ["unet_channels: 102 is not a multiple of norm_groups"]),
    ({"patch_size": 6}, ["width 256 is not a multiple of 96"]),
    ({"heads": 3}, ["64 is not a multiple of 3 heads", "128 is not a multiple of 3 heads"]),
    ({"unet_attention": (1, 1)}, ["unet_attention has 2 values for 3 levels"]),
    ({"mask_channels": (16, 32)}, ["mask_channels has 2 values"]),
    ({"heads": 0, "width": 0, "norm_groups": 0}, ["heads 0 is not", "width 0 is not", "norm_groups 0 is not positive"]),
    ({"patch_size": 0, "vae_channels": (32, -32)}, ["patch_size 0 is not positive", "vae_channels -32 is not positive"]),
])  # fmt: skip
def test_every_fault_of_a_configuration_is_named(changed, words):
    with pytest.raises(UserError) as raised:
        check_config(replace(PRESETS["tiny"], **changed))
    for word in words:
        assert word in str(raised.value)
