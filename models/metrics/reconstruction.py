"""PSNR and SSIM: how close a picture comes to another, value by value and by its structure. Pictures are uint8 [H, W, 3] or [H, W]."""

import math

import cv2
import numpy as np


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """10 log₁₀(255² / mean squared error), in decibels; infinite for the same picture. Raises ValueError if the shapes differ."""
    _check(picture, truth)
    error = np.mean((np.float64(picture) - truth) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004, equation 13), −1..1, as a mean over places and channels.

    Local statistics are weighted by a Gaussian of σ 1.5 in a window of 11x11 pixels that lies inside the picture. Raises ValueError if the
    shapes differ or a side is shorter than the window.
    """
    _check(picture, truth)
    if min(picture.shape[:2]) < 11:
        raise ValueError(f"a picture of {picture.shape[:2]} is smaller than SSIM's window, 11x11")

    def local_mean(z):
        return cv2.GaussianBlur(z, (11, 11), 1.5)[5:-5, 5:-5]

    x, y = np.float64(picture), np.float64(truth)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) - mean_x**2 + local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return float(similarity.mean())


def _check(picture: np.ndarray, truth: np.ndarray) -> None:
    if picture.shape != truth.shape or picture.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f"uint8 pictures of one size are compared, not {picture.dtype} {picture.shape} and {truth.dtype} {truth.shape}")
