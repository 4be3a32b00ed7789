"""LGGAN's generator against PyTorch, on the values of tests/golden/export_lggan.py."""

from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.discriminators import MultiscaleDiscriminator
from models.networks.layers import autocast
from models.networks.lggan import LGGAN, LGGANConfig
from models.networks.recompute import recomputation
from tests.golden.networks import LGGAN as SMALL
from tests.golden.networks import gradient_summary, lggan_inputs, normal, weights
from utils.checkpoint import load_strict

GOLDEN = Path(__file__).parents[2] / "golden" / "lggan.npz"
OUTPUTS = ("final", "global", "local", "classes", "logits")


@pytest.fixture
def generator():
    network = LGGAN(LGGANConfig(**SMALL))
    load_strict(network, weights({name: weight.shape for name, weight in network.state_dict().items()}), "networks.py")
    return network


def outputs_of(generator, mask):
    painted = generator(mask)
    pictures = [picture[:, :, ::2, ::2] for picture in painted.pictures]
    classes = painted.classes.reshape(len(mask), -1, mask[0].size).mean(dim=2)
    return dict(zip(OUTPUTS, (*pictures, classes, painted.logits), strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_outputs_and_gradients_agree_with_pytorch(generator, recompute):
    golden = np.load(GOLDEN)
    with recomputation(recompute):
        outputs = outputs_of(generator, lggan_inputs()["mask"])
    for name, output in outputs.items():
        assert np.abs(output.numpy() - golden[name]).max() < 1e-4 * np.abs(golden[name]).max(), name
    product = sum((output * jt.array(normal(name, *output.shape))).sum() for name, output in outputs.items())
    assert_gradients(generator, product, golden["gradients"])


def assert_gradients(network, loss, expected, tolerance=1e-4):
    parameters = dict(network.named_parameters())
    wanted = {name: parameter for name, parameter in parameters.items() if not parameter.is_stop_grad()}
    gradients = jt.grad(loss, list(wanted.values()))
    summary = gradient_summary({name: gradient.numpy() for name, gradient in zip(wanted, gradients, strict=True)})
    # A bias that normalisation takes out again has a gradient of rounding alone: judged by the size of the others
    off = np.abs(summary - expected).max(axis=1) > tolerance * np.maximum(expected[:, 1], np.median(expected[:, 1]))
    assert not off.any(), np.array(sorted(wanted))[off]


def test_the_published_shape_has_as_many_weights():
    networks = LGGAN(LGGANConfig()), MultiscaleDiscriminator(32)
    counts = [sum(p.numel() for p in network.parameters() if not p.is_stop_grad()) for network in networks]
    assert counts == np.load(GOLDEN)["parameters"].tolist()


def test_a_batch_is_its_pictures_one_by_one(generator):
    mask = lggan_inputs()["mask"]
    with jt.no_grad():
        together = generator(mask)
        alone = [generator(mask[i : i + 1]) for i in range(2)]
    for i in range(2):
        for a, b in zip(together, alone[i], strict=True):
            np.testing.assert_allclose(a[i].numpy(), b[0].numpy(), atol=2e-5)


def test_a_pixel_without_class_and_mixed_precision(generator):
    mask = lggan_inputs()["mask"].copy()
    with jt.no_grad():
        exact = generator(mask)
        with autocast("bfloat16"):
            rough = generator(mask)
        mask[:, :32] = 255
        unknown = generator(mask)
    for a, b in zip(exact.pictures, rough.pictures, strict=True):
        assert 0 < np.abs(a.numpy() - b.numpy()).mean() < 0.05
    assert np.isfinite(unknown.final.numpy()).all() and np.abs(unknown.final.numpy() - exact.final.numpy()).mean() > 0.01
