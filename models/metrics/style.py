"""Style similarity: how far the colours of a result are those of its reference.

The competition compares colour histograms by correlation. Its scorer was never published; the definition here is that of scripts that
entrants measured themselves with, and that it is the organisers' is inference. They average two correlations (cv2.HISTCMP_CORREL):

- RGB: 16 equal bins a channel, joint index 256 B + 16 G + R, 4096 bins.
- HSV, as OpenCV has it for 8 bits: hue, 2 h degrees, in 8 bins that end at 20, 40, 75, 155, 190, 270, 295 and 315, the bin of red
  going on after 315; saturation and value in 3 bins each that end at 51 and 178 of 255; joint index 9 H + 3 S + V, 72 bins. An edge
  belongs to the bin that it ends.

The scripts compute both indices in uint8, where numbers are modulo 256. In the RGB index the term of B vanishes: only red and green are
compared, in 256 of the 4096 bins, the others empty. Hues from 256 degrees on, violet to red, become 0 to 102 degrees, red to green. Their
histogram over [0, 71) would also lose the last of the 72 bins, but no hue is left then that reaches it.
"faithful" keeps the overflow, for numbers to compare with published ones; "corrected" is what was meant.
"""

import cv2
import numpy as np

HUE_EDGES = (20, 40, 75, 155, 190, 270, 295, 315)  # degrees
SATURATION_VALUE_EDGES = (51, 178)  # 0.2 and 0.7 of 255


def _hsv_bins(degrees: np.ndarray) -> np.ndarray:
    """Table from a pixel's h, s and v, each 0..255, to its bins, uint8 [1, 256, 3]; `degrees` is the hue that each h stands for."""
    hue = np.digitize(degrees, HUE_EDGES, right=True) % len(HUE_EDGES)
    saturation = value = np.digitize(np.arange(256), SATURATION_VALUE_EDGES, right=True)
    return np.dstack([hue, saturation, value]).astype(np.uint8)


CORRECTED_BINS = _hsv_bins(2 * np.arange(256))
FAITHFUL_BINS = _hsv_bins(2 * np.arange(256) % 256)


def _hsv_histogram(image: np.ndarray, bins: np.ndarray) -> np.ndarray:
    binned = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), bins)  # [H, W, 3]: bin of hue, saturation, value
    return cv2.calcHist([binned], [0, 1, 2], None, [8, 3, 3], [0, 8, 0, 3, 0, 3]).ravel()


def faithful_histograms(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of RGB bins, float32 [4096], and of HSV bins, [72], of a picture uint8 RGB [H, W, 3], with the overflow of uint8."""
    rgb = np.zeros(4096, np.float32)
    rgb[:256] = cv2.calcHist([image], [1, 0], None, [16, 16], [0, 256] * 2).ravel()
    return rgb, _hsv_histogram(image, FAITHFUL_BINS)


def corrected_histograms(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same without overflow."""
    rgb = cv2.calcHist([image], [2, 1, 0], None, [16, 16, 16], [0, 256] * 3).ravel()
    return rgb, _hsv_histogram(image, CORRECTED_BINS)


STYLE_METRICS = {
    "faithful": faithful_histograms,
    "corrected": corrected_histograms,
}


def style_parts(result: np.ndarray, reference: np.ndarray, metric: str) -> dict[str, float]:
    """Correlations, −1..1, of the two pictures' RGB histograms ("rgb") and HSV histograms ("hsv").

    result and reference: uint8 RGB [H, W, 3]; sizes may differ, since correlation does not see the number of pixels.
    metric: a key of STYLE_METRICS. A histogram whose bins are all equal has no correlation; OpenCV calls it 1, with anything. No
    photograph has one. Raises ValueError if a picture is no uint8 [H, W, 3].
    """
    for image in (result, reference):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"style similarity: a picture is {image.dtype} {list(image.shape)}, not uint8 [H, W, 3]")
    histograms = STYLE_METRICS[metric]
    pairs = zip(histograms(result), histograms(reference), strict=True)
    rgb, hsv = (cv2.compareHist(ours, theirs, cv2.HISTCMP_CORREL) for ours, theirs in pairs)
    return {"rgb": rgb, "hsv": hsv}


def style_similarity(result: np.ndarray, reference: np.ndarray, metric: str) -> float:
    """Mean of the two correlations of `style_parts`, −1..1; higher is better."""
    parts = style_parts(result, reference, metric)
    return (parts["rgb"] + parts["hsv"]) / 2
