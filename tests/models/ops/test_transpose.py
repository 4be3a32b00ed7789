import jittor as jt
import numpy as np
import pytest

from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import Conditioner, denoise
from models.networks.segformer import SEGFORMERS, SegformerForSemanticSegmentation
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.ops.transpose import swap_last_axes
from tests.golden.networks import VAE
from tests.small import OPTIONS


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (2, 4, 3, 5)])
def test_the_last_axes_are_exchanged(shape, cuda, monkeypatch):
    monkeypatch.setattr("models.ops.transpose.on_cuda", lambda: cuda)
    x, dy = (np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in range(2))
    var = jt.array(x)
    y = swap_last_axes(var)
    assert np.array_equal(y.numpy(), x.swapaxes(-1, -2))
    gradient = jt.grad((y * jt.array(dy.swapaxes(-1, -2))).sum(), var)
    assert np.array_equal(gradient.numpy(), dy)


def main_system():
    vae, options = OPTIONS["vae"].network, OPTIONS["unet"]
    unet, conditioner = UNet2DConditionModel(options.network(vae)), Conditioner(options.conditioner(vae))
    latents = np.ones((2, 4, 8, 12), np.float32)
    reference = {"latents": latents, "colors": np.ones((2, 54), np.float32), "known": np.ones(2, np.float32)}
    conditions = conditioner({"mask": {"mask": np.zeros((2, 64, 96), np.uint8)}, "reference": reference})
    y = denoise(unet, jt.array(latents), np.array([1, 2]), conditions, options.schedule, options.prediction_type)
    return y, [*unet.parameters(), *conditioner.parameters()]


def autoencoder():
    vae = AutoencoderKL(AutoencoderKLConfig(**VAE))
    mean, _ = vae.posterior(jt.ones((1, 3, 32, 48)))
    return vae.reconstruct(mean), vae.parameters()


def judge():
    segformer = SegformerForSemanticSegmentation(SEGFORMERS["b0"])
    return segformer(jt.ones((1, 3, 64, 96)), training=True), segformer.parameters()


@pytest.mark.parametrize("network", [main_system, autoencoder, judge])
def test_nothing_is_transposed_by_the_host(network, monkeypatch):
    """The graph of a training step, which is not run; the attention is the one that a GPU without tensor cores gets."""
    for module in ("ops.attention", "ops.transpose", "ops.one_hot", "networks.conditioner"):
        monkeypatch.setattr(f"models.{module}.on_cuda", lambda: True)
    y, parameters = network()
    gradients = jt.grad(y.sum(), parameters)
    operators = {node.split(",")[1].split("->")[0] for node in jt.dump_all_graphs().nodes_info if node.startswith("Op")}
    assert len(gradients) == len(parameters)
    assert "fuse_transpose" in operators and "transpose" not in operators
