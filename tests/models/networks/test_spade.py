"""SPADE, ECGAN, their discriminator and their losses against PyTorch, on the values of tests/golden/export_gan.py."""

from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.losses import perceptual
from models.losses.adversarial import discriminator_hinge, feature_matching, generator_hinge, scores
from models.losses.contrastive import pixel_contrast
from models.losses.reconstruction import kl_divergence
from models.networks.conditioner import one_hot
from models.networks.discriminators import MultiscaleDiscriminator
from models.networks.ecgan import ECGAN, ECGANConfig, sampled
from models.networks.layers import NORMS, resize_nearest, standardize
from models.networks.recompute import recomputation
from models.networks.spade import SPADEResBlock
from models.networks.vgg import VGG19Features
from models.systems import SYSTEMS
from tests.golden.networks import GAN, gan_inputs, gradient_summary, normal, weights
from utils.checkpoint import load_strict, write_safetensors

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "gan.npz")
WEIGHTS = {"image": 1, "edge": 1, "result": 2}


def loaded(network):
    load_strict(network, weights({name: tuple(weight.shape) for name, weight in network.state_dict().items()}), "networks.py")
    return network


def close(value, expected, tolerance=1e-4):
    value = value.numpy() if isinstance(value, jt.Var) else value
    return np.abs(value - expected).max() < tolerance * np.abs(expected).max()


def gradients(loss, network):
    parameters = {name: p for name, p in network.named_parameters() if not p.is_stop_grad()}
    found = jt.grad(loss, list(parameters.values()), retain_graph=False)
    return gradient_summary({name: gradient.numpy() for name, gradient in zip(parameters, found, strict=True)})


def gradients_agree(found, expected):
    """Each norm, and each product with a direction, to 1e-4 of the norm, or 1e-6 of the largest: a bias before a normalisation has none."""
    return (np.abs(found - expected) < np.maximum(1e-4 * expected[:, 1:], 1e-6 * expected[:, 1].max())).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_block_agrees_with_pytorch(norm):
    block, label = loaded(SPADEResBlock(8, 6, 29, norm, 7)), one_hot(jt.array(gan_inputs()["mask"]), 29)
    y = block(jt.array(normal("features", 2, 8, 16, 24)), label)
    assert close(y, GOLDEN[f"block_{norm}"])
    assert gradients_agree(gradients((y * jt.array(normal("direction", *y.shape))).sum(), block), GOLDEN[f"block_{norm}_gradients"])


@pytest.mark.parametrize("changed", [{"size": (49, 32)}, {"size": (48, 0)}, {"style_size": 17}])
def test_pictures_that_cannot_be_halved_are_refused(changed):
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        ECGAN(ECGANConfig(**GAN | changed))


@pytest.fixture
def generator():
    return loaded(ECGAN(ECGANConfig(**GAN)))


@pytest.fixture
def discriminator():
    return loaded(MultiscaleDiscriminator(32, 8))


def painted(generator):
    given = {name: jt.array(array) for name, array in gan_inputs().items()}
    mean, logvar = generator.encoder(given["reference"])
    return mean, logvar, generator(given["mask"], sampled(mean, logvar, given["z"]))


def test_the_generator_agrees_with_pytorch(generator):
    mean, logvar, pictures = painted(generator)
    found = {"mean": mean, "logvar": logvar} | {name: getattr(pictures, name) for name in ("result", "image", "edge")}
    assert all(close(value, GOLDEN[name]) for name, value in found.items())


def test_without_edge_branch_it_is_plain_spade():
    given = {name: jt.array(gan_inputs()[name]) for name in ("mask", "z")}
    pictures = loaded(ECGAN(ECGANConfig(**GAN, edge_branch=False)))(given["mask"], given["z"])
    assert close(pictures.result, GOLDEN["plain"]) and pictures.edge is None and pictures.image is pictures.result


