import json
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.presets import PRESETS, vae_config
from tests.golden.networks import VAE, gradient_summary, normal, vae_inputs, weights
from utils.checkpoint import load_strict

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def vae():
    vae = AutoencoderKL(AutoencoderKLConfig(**VAE))
    load_strict(vae, weights({name: weight.shape for name, weight in vae.state_dict().items()}), "networks.py")
    return vae


def error(value, expected):
    """Largest error, in shares of the largest value."""
    return np.abs(value - expected).max() / np.abs(expected).max()


def test_outputs_and_gradients_agree_with_diffusers(vae):
    golden = np.load(GOLDEN / "networks.npz")
    inputs = {name: jt.array(array) for name, array in vae_inputs().items()}
    mean, logvar = vae.posterior(inputs["x"])
    outputs = {"vae/mean": mean, "vae/logvar": logvar, "vae/decoded": vae.reconstruct(inputs["z"])}
    loss = sum((output * jt.array(normal(key, *output.shape))).sum() for key, output in outputs.items())
    parameters = dict(vae.named_parameters())
    gradients = dict(zip(parameters, jt.grad(loss, list(parameters.values())), strict=True))
    for key, output in outputs.items():
        assert error(output.numpy(), golden[key]) < 1e-5, key  # an epsilon of 1e-5 for 1e-6 is above that
    expected = golden["vae/gradients"]
    summary = gradient_summary({name: gradient.numpy() for name, gradient in gradients.items()})
    # the gradient of an attention's key bias is zero but for rounding, hence the absolute part
    off = np.abs(summary - expected).max(axis=1) > 1e-4 * expected[:, 1] + 1e-6 * expected[:, 1].max()
    assert not off.any(), np.array(sorted(gradients))[off]


def test_names_and_shapes_of_stable_diffusion():
    manifest = json.loads((GOLDEN / "manifests.json").read_text())["sd1 vae"]
    vae = AutoencoderKL(vae_config(PRESETS["base"]))  # nothing is computed until a value is asked for
    assert {name: list(weight.shape) for name, weight in vae.state_dict().items()} == manifest


def test_encode_and_decode_scale_the_latents(vae):
    x, z = (jt.array(array) for array in vae_inputs().values())
    scale = vae.config.scaling_factor
    with jt.no_grad():
        mean, logvar = (v.numpy() for v in vae.posterior(x))
        scaled_mean, std = (v.numpy() for v in vae.encode(x))
        decoded, rescaled = vae.reconstruct(z).numpy(), vae.decode(z * scale).numpy()
    np.testing.assert_allclose(scaled_mean, mean * scale, rtol=1e-5)
    np.testing.assert_allclose(std, np.exp(logvar / 2) * scale, rtol=1e-5)
    np.testing.assert_allclose(rescaled, decoded, atol=1e-4)
