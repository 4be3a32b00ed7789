"""Style similarity against a transcription that goes from pixel to pixel in uint8 arithmetic."""

import cv2
import numpy as np
import pytest

from models.metrics.style import STYLE_METRICS, style_parts, style_similarity

LITERAL = {"faithful": (np.uint8, 71), "corrected": (np.uint16, 72)}  # type of the indices, end of the HSV histogram's range


def literal_parts(result, reference, metric):
    pairs = zip(literal_histograms(result, *LITERAL[metric]), literal_histograms(reference, *LITERAL[metric]), strict=True)
    rgb, hsv = (cv2.compareHist(a, b, cv2.HISTCMP_CORREL) for a, b in pairs)
    return {"rgb": rgb, "hsv": hsv}


def literal_histograms(image, dtype, hsv_range):
    """The RGB and the HSV histogram, pixel after pixel, every number a `dtype`."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    rgb_index, hsv_index = np.zeros(image.shape[:2], dtype), np.zeros(image.shape[:2], dtype)
    with np.errstate(over="ignore"):
        for place in np.ndindex(image.shape[:2]):
            b, g, r = (dtype(level) // dtype(16) for level in bgr[place])
            rgb_index[place] = b * dtype(16) * dtype(16) + g * dtype(16) + r
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        for place in np.ndindex(image.shape[:2]):
            h, s, v = (dtype(level) for level in hsv[place])
            degrees = h * dtype(2)
            hsv_index[place] = dtype(9) * dtype(hue_bin(degrees)) + dtype(3) * dtype(level_bin(s)) + dtype(level_bin(v))
    rgb = cv2.calcHist([rgb_index], [0], None, [4096], [0, 4096])
    return rgb, cv2.calcHist([hsv_index], [0], None, [72], [0, hsv_range])


def hue_bin(degrees):
    if degrees <= 20 or degrees > 315:
        return 0
    for bin_, end in enumerate((40, 75, 155, 190, 270, 295, 315), 1):
        if degrees <= end:
            return bin_


def level_bin(level):
    return 0 if level <= 51 else 1 if level <= 178 else 2


def noise(seed, size=(24, 32)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def landscape(seed, size=(36, 48)):
    """A sky that fades, hills with texture, and something purple."""
    rng = np.random.default_rng(seed)
    height, width = size
    image = np.empty((height, width, 3))
    sky, land = rng.uniform((80, 120, 170), (180, 190, 255)), rng.uniform((40, 60, 20), (150, 130, 90))
    image[:] = sky + np.linspace(-40, 40, height)[:, None, None]
    image[height // 2 :] = land + rng.normal(0, 15, (height - height // 2, width, 1))
    image[-6:, :12] = (150, 60, 200)
    return image.clip(0, 255).astype(np.uint8)


def flat(colour):
    return np.full((4, 6, 3), colour, np.uint8)


def of_hsv(h, s=200, v=200):
    colour = cv2.cvtColor(np.full((4, 6, 3), (h, s, v), np.uint8), cv2.COLOR_HSV2RGB)
    assert cv2.cvtColor(colour, cv2.COLOR_RGB2HSV)[0, 0, 0] == h
    return colour


@pytest.mark.parametrize("metric", STYLE_METRICS)
@pytest.mark.parametrize("picture", [noise, landscape])
def test_agrees_with_pixel_by_pixel(metric, picture):
    for seed in range(3):
        result, reference = picture(seed), picture(seed + 10, size=(20, 28))
        parts, literal = style_parts(result, reference, metric), literal_parts(result, reference, metric)
        assert parts == pytest.approx(literal, abs=1e-12)
        assert style_similarity(result, reference, metric) == pytest.approx(np.mean(list(literal.values())), abs=1e-12)


@pytest.mark.parametrize("metric", STYLE_METRICS)
def test_every_hue_saturation_and_value_falls_into_its_bin(metric):
    dtype, hsv_range = LITERAL[metric]
    ramp = np.arange(256)
    full = np.full(256, 255)
    colours = [of_hsv(h, 255, 255)[0, 0] for h in range(180)]
    colours += [*np.stack([ramp] * 3, -1), *np.stack([full, ramp, ramp], -1)]
    for colour in np.uint8(colours):
        pixel = colour[None, None]
        for ours, literal in zip(STYLE_METRICS[metric](pixel), literal_histograms(pixel, dtype, hsv_range), strict=True):
            np.testing.assert_array_equal(ours, literal.ravel(), err_msg=f"RGB {colour}")


@pytest.mark.parametrize("metric", STYLE_METRICS)
def test_a_picture_is_like_itself_and_unlike_others(metric):
    image = landscape(0)
    assert style_parts(image, image, metric) == pytest.approx({"rgb": 1, "hsv": 1})
    twice = image.repeat(2, 0).repeat(2, 1)
    assert style_similarity(image, twice, metric) == pytest.approx(1)
    assert style_similarity(image, np.uint8(255) - image, metric) < 0.5
    assert style_similarity(image, np.ascontiguousarray(image[:, ::-1]), metric) == pytest.approx(1)


def test_blue_is_seen_by_the_corrected_rgb_histogram_only():
    image = landscape(1)
    other = image.copy()
    other[..., 2] ^= 128
    assert style_parts(image, other, "faithful")["rgb"] == pytest.approx(1)
    assert style_parts(image, other, "corrected")["rgb"] < 0.1
    for channel in (0, 1):
        other = image.copy()
        other[..., channel] ^= 128
        assert style_parts(image, other, "faithful")["rgb"] < 0.5


def test_hues_from_256_degrees_wrap_in_the_faithful_form():
    violet, orange = of_hsv(143), of_hsv(15)  # 286 degrees; 30 = 286 - 256
    assert style_parts(violet, orange, "faithful")["hsv"] == pytest.approx(1)
    assert style_parts(violet, orange, "corrected")["hsv"] < 0
    below, above = of_hsv(127), of_hsv(128)  # 254 and 256 degrees
    assert style_parts(below, above, "corrected")["hsv"] == pytest.approx(1)
    assert style_parts(below, above, "faithful")["hsv"] < 0


def test_the_last_bin_counts_in_the_corrected_form():
    purple, red = of_hsv(152, 255, 255), of_hsv(170, 255, 255)  # 304 degrees, bin 71, and 340 degrees
    assert style_parts(purple, purple, "corrected")["hsv"] == pytest.approx(1)
    assert style_parts(purple, red, "corrected")["hsv"] == pytest.approx(-1 / 71)


@pytest.mark.parametrize("metric", STYLE_METRICS)
def test_flat_pictures_and_equal_bins_have_a_correlation(metric):
    assert style_similarity(flat(0), flat(0), metric) == pytest.approx(1)
    assert style_similarity(flat(0), flat(255), metric) == pytest.approx((-1 / 4095 - 1 / 71) / 2)


def test_a_histogram_of_equal_bins_counts_as_alike():
    every_bin = np.stack(np.meshgrid(*[np.arange(0, 256, 16)] * 3), -1).reshape(64, 64, 3).astype(np.uint8)
    assert style_parts(every_bin, flat(0), "corrected")["rgb"] == 1
    assert np.isfinite(style_similarity(every_bin, every_bin, "faithful"))


@pytest.mark.parametrize("bad", [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((0, 6, 3), np.uint8)])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="not uint8"):
        style_similarity(flat(0), bad, "faithful")
