"""Fractal noise: sums of smooth random fields, each finer and weaker than the last."""

from functools import cache

import cv2
import numpy as np

CELLS, BAND = 16, 3  # cells a side of a noise tile in its first octave; octaves summed in a tile


@cache
def noise_tile(samples, octaves, gain, ridged) -> np.ndarray:
    """Seamless sum of a few octaves of smooth value noise, float32 [16 * samples, 16 * samples]."""
    side = CELLS * samples
    tile, pad = np.zeros((side, side), np.float32), 4
    for octave in range(octaves):
        cells = np.random.default_rng([samples, octave]).standard_normal((CELLS << octave,) * 2).astype(np.float32)
        scale = samples >> octave
        smooth = cv2.resize(np.pad(cells, pad, mode="wrap"), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        smooth = smooth[pad * scale : -pad * scale, pad * scale : -pad * scale] / smooth.std()
        tile += gain**octave * (1 - np.minimum(np.abs(smooth), 1) if ridged else smooth)
    return tile


def fractal(rng, x, y, wavelength, octaves, gain=0.5, ridged=False, pixel=None):
    """Fractal noise at the points (x, y), float32 [H, W], roughly -1..1 (ridged: 0..1 with sharp crests).

    `wavelength` is that of the first octave, in units of x and y. `pixel` [H, W] is the size of a pixel in these units:
    what is too fine for it fades out instead of aliasing.
    """
    points = cv2.merge([np.float32(x), np.float32(y)])
    total = np.zeros(points.shape[:2], np.float32)
    for start in range(0, octaves, BAND):
        count = min(BAND, octaves - start)
        # remap rounds to 1/32 of a sample: wide octaves need a fine tile, or slopes would show stairs
        tile = noise_tile(32 if start == 0 else 16, count, gain, ridged)
        # each band is turned and moved, so that the lattice of the tile does not show
        angle, scale = 0.5 + 0.9 * start, 2.0**start / wavelength / CELLS
        c, s, (u, v) = scale * np.cos(angle), scale * np.sin(angle), rng.random(2)
        place = cv2.transform(points, np.array([[c, -s, u], [s, c, v]]))
        place -= np.floor(place)
        place *= len(tile)
        band = cv2.remap(tile, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        if pixel is not None:
            mean = 0.5 * sum(gain**octave for octave in range(count)) if ridged else 0
            band = (band - mean) * np.clip(wavelength / 2 ** (start + 2) / pixel - 1, 0, 1) + mean
        total += gain**start * band
    weights = gain ** np.arange(octaves)
    return total / np.float32(weights.sum() if ridged else 1.6 * np.sqrt(np.square(weights).sum()))


def smoothstep(low, high, x):
    """A smooth rise from 0, where x is at most `low`, to 1, where it is at least `high`; it falls where low > high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
