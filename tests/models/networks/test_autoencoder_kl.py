import json
from itertools import pairwise
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig, tile_starts
from models.networks.layers import autocast
from models.systems import SYSTEMS
from tests.golden.networks import VAE, gradient_summary, normal, vae_inputs, weights
from utils.checkpoint import load_strict

GOLDEN = Path(__file__).parents[2] / "golden"


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
    vae = AutoencoderKL(SYSTEMS["diffusion"].presets["base"]["vae"].network)  # nothing is computed until a value is asked for
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


def test_latents_are_encoded_in_float32_whatever_else_is_not(vae):
    x = jt.array(vae_inputs()["x"])
    plain = vae.encode(x)
    with autocast("bfloat16"):
        within = vae.encode(x)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(plain, within, strict=True))


def test_tiles_cover_all_and_overlap_by_a_quarter():
    for cells in range(1, 70):
        for tile in range(4, cells + 1):
            starts = tile_starts(cells, tile)
            assert (starts[0], starts[-1]) == (0, cells - tile)
            assert all(0 < b - a <= np.ceil(tile * 3 / 4) for a, b in pairwise(starts))


def test_tiles_fade_into_each_other(vae, monkeypatch):
    """What is decoded alike in every tile comes out as from the whole; what jumps from tile to tile comes out without an edge."""
    z, f = normal("z", 1, 4, 13, 22), vae.config.downscale
    whole = z.repeat(f, axis=2).repeat(f, axis=3)[:, :3]
    shapes = set()

    def decode(part, tone=lambda: 0.0):
        shapes.add(tuple(part.shape))
        return jt.array(part.numpy().repeat(f, axis=2).repeat(f, axis=3)[:, :3] + np.float32(tone()))

    monkeypatch.setattr(vae, "decode", decode)
    np.testing.assert_allclose(vae.decode_in_tiles(jt.array(z), 8), whole, atol=1e-5)
    assert shapes == {(1, 4, 8, 8)}
    np.testing.assert_allclose(vae.decode_in_tiles(jt.array(z), 64), whole, atol=1e-5)
    tones = np.random.default_rng(0)
    monkeypatch.setattr(vae, "decode", lambda part: decode(part, tones.random))
    faded = vae.decode_in_tiles(jt.array(0 * z), 8)
    assert faded.std() > 0.1
    assert max(np.abs(np.diff(faded, axis=axis)).max() for axis in (2, 3)) < 1.1 / (8 * f / 4)  # the jump, over the overlap


def test_one_tile_is_the_whole(vae):
    z = jt.array(vae_inputs()["z"])
    with jt.no_grad():
        np.testing.assert_allclose(vae.decode_in_tiles(z, 64), vae.decode(z).numpy(), atol=1e-5)
