import json
from dataclasses import replace
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.systems import SYSTEMS
from tests.golden.networks import TIMESTEPS, UNETS, gradient_summary, normal, unet_inputs, weights
from utils.checkpoint import load_strict

BASE = SYSTEMS["diffusion"].presets["base"]
GOLDEN = Path(__file__).parents[2] / "golden"


def tiny_unet(case):
    unet = UNet2DConditionModel(UNet2DConditionConfig(**UNETS[case]))
    load_strict(unet, weights(shapes(unet)), "networks.py")
    return unet, {name: jt.array(array) for name, array in unet_inputs(case).items()}


def shapes(network):
    return {name: list(weight.shape) for name, weight in network.state_dict().items()}


@pytest.mark.parametrize("case", UNETS)
def test_output_and_gradients_agree_with_diffusers(case):
    golden = np.load(GOLDEN / "networks.npz")
    unet, inputs = tiny_unet(case)
    key = f"unet/{case}"
    output = unet(timestep=TIMESTEPS, **inputs)
    parameters = dict(unet.named_parameters())
    gradients = jt.grad((output * jt.array(normal(key, *output.shape))).sum(), list(parameters.values()))
    assert np.abs(output.numpy() - golden[key]).max() < 1e-5 * np.abs(golden[key]).max()
    expected = golden[f"{key}/gradients"]
    summary = gradient_summary({name: gradient.numpy() for name, gradient in zip(parameters, gradients, strict=True)})
    off = np.abs(summary - expected).max(axis=1) > 1e-4 * expected[:, 1]
    assert not off.any(), np.array(sorted(parameters))[off]


@pytest.mark.parametrize("case, config", [
    ("sd1 unet", UNet2DConditionConfig(cross_attention_dim=768, attention_head_dim=8)),
    ("sd2.1 unet", UNet2DConditionConfig(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)),
])  # fmt: skip
def test_names_and_shapes_of_stable_diffusion(case, config):
    manifest = json.loads((GOLDEN / "manifests.json").read_text())[case]
    assert shapes(UNet2DConditionModel(config)) == manifest  # nothing is computed until a value is asked for


def test_the_base_preset_is_stable_diffusion_with_a_wider_input_and_a_class_embedding():
    manifest = json.loads((GOLDEN / "manifests.json").read_text())["sd1 unet"]
    ours = shapes(UNet2DConditionModel(BASE["unet"].network(BASE["vae"].network)))
    added = {name: ours.pop(name) for name in list(ours) if name.startswith("class_embedding.")}
    assert added["class_embedding.linear_1.weight"] == [1280, 2 * 4 + 54 + 1] and len(added) == 4
    assert ours.pop("conv_in.weight") == [320, 4 + 29, 3, 3] and manifest.pop("conv_in.weight") == [320, 4, 3, 3]
    assert ours == manifest


def test_a_unet_of_words_alone_can_be_stable_diffusion_2():
    """But for what joins the time embedding, and for maps around the transformers that are 1x1 convolutions of the same weights."""
    manifest = json.loads((GOLDEN / "manifests.json").read_text())["sd2.1 unet"]
    options = replace(BASE["unet"], words=2, linear_start=0, cross_attention_dim=1024, head_channels=64)
    config = options.network(BASE["vae"].network)
    ours = {
        name: shape[:2] if ".proj_" in name and shape[2:] == [1, 1] else shape
        for name, shape in shapes(UNet2DConditionModel(config)).items()
    }
    assert config.heads == (5, 10, 20, 20)
    assert {name: shape for name, shape in ours.items() if not name.startswith("class_embedding.")} == manifest


def test_level_features_reach_the_output_from_every_level():
    unet, inputs = tiny_unet("ours")
    zeros = [jt.zeros(2, channels, 8 >> i, 12 >> i) for i, channels in enumerate((32, 32, 64))]
    with jt.no_grad():
        plain = unet(timestep=TIMESTEPS, **inputs).numpy()
        assert np.array_equal(unet(timestep=TIMESTEPS, level_features=zeros, **inputs).numpy(), plain)
        for i in range(len(zeros)):
            features = [f + float(i == j) for j, f in enumerate(zeros)]
            assert np.abs(unet(timestep=TIMESTEPS, level_features=features, **inputs).numpy() - plain).max() > 1e-2
