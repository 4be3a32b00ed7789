import json
from pathlib import Path

import numpy as np
import pytest

from models.networks import inception
from models.networks.inception import Inception, inception_features, load_inception, preprocess
from tests.golden.networks import inception_weights
from utils.checkpoint import write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "inception.npz")
NAMES = json.loads(str(GOLDEN["names"]))


@pytest.fixture(scope="module")
def published():
    """The arrays of a file that fits, with the weights of export_inception.py."""
    return inception_weights(NAMES)


def test_names_and_shapes_are_those_of_the_published_file():
    assert {name: list(weight.shape) for name, weight in Inception().state_dict().items()} == NAMES


def test_features_agree_with_pytorch_fid(published, tmp_path):
    path = tmp_path / "inception.safetensors"
    write_safetensors(path, published | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array([7])})
    network = load_inception(path)
    path.unlink()
    halfway, mixed_7a = [], network.Mixed_7a
    network.Mixed_7a = lambda x: halfway.append(x.mean([2, 3])) or mixed_7a(x)
    features = inception_features(network, GOLDEN["pictures"])
    assert features.shape == (2, 2048) and features.dtype == np.float32
    for ours, theirs in ((halfway[0].numpy(), GOLDEN["mixed_6e"]), (features, GOLDEN["features"])):
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
        # what distinguishes the two pictures is a small part of the features
        assert np.abs(np.ptp(ours, axis=0) - np.ptp(theirs, axis=0)).max() < 1e-4 * np.ptp(theirs, axis=0).max()


def test_pictures_are_interpolated_where_they_shrink_not_averaged():
    picture = np.zeros((1, 5, 897, 3), np.uint8)  # 299 columns of 3 pixels: each is its middle pixel
    picture[..., 1::3, :] = 255
    picture[..., ::3, 0] = 100
    assert np.array_equal(preprocess(picture), np.ones((1, 3, 299, 299)))


@pytest.mark.parametrize("pictures", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)])
def test_what_is_no_batch_of_pictures_is_refused(pictures):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        preprocess(pictures)


def test_the_weights_of_imagenet_are_refused(published, monkeypatch):
    imagenet = published | {"fc.weight": np.zeros((1000, 2048), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    monkeypatch.setattr(inception, "read_weights", lambda path: imagenet)
    with pytest.raises(UserError, match=r"(?s)inception_v3_google.*fc.weight.*pt_inception-2015-12-05"):
        load_inception("inception_v3_google.pth")


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"(?s)weights\.pth.*pt_inception-2015-12-05"):
        load_inception(tmp_path / "weights.pth")
