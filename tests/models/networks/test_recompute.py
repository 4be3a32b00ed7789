"""Recomputation changes what is kept, not what is learnt."""

import jittor as jt
import numpy as np
import pytest

from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.layers import Linear
from models.networks.recompute import recomputation, recomputed
from models.networks.resnet import ResnetBlock2D
from models.networks.segformer import SegformerConfig, SegformerForSemanticSegmentation
from models.networks.text_encoder import small_text_encoder
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from tests.golden.networks import SEGFORMER, TIMESTEPS, UNETS, VAE, normal, segformer_input, unet_inputs, vae_inputs, weights
from utils.checkpoint import load_strict


def with_weights(network):
    load_strict(network, weights({name: weight.shape for name, weight in network.state_dict().items()}), "networks.py")
    return network


def unet():
    inputs = {name: jt.array(array) for name, array in unet_inputs("ours").items()}
    network = with_weights(UNet2DConditionModel(UNet2DConditionConfig(**UNETS["ours"])))
    return network, [inputs["encoder_hidden_states"]], lambda: network(timestep=TIMESTEPS, **inputs)


def autoencoder():
    z = jt.array(vae_inputs()["z"])
    network = with_weights(AutoencoderKL(AutoencoderKLConfig(**VAE)))
    return network, [z], lambda: network.reconstruct(z)


def judge():
    x = jt.array(segformer_input())
    network = with_weights(SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER)))
    return network, [], lambda: network(x, training=True)


def text_encoder():
    network = small_text_encoder(300, channels=16, layers=2, heads=2)
    ids = np.arange(2 * 77).reshape(2, 77) % 300
    return network, [], lambda: network(ids)[0]


@pytest.mark.parametrize("case", [unet, autoencoder, judge, text_encoder])
def test_outputs_and_gradients_are_the_same(case):
    network, inputs, forward = case()
    skipped = ("encoder.", "quant_conv.") if case is autoencoder else ()
    wanted = [*inputs, *(p for name, p in network.named_parameters() if not name.startswith(skipped) and not p.is_stop_grad())]

    def measured(recompute):
        with recomputation(recompute):
            y = forward()
        return [var.numpy() for var in (y, *jt.grad((y * jt.array(normal("dy", *y.shape))).sum(), wanted))]

    plain, again = measured(False), measured(True)
    norm = np.sqrt(sum(np.square(gradient, dtype=np.float64).sum() for gradient in plain[1:]))
    for a, b in zip(plain, again, strict=True):
        assert np.abs(a - b).max() <= 1e-6 * max(np.abs(a).max(), 1e-3 * norm)
    assert norm > 0


def test_a_block_is_computed_once_forward_and_once_more_for_the_gradient(monkeypatch):
    layer, calls = Linear(3, 3), []
    execute = Linear.execute
    monkeypatch.setattr(Linear, "execute", lambda self, x: calls.append(1) or execute(self, x))
    for wanted, expected in ((False, 1), (True, 2)):
        calls.clear()
        with recomputation(wanted):
            y = recomputed(layer, jt.ones((2, 3)))
        jt.grad(y.sum(), [layer.weight])
        assert len(calls) == expected


def test_what_is_frozen_gets_no_gradient_and_hinders_none():
    layer = Linear(3, 3)
    layer.bias.stop_grad()
    with recomputation(True):
        y = recomputed(layer, jt.ones((2, 3)).stop_grad())
    assert np.allclose(jt.grad(y.sum(), [layer.weight])[0].numpy(), 2)
    assert layer.bias.is_stop_grad()


def test_all_that_a_block_keeps_is_its_input():
    """At the peak, which comes while the last block's gradient is computed. (Jittor's profiler knows a maximum since the process began.)"""
    blocks = [ResnetBlock2D(16, 16, None, 4, 1e-6) for _ in range(12)]
    jt.sync([parameter for resnet in blocks for parameter in resnet.parameters()])

    def peak(count):
        x = jt.array(normal("x", 1, 16, 96, 128))
        with recomputation(True):
            for resnet in blocks[:count]:
                x = recomputed(resnet, x)
            loss = x.sqr().mean()
        loss.sync()
        jt.sync(jt.grad(loss, [parameter for resnet in blocks[:count] for parameter in resnet.parameters()], retain_graph=False))
        return int(jt.core.get_max_memory_info().partition("[")[0]) / (4 * 16 * 96 * 128)

    jt.flags.profile_memory_enable = 1
    try:
        few, many = peak(4), peak(12)
    finally:
        jt.flags.profile_memory_enable = 0
    assert few > 4 and many - few < 1.1 * 8
