import math
from pathlib import Path

import numpy as np
import pytest

from models.metrics.reconstruction import psnr, ssim

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "lpips.npz")
PICTURES, OTHERS = GOLDEN["pictures"], GOLDEN["others"]


@pytest.mark.parametrize("pair", [0, 1])
def test_psnr_and_ssim_agree_with_scikit_image(pair):
    assert psnr(PICTURES[pair], OTHERS[pair]) == pytest.approx(GOLDEN["psnr"][pair], rel=1e-9)
    assert ssim(PICTURES[pair], OTHERS[pair]) == pytest.approx(GOLDEN["ssim"][pair], rel=1e-9)


def test_a_single_channel():
    assert ssim(PICTURES[0, ..., 0], OTHERS[0, ..., 0]) == pytest.approx(float(GOLDEN["ssim_gray"]), rel=1e-9)


def test_a_picture_is_infinitely_close_to_itself():
    flat = np.full((12, 16, 3), 200, np.uint8)
    for picture in (PICTURES[0], flat):
        assert psnr(picture, picture) == math.inf and ssim(picture, picture) == pytest.approx(1)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_cannot_be_compared_is_refused(metric):
    with pytest.raises(ValueError, match="one size"):
        metric(PICTURES[0], OTHERS[0, 1:])
    for a, b in ((PICTURES[0] / 255, OTHERS[0]), (PICTURES[0], OTHERS[0] / 255)):
        with pytest.raises(ValueError, match="uint8"):
            metric(a, b)


def test_ssim_needs_a_window():
    with pytest.raises(ValueError, match="window"):
        ssim(PICTURES[0, :10], OTHERS[0, :10])
