"""What a generative adversarial network is shown belongs together, and the reference gives no layout away."""

import numpy as np
import pytest

from datasets.pairs import Pair
from models.stages.photos import SHARE, PhotosWithMasks, seen_apart
from utils.image import write_png

SIZE = (32, 24)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A photo that shows its own mask: every pixel is ten times its class."""
    root = tmp_path_factory.mktemp("data")
    mask = np.arange(24)[:, None].repeat(32, 1).astype(np.uint8)
    mask[:, 16:] = np.arange(24)[::-1, None] // 2
    write_png(root / "mask.png", mask)
    write_png(root / "photo.png", np.repeat(10 * mask[..., None], 3, axis=2))
    return [Pair("a", root / "photo.png", root / "mask.png")]


def test_photo_and_mask_are_mirrored_together_and_in_training_alone(pairs):
    def shown(whole):
        dataset = PhotosWithMasks(pairs, SIZE, whole)
        examples = [dataset.example(0, np.random.default_rng(i)) for i in range(40)]
        assert all(example.keys() == {"image", "mask"} for example in examples)
        for example in examples:
            np.testing.assert_allclose((example["image"][0] + 1) * 127.5, 10 * example["mask"], atol=1e-3)
        return np.mean([example["mask"][0, 0] == 0 for example in examples])

    assert shown(whole=True) == 1 and 0.2 < shown(whole=False) < 0.8


def test_the_places_of_classes_are_those_of_the_mask_as_it_is_shown(pairs):
    dataset = PhotosWithMasks(pairs, SIZE, whole=False, pixels=3)
    for seed in range(8):  # mirrored and not
        example = dataset.example(0, np.random.default_rng(seed))
        labels, i = np.nonzero(example["pixels"] >= 0)
        assert len(labels) > 30 and np.array_equal(example["mask"].ravel()[example["pixels"][labels, i]], labels)


def test_everything_random_comes_from_the_generator_and_the_reference_is_on_its_own_account(pairs):
    dataset = PhotosWithMasks(pairs, SIZE, whole=True, reference=(16, 16), noise=5)
    a, b, c = (dataset.example(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert {name: array.shape for name, array in a.items()} == {"image": (3, 24, 32), "mask": (24, 32), "reference": (3, 16, 16), "z": (5,)}
    assert all(np.array_equal(a[name], b[name]) for name in a) and a["image"].dtype == a["reference"].dtype == a["z"].dtype == np.float32
    assert np.array_equal(a["image"], c["image"])
    assert not np.array_equal(a["reference"], c["reference"]) and not np.array_equal(a["z"], c["z"])


def test_a_reference_is_a_part_of_the_photo_of_another_shape_and_place():
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.arange(200), 2 * np.arange(100)[:, None]  # where a pixel comes from
    parts = [(seen_apart(photo, (40, 40), np.random.default_rng(i)) + 1) * 127.5 for i in range(60)]
    mirrored = np.mean([part[0, 20, 3] > part[0, 20, -4] for part in parts])
    widths = np.array([abs(part[0, 20, -4] - part[0, 20, 3]) / 200 * 40 / 33 for part in parts])
    heights = np.array([(part[1, -4, 20] - part[1, 3, 20]) / 200 * 40 / 33 for part in parts])
    for shares in (widths, heights):
        assert SHARE[0] - 0.02 < shares.min() < SHARE[0] + 0.1 and SHARE[1] - 0.1 < shares.max() < SHARE[1] + 0.02
    assert 0.2 < mirrored < 0.8 and np.std([part[1, 20, 20] for part in parts]) > 5
