from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.layers import autocast
from models.networks.lpips import LPIPS, load_lpips, lpips, unit_channels
from tests.golden.networks import weights
from utils.checkpoint import write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "lpips.npz")


def drawn(network):
    """The weights of export_lpips.py."""
    arrays = weights({name: list(weight.shape) for name, weight in LPIPS(network).state_dict().items()})
    return {name: np.abs(array) if name.startswith("lin") else array for name, array in arrays.items()}


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_distances_agree_with_the_package(network, tmp_path):
    arrays = drawn(network)
    classifier = {name: array for name, array in arrays.items() if name.startswith("features.")}
    write_safetensors(tmp_path / "classifier", classifier | {"classifier.6.bias": np.zeros(1000, np.float32)})
    write_safetensors(tmp_path / "lin", {name: arrays[name] for name in arrays.keys() - classifier.keys()})
    model = load_lpips(network, tmp_path / "classifier", tmp_path / "lin")
    distances = lpips(model, GOLDEN["pictures"], GOLDEN["others"])
    assert distances.dtype == np.float32 and np.abs(distances / GOLDEN[network] - 1).max() < 2e-6
    assert not lpips(model, GOLDEN["pictures"], GOLDEN["pictures"]).any()
    with autocast("bfloat16"):
        assert np.array_equal(lpips(model, GOLDEN["pictures"], GOLDEN["others"]), distances)
    with pytest.raises(ValueError, match="no pairs"):
        lpips(model, GOLDEN["pictures"], GOLDEN["others"][:1])


def test_weights_of_the_other_network_are_told(tmp_path):
    write_safetensors(tmp_path / "lin", {name: array for name, array in drawn("alex").items() if name.startswith("lin")})
    write_safetensors(tmp_path / "classifier", {"features.0.weight": np.zeros((64, 3, 3, 3)), "features.0.bias": np.zeros(64)})
    with pytest.raises(UserError, match=r"missing(.|\n)*lin1.model.1.weight \[1, 192, 1, 1\] instead of \[1, 128, 1, 1\]"):
        load_lpips("vgg", tmp_path / "classifier", tmp_path / "lin")


def test_the_gradient_is_finite_where_all_features_are_zero():
    x = jt.array(np.float32([[[[0, 3]], [[0, 4]]]]))  # two channels, two places
    gradient = jt.grad(unit_channels(x).sum(), x).numpy()
    assert np.isfinite(gradient).all()
    assert np.allclose(gradient[0, :, 0, 1], [0.032, -0.024])  # (1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5
