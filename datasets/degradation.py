"""Small pictures to learn super-resolution from: halves of photos, clean, or with the faults that painted pictures have."""

import io

import cv2
import numpy as np
from PIL import Image

from utils.image import encode

BLUR = 1.0  # highest standard deviation of the Gaussian, in pixels
NOISE = 6.0  # highest standard deviation of the noise, in levels of 0..255
QUALITY = 60, 95  # of JPEG


def halved(image: np.ndarray) -> np.ndarray:
    """Picture uint8 [H, W, 3] with even sides → its half, uint8 [H/2, W/2, 3], by Pillow's bicubic filter, which is widened to shrink."""
    height, width = image.shape[:2]
    return np.array(Image.fromarray(image).resize((width // 2, height // 2), Image.Resampling.BICUBIC))


def degraded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The small picture uint8 [H, W, 3], blurred, then noisy, then compressed (Wang et al. 2021, "Real-ESRGAN", equation 1).

    Networks that paint make soft edges and grain, and what they have learnt from were JPEG files: one that has only seen clean halves of
    photos would sharpen these faults too. Each comes with a chance of one half, in a strength that is drawn.
    """
    blur, noise, jpeg = rng.random(3) < 0.5
    sigma, deviation, quality = rng.uniform(0.2, BLUR), rng.uniform(0, NOISE), int(rng.integers(*QUALITY, endpoint=True))
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if noise:
        image = np.uint8(np.rint(np.clip(image + deviation * rng.standard_normal(image.shape, np.float32), 0, 255)))
    if jpeg:
        image = np.array(Image.open(io.BytesIO(encode(image, "JPEG", quality=quality))))
    return image
