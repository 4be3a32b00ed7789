"""SegFormer against transformers, on the values of tests/golden/export_segformer.py."""

import json
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.pretrained import initialise
from models.networks.segformer import SEGFORMERS, SegformerConfig, SegformerForSemanticSegmentation, interpolation_matrix
from tests.golden.networks import SEGFORMER, gradient_summary, normal, segformer_input, weights
from utils.checkpoint import load_strict, module_arrays, write_safetensors

GOLDEN = Path(__file__).parents[2] / "golden" / "segformer.npz"


def shapes(network):
    return {name: list(weight.shape) for name, weight in network.state_dict().items()}


@pytest.fixture(scope="module")
def network():
    network = SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER))
    arrays = weights(shapes(network))
    arrays["decode_head.batch_norm.running_var"] = np.abs(arrays["decode_head.batch_norm.running_var"]) + np.float32(0.5)
    load_strict(network, arrays, "networks.py")
    return network


def close(value, expected, tolerance=1e-5):
    return np.abs(value.numpy() - expected).max() < tolerance * np.abs(expected).max()


def test_logits_and_gradients_agree_with_transformers(network):
    golden = np.load(GOLDEN)
    pixels = jt.array(segformer_input())
    with jt.no_grad():
        assert close(network(pixels), golden["logits"])
    trained = network(pixels, training=True)
    assert close(trained, golden["trained"])
    norm = network.decode_head.batch_norm
    assert close(norm.running_mean, golden["running_mean"]) and close(norm.running_var, golden["running_var"])
    parameters = {name: weight for name, weight in network.named_parameters() if not weight.is_stop_grad()}
    gradients = jt.grad((trained * jt.array(normal("trained", *trained.shape))).sum(), list(parameters.values()))
    summary = gradient_summary({name: gradient.numpy() for name, gradient in zip(parameters, gradients, strict=True)})
    expected = golden["gradients"]
    # What batch normalisation and the softmax take out again has a gradient of rounding alone: judged by the size of the others
    off = np.abs(summary - expected).max(axis=1) > 1e-4 * np.maximum(expected[:, 1], 0.1 * np.median(expected[:, 1]))
    assert not off.any(), np.array(sorted(parameters))[off]


@pytest.mark.parametrize("name", ["b0", "b5"])
def test_names_and_shapes_of_published_weights(name):
    expected = json.loads(str(np.load(GOLDEN)["names"]))[name]
    assert shapes(SegformerForSemanticSegmentation(SEGFORMERS[name])) == expected


def test_interpolation_keeps_a_constant_and_a_ramp():
    matrix = interpolation_matrix(5, 20)
    assert np.allclose(matrix.sum(axis=1), 1) and (matrix >= 0).all()
    ramp = matrix @ np.arange(5)
    assert np.allclose(np.diff(ramp[2:-2]), 0.25) and ramp[0] == 0 and ramp[-1] == 4
    assert np.array_equal(interpolation_matrix(1, 4), np.ones((4, 1)))


def test_it_starts_from_weights_published_for_other_classes_or_without_a_head(network, tmp_path):
    path = tmp_path / "model.safetensors"
    ade = weights(shapes(SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER, num_labels=150))))
    write_safetensors(path, ade)
    ours = SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER))
    own = module_arrays(ours)
    initialise(ours, path)
    for name, array in module_arrays(ours).items():
        assert np.array_equal(array, (own if ".classifier." in name else ade)[name]), name

    encoder = {name: array for name, array in ade.items() if name.startswith("segformer.")} | {
        "classifier.weight": np.zeros((1000, 24), "f4")
    }
    write_safetensors(path, encoder)
    other = SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER))
    own = module_arrays(other)
    initialise(other, path)
    for name, array in module_arrays(other).items():
        assert np.array_equal(array, (own if name.startswith("decode_head.") else ade)[name]), name
