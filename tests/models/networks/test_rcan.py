"""Against a reference in PyTorch (tests/golden/export_rcan.py), and pictures in pieces."""

import json
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.layers import Conv2d, autocast
from models.networks.pretrained import initialise
from models.networks.rcan import RCAN, RCANConfig, double, double_in_tiles
from models.networks.recompute import recomputation
from models.stages.rcan import start_as_interpolation
from models.training.learner import unfrozen
from tests.golden import networks
from tests.golden.networks import gradient_summary, normal, rcan_input, weights
from utils.checkpoint import load_vars, module_arrays, write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "rcan.npz")


def shapes(variables):
    return {name: list(weight.shape) for name, weight in variables.items()}


@pytest.fixture
def network():
    network = RCAN(RCANConfig(**networks.RCAN))
    load_vars(unfrozen(network), weights(shapes(unfrozen(network))), "networks.py", "RCAN")
    return network


def output_and_gradients(network):
    x, trained = jt.array(rcan_input()), unfrozen(network)
    output = network(x)
    gradients = jt.grad((output * jt.array(normal("rcan", *output.shape))).sum(), [x, *trained.values()])
    by_x, *by_weights = (gradient.numpy() for gradient in gradients)
    return output.numpy(), by_x, gradient_summary(dict(zip(trained, by_weights, strict=True)))


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_output_and_gradients_agree_with_pytorch(network, again):
    with recomputation(again):
        output, by_x, summary = output_and_gradients(network)
    for found, name in ((output, "output"), (by_x, "input_gradient")):
        assert np.abs(found - GOLDEN[name]).max() < 1e-5 * np.abs(GOLDEN[name]).max(), name
    assert (np.abs(summary - GOLDEN["gradients"]) < 1e-4 * GOLDEN["gradients"][:, 1:]).all()


def test_names_shapes_and_number_of_the_published_weights():
    network = RCAN(RCANConfig())  # nothing is computed until a value is asked for
    assert shapes(network.state_dict()) == json.loads(str(GOLDEN["names"]))
    count = {
        name: sum(int(np.prod(weight.shape)) for weight in part.values())
        for name, part in (("all", network.state_dict()), ("trained", unfrozen(network)))
    }
    assert count == {"all": 15_444_667, "trained": 15_444_643}
    assert {"head.0.weight", "body.9.body.19.body.3.conv_du.2.bias", "body.9.body.20.weight", "body.10.weight", "tail.0.0.bias"} <= {
        *unfrozen(network)
    }


def test_it_starts_from_published_weights_with_or_without_the_mean(network, tmp_path):
    arrays = module_arrays(network)
    for left_out in ((), ("sub_mean.", "add_mean.")):
        file = {name: array for name, array in arrays.items() if not name.startswith(left_out or "nothing")}
        write_safetensors(tmp_path / "rcan.safetensors", file)
        other = RCAN(RCANConfig(**networks.RCAN))
        initialise(other, tmp_path / "rcan.safetensors")
        assert all(np.array_equal(array, arrays[name]) for name, array in module_arrays(other).items())
    del file["tail.1.bias"]
    write_safetensors(tmp_path / "rcan.safetensors", file)
    with pytest.raises(UserError, match=r"(?s)rcan\.safetensors does not fit RCAN:.*missing \(1\): tail\.1\.bias$"):
        initialise(other, tmp_path / "rcan.safetensors")


def picture(height, width):
    """Soft shapes with some grain, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + y / b) for a, b in ((9, 14), (17, -8), (-25, 11))]
    return np.uint8((128 + 70 * np.stack(waves, -1) + 8 * normal("grain", height, width, 3)).clip(0, 255))


def levels(a, b):
    return np.abs(a.astype(int) - b)


@pytest.fixture
def near(network):
    """One whose blocks change what it starts with, interpolation, as much as a trained one's do."""
    start_as_interpolation(network)
    network.body[-1].weight.update(jt.array(normal("last", 16, 16, 3, 3) / 600))
    return network


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_gives_the_same_picture(near, dtype):
    expected = double(near, picture(24, 40))
    with autocast(dtype):
        difference = levels(double(near, picture(24, 40)), expected)
    assert 0 < difference.max() <= 2 and difference.mean() < 0.2


@pytest.mark.parametrize("height, width, tile", [(45, 70, 20), (45, 70, 64), (16, 16, 16)])
def test_tiles_give_what_the_whole_gives(network, height, width, tile):
    x = np.float32(picture(height, width).transpose(2, 0, 1)[None])
    with jt.no_grad():
        at_once, tiled = network(jt.array(x)).numpy(), double_in_tiles(network, x, tile)
    assert np.abs(at_once - tiled).max() < 1e-5 * np.abs(at_once).max()


def test_a_picture_in_tiles_is_the_picture(near):
    whole = picture(90, 140)
    at_once, tiled = double(near, whole), double(near, whole, tile=64)
    assert levels(at_once, tiled).max() <= 1  # where rounding falls on the other side
    assert levels(at_once, whole.repeat(2, 0).repeat(2, 1)).mean() > 1.5  # and the network does something
    with autocast("bfloat16"):
        assert levels(double(near, whole), double(near, whole, tile=64)).max() <= 1


def test_no_tile_is_larger_than_it_is_to_be(near, monkeypatch):
    shapes, execute = set(), Conv2d.execute
    monkeypatch.setattr(Conv2d, "execute", lambda self, x: shapes.add(max(x.shape[2:])) or execute(self, x))
    double(near, picture(90, 140), tile=32)
    assert max(shapes) == 2 * (32 + 2 * 2)  # of the doubled picture, with what a tile sees around it


def test_the_border_is_continued_and_sizes_may_be_odd(network):
    start_as_interpolation(network)
    flat = np.full((7, 9, 3), (200, 30, 90), np.uint8)
    assert np.array_equal(double(network, flat), flat.repeat(2, 0).repeat(2, 1))
    assert double(network, flat[:1, :1]).shape == (2, 2, 3)