@pytest.mark.parametrize("recompute", [False, True])
def test_the_losses_of_a_step_and_their_gradients_agree_with_pytorch(generator, discriminator, recompute):
    given = {name: jt.array(array) for name, array in gan_inputs().items()}
    label = one_hot(given["mask"], 29)
    with jt.no_grad():
        truth = {name: discriminator(jt.concat([label, given[name]], dim=1)) for name in ("image", "edge")}
    assert all(close(score, GOLDEN[f"scores_{i}"]) for i, score in enumerate(scores(truth["image"])))
    real = truth | {"result": truth["image"]}
    with recomputation(recompute):
        mean, logvar, pictures = painted(generator)
        made = {name: jt.concat([label, getattr(pictures, name)], dim=1) for name in WEIGHTS}
        outputs = discriminator(jt.concat(list(made.values())))  # all at once: a call sets `u`
        fake = {name: [[map_[2 * i : 2 * i + 2] for map_ in maps] for maps in outputs] for i, name in enumerate(made)}
        losses = {
            "adversarial": sum(w * generator_hinge(scores(fake[name])) / 2 for name, w in WEIGHTS.items()),
            "feature": sum(w * feature_matching(fake[name], real[name]) for name, w in WEIGHTS.items()),
            "kl": 5 * kl_divergence(mean, (0.5 * logvar).exp(), logvar),
        }
        judged = sum(w * discriminator_hinge(scores(real[name]), scores(fake[name])) / 2 for name, w in WEIGHTS.items())
        assert all(close(loss, GOLDEN[f"loss_{name}"]) for name, loss in (losses | {"discriminator": judged}).items())
        found = gradients(losses["adversarial"] + 10 * losses["feature"] + 0.05 * losses["kl"], generator)
    assert gradients_agree(found, GOLDEN["gradients"])


def test_the_perceptual_loss_is_that_of_vgg19_where_its_weights_are(tmp_path, monkeypatch):
    shapes = {name: tuple(weight.shape) for name, weight in VGG19Features().state_dict().items()}
    others = {"features.34.bias": np.zeros(512, np.float32), "classifier.0.bias": np.zeros(7, np.float32)}  # of layers that are not needed
    write_safetensors(tmp_path / "vgg", weights(shapes) | others)
    monkeypatch.setattr(perceptual, "find_weights", lambda folder, *names: [tmp_path / "vgg"])
    loss = perceptual.PerceptualLoss("test")
    made, true = (jt.array(gan_inputs()[name]) for name in ("image", "edge"))
    distance = loss(made, true)
    assert isinstance(loss.network, VGG19Features) and close(distance, GOLDEN["loss_vgg"])
    assert close(jt.grad(distance, made), GOLDEN["vgg_gradient"], 1e-3)  # of a maximum of two that are nearly equal, either may be taken


def test_the_contrastive_loss_agrees_with_pytorch():
    labels = np.array([0, 3, 3, 0, 7, 3, 0, 11, 11, 0])
    pixels = normal("pixels", len(labels), 5)
    pixels = jt.array(pixels / np.linalg.norm(pixels, axis=1, keepdims=True))
    loss = pixel_contrast(pixels, labels, 0.1)
    assert close(loss, GOLDEN["loss_contrastive"])
    assert close(jt.grad(loss, pixels), GOLDEN["contrastive_pixels"])
    assert pixel_contrast(pixels, np.zeros(10), 0.1).item() == pytest.approx(0, abs=1e-5)  # a mask of one class: nothing to tell apart
    assert pixel_contrast(pixels, np.arange(10), 0.1).item() == 0  # nor anything to bring together


def test_the_published_shapes_have_as_many_weights():
    options = SYSTEMS["ecgan"].presets["base"]["ecgan"]
    plain = ECGANConfig(**{**vars(options.network), "edge_branch": False})
    networks = [ECGAN(options.network), ECGAN(plain), MultiscaleDiscriminator(32), SPADEResBlock(1024, 1024, 29, "instance")]
    counts = [sum(p.numel() for name, p in network.named_parameters() if not name.endswith(".u")) for network in networks]
    assert counts == GOLDEN["counts"].tolist()


def test_labels_are_resized_as_pytorch_does_and_statistics_are_those_that_are_named():
    x = jt.array(normal("x", 3, 6, 4, 8))
    assert np.array_equal(resize_nearest(x, 2, 2).numpy(), x.numpy()[:, :, ::2, ::4])
    for norm, axes in {"instance": (2, 3), "batch": (0, 2, 3)}.items():
        y = standardize(10 + x, norm).numpy()
        assert np.allclose(y.mean(axis=axes), 0, atol=1e-5) and np.allclose(y.std(axis=axes), 1, atol=1e-4)
    y = standardize(10 + x, "group").numpy().reshape(3, 3, -1)  # of 6 channels 2 at a time
    assert np.allclose(y.mean(axis=2), 0, atol=1e-5) and np.allclose(y.std(axis=2), 1, atol=1e-4)
