import numpy as np
import pytest
from PIL import Image

from datasets.degradation import BLUR, NOISE, degraded, halved
from datasets.synthetic.render import draw


@pytest.fixture(scope="module")
def photo():
    return draw(3, 1, (128, 96))[0]


def test_a_half_is_pillows_bicubic_one(photo):
    half = halved(photo)
    assert half.shape == (48, 64, 3) and half.dtype == np.uint8
    assert np.array_equal(half, np.array(Image.fromarray(photo).resize((64, 48), Image.Resampling.BICUBIC)))
    assert np.array_equal(halved(np.full((4, 6, 3), 77, np.uint8)), np.full((2, 3, 3), 77, np.uint8))


def test_faults_follow_from_the_generator_and_differ(photo):
    half = halved(photo)
    seen = {}
    for seed in range(80):
        first, again = (degraded(half, np.random.default_rng(seed)) for _ in range(2))
        assert first.shape == half.shape and first.dtype == np.uint8 and np.array_equal(first, again)
        seen[first.tobytes()] = np.abs(first.astype(int) - half).mean()
    errors = np.array([*seen.values()])
    assert 80 * 0.7 < len(seen) < 80 and 0 in errors  # some get no fault at all, the others each their own
    assert np.median(errors) > 0.5 and errors.max() < 2 * NOISE


def test_faults_are_slight(photo):
    """Blur of less than a pixel or about it, and noise of a few levels: the picture stays what it was."""
    half = halved(photo)
    assert BLUR <= 1 and NOISE <= 6
    for seed in range(20):
        assert np.corrcoef(degraded(half, np.random.default_rng(seed)).ravel(), half.ravel())[0, 1] > 0.95
