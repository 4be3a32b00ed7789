"""Against efficientnet-lite-pytorch, with the published weights (tests/golden/export_efficientnet_lite.py)."""

import json
from pathlib import Path

import cv2
import jittor as jt
import numpy as np
import pytest

from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.layers import autocast
from models.networks.weights import LITE0, LITE1, packaged_weights
from models.training.learner import unfrozen
from tests.golden.networks import lite_pictures
from utils.checkpoint import read_weights, write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "efficientnet_lite.npz")
FILES = {"lite0": LITE0, "lite1": LITE1}
BLOCKS = {which: sorted(int(key.split("block")[1]) for key in GOLDEN if key.startswith(f"{which}/block")) for which in FILES}


@pytest.fixture(scope="module", params=FILES)
def which(request):
    return request.param


@pytest.fixture(scope="module")
def network(which):
    return load_efficientnet_lite(which, packaged_weights(FILES[which]))


def close(ours, theirs, tolerance=1e-5):
    return ours.shape == theirs.shape and np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


def test_features_and_their_gradient_agree_with_pytorch(which, network):
    x = jt.array(lite_pictures("even") / np.float32(255))
    maps = network.features(x, BLOCKS[which])
    gradient = jt.grad(sum(y.sqr().mean() for y in maps), x)
    for i, y in zip(BLOCKS[which], maps, strict=True):
        assert close(y.numpy()[:, ::8], GOLDEN[f"{which}/block{i}"])
    assert close(gradient.numpy()[:, :, ::3, ::3], GOLDEN[f"{which}/gradient"], 1e-4)


@pytest.mark.parametrize("name", ["even", "odd"])
def test_pooled_features_agree_with_pytorch_for_every_size(which, network, name):
    pictures = lite_pictures(name)
    pooled = network(jt.array(pictures / np.float32(255))).numpy()
    assert close(pooled, GOLDEN[f"{which}/{name}"])
    alone = network(jt.array(pictures[1:] / np.float32(255))).numpy()
    assert close(alone, pooled[1:])


def test_maps_are_those_asked_for_and_nothing_is_trained(network):
    x = jt.array(lite_pictures("even") / np.float32(255))
    for y, i in zip(network.features(x, (5, 2)), (2, 5), strict=True):  # in the network's order
        assert np.array_equal(y.numpy(), network.features(x, [i])[0].numpy())
    assert all(weight.is_stop_grad() for weight in network.parameters()) and not unfrozen(network)


def test_mixed_precision_around_it_changes_nothing(network):
    x = jt.array(lite_pictures("even") / np.float32(255))

    def features_and_gradient(x):
        (y,) = network.features(x, [12])
        return y.numpy(), jt.grad(y.sqr().mean(), x).numpy(), network(x).numpy()

    expected = features_and_gradient(x)
    with autocast("bfloat16"):
        found = features_and_gradient(x)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_pictures_are_averaged_where_they_shrink(network):
    picture = np.random.default_rng(0).integers(0, 256, (384, 512, 3), np.uint8)
    small = cv2.resize(picture, (256, 192), interpolation=cv2.INTER_AREA)
    one, two = lite_features(network, [picture, small])
    assert np.array_equal(one, two) and one.shape == (1280,) and one.dtype == np.float32


def test_names_are_the_published_ones_and_loading_is_strict(which, network, tmp_path):
    arrays = read_weights(packaged_weights(FILES[which]))
    names = json.loads(str(GOLDEN[f"{which}/names"]))
    assert {name: list(array.shape) for name, array in arrays.items() if not name.endswith("num_batches_tracked")} == names
    own = set(network.state_dict())
    assert own - set(names) == {f"{name.removesuffix('weight')}bias" for name in own if name.endswith(".weight")}
    del arrays["_blocks.3._bn1.running_var"]
    arrays["_fc.weight"], arrays["_bn9.weight"] = arrays["_fc.weight"][:7], np.zeros(3, np.float32)
    write_safetensors(tmp_path / "damaged.safetensors", arrays)
    with pytest.raises(
        UserError, match=r"(?s)damaged\.safetensors.*missing \(1\): _blocks\.3\._bn1\.running_var.*_bn9\.weight.*_fc\.weight \[7,"
    ):
        load_efficientnet_lite(which, tmp_path / "damaged.safetensors")


def test_the_weights_of_the_other_are_refused():
    with pytest.raises(UserError, match=r"(?s)lite1-.*does not fit.*unexpected"):
        load_efficientnet_lite("lite0", packaged_weights(LITE1))
