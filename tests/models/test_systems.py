"""The presets of every system, and what goes together."""

import math
from dataclasses import fields, replace

import jittor as jt
import numpy as np
import pytest

from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import Conditioner, denoise
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.systems import SYSTEMS
from utils.options import changed_though_fixed, faults, several_and_kind

PRESETS = SYSTEMS["diffusion"].presets


@pytest.mark.parametrize("system, preset", [(name, preset) for name, system in SYSTEMS.items() for preset in system.presets])
def test_every_preset_is_whole_and_without_a_fault(system, preset):
    options = SYSTEMS[system].presets[preset]
    assert [*options] == [stage.name for stage in SYSTEMS[system].stages]
    for stage in SYSTEMS[system].stages:
        assert type(options[stage.name]) is stage.Options
        assert faults(options[stage.name], "") + options[stage.name].faults(options) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_stages_stand_after_those_that_they_build_on(system):
    names = [stage.name for stage in SYSTEMS[system].stages]
    for stage in SYSTEMS[system].stages:
        assert all(names.index(other) < names.index(stage.name) for other in stage.builds_on)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_networks_of_a_preset_fit_together(preset):
    options = PRESETS[preset]["unet"]
    vae = AutoencoderKL(PRESETS[preset]["vae"].network)
    conditioner, unet = Conditioner(options.conditioner(vae.config)), UNet2DConditionModel(options.network(vae.config))
    w, h = options.size
    # shapes are known without computing anything
    mean, _ = vae.posterior(jt.zeros(2, 3, h, w))
    latents = (2, 4, h // vae.config.downscale, w // vae.config.downscale)
    assert tuple(mean.shape) == latents
    assert tuple(vae.reconstruct(mean).shape) == (2, 3, h, w)
    reference = {"latents": np.zeros(latents, np.float32), "colors": np.zeros((2, 54), np.float32), "known": np.ones(2, np.float32)}
    conditions = conditioner({"mask": {"mask": np.zeros((2, h, w), np.uint8)}, "reference": reference})
    output = denoise(unet, jt.zeros(*latents), np.array([1, 999]), conditions, options.schedule, options.prediction_type)
    assert tuple(output.shape) == latents


@pytest.mark.parametrize("stage, changed, words", [
    ("unet", {"width": 200}, ["--unet_width 200 is not a multiple of 32"]),
    ("vae", {"height": 100, "crop_width": 100}, ["--vae_height 100", "--vae_crop_width 100 is not a multiple of 8"]),
    ("unet", {"patch_size": 16}, ["--unet_height 192 is not a multiple of 128"]),
    ("vae", {"crop_width": 512, "crop_height": 512}, ["--vae_crop_width 512 is more than --vae_width 256", "--vae_crop_height"]),
    ("vae", {"channels": (32, 50, 96, 96)}, ["--vae_channels: 50"]),
    ("unet", {"channels": (64, 102, 192)}, ["--unet_channels: 102 is not a multiple of --unet_norm_groups"]),
    ("unet", {"patch_size": 6}, ["--unet_width 256 is not a multiple of 96"]),
    ("joint_decoder", {"width": 128, "crop_width": 100}, ["--joint_decoder_width 128, but the UNet's", "--joint_decoder_crop_width"]),
    ("joint", {"width": 128, "crop_width": 100}, ["--joint_width 128, but the UNet's is 256: give that", "--joint_crop_width 100 is not"]),
    ("unet", {"heads": 3}, ["64 is not a multiple of --unet_heads 3", "128 is not a multiple of --unet_heads 3"]),
    ("unet", {"head_channels": 48}, ["--unet_channels: 64 is not a multiple of --unet_head_channels 48"]),
    ("unet", {"attention": (1, 1)}, ["--unet_attention has 2 values for 3 levels"]),
    ("unet", {"mask_channels": (16, 32)}, ["--unet_mask_channels has 2 values"]),
    ("unet", {"prediction_type": "epsilon"}, ["epsilon says nothing of pure noise"]),
])  # fmt: skip
def test_every_fault_between_options_is_named(stage, changed, words):
    options = PRESETS["tiny"] | {stage: replace(PRESETS["tiny"][stage], **changed)}
    found = "; ".join(options[stage].faults(options))
    assert all(word in found for word in words), found


@pytest.mark.parametrize("stage", ["joint", "joint_decoder"])
def test_what_cannot_be_trained_on_together_is_said(stage):
    options = PRESETS["tiny"] | {"unet": replace(PRESETS["tiny"]["unet"], whiten=0, words=1)}
    whitened, masked = options[stage].faults(options)
    assert "--unet_whiten is 0" in whitened and "--unet_words is 1" in masked


def test_what_a_run_cannot_change_are_its_networks_and_its_process():
    tiny, small = PRESETS["tiny"]["unet"], PRESETS["small"]["unet"]
    assert {"channels", "attention", "cross_attention_dim"} <= {*changed_though_fixed(tiny, small)}
    assert changed_though_fixed(tiny, replace(tiny, steps=7, batch_size=3, lr=1.0, drop=0.1)) == []


NUMBERS = [
    (owner, each.name, preset)
    for system in SYSTEMS.values()
    for owner, preset in [(stage.name, system.presets["tiny"][stage.name]) for stage in system.stages]
    for each in fields(preset)
    if several_and_kind(each)[1] in (int, float)
]


@pytest.mark.parametrize("owner, name, preset", NUMBERS, ids=[f"{owner}_{name}" for owner, name, _ in NUMBERS])
def test_no_number_of_a_stage_may_be_negative_or_no_number(owner, name, preset):
    """Rates, weights, norms, sizes: a network that has been trained with one of those is spoilt, and nothing says why."""
    several = isinstance(getattr(preset, name), tuple)
    for value in (-1, math.nan, math.inf):
        wrong = replace(preset, **{name: (value,) if several else value})
        assert any(f"--{owner}_{name} is" in fault for fault in faults(wrong, f"{owner}_"))
