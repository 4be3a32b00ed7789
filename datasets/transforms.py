"""Pictures to arrays and back, random crops, and the colour statistics of a reference. NumPy only."""

import numpy as np

HISTOGRAM_BINS = 16
NUM_COLOR_STATISTICS = 3 * (2 + HISTOGRAM_BINS)


def to_array(image: np.ndarray) -> np.ndarray:
    """uint8 [..., H, W, 3] → float32 [..., 3, H, W] in −1..1."""
    return np.ascontiguousarray(np.moveaxis(image, -1, -3), dtype=np.float32) / 127.5 - 1


def to_image(array: np.ndarray) -> np.ndarray:
    """float32 [..., 3, H, W], clipped to −1..1 → uint8 [..., H, W, 3]."""
    return np.moveaxis(np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8), -3, -1)


def class_shares(mask: np.ndarray, cell: int, num_classes: int = 29) -> np.ndarray:
    """The share of every class in each cell of `cell` pixels a side: uint8 [H, W] → float32 [num_classes, H/cell, W/cell].

    Values that are no class count nowhere.
    """
    h, w = mask.shape[0] // cell, mask.shape[1] // cell
    cells = np.arange(h).repeat(cell)[:, None] * w + np.arange(w).repeat(cell)  # which one each pixel is in
    counts = np.bincount((np.minimum(mask, num_classes).astype(np.int64) * h * w + cells).ravel(), minlength=num_classes * h * w)
    return (counts[: num_classes * h * w].reshape(num_classes, h, w) / cell**2).astype(np.float32)


def edge_map(image: np.ndarray) -> np.ndarray:
    """The edges of pictures float32 [..., 3, H, W] in −1..1, in the same form: (|∂x| + |∂y|) / 2 of their brightness by Sobel's filters.

    As OpenCV has them on pictures of 8 bits: each derivative is cut off at white, and the border mirrors.
    """
    red, green, blue = np.moveaxis(image, -3, 0)
    grey = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue  # −1..1; BLAS would round as its kernels do
    padded = np.pad(grey, [(0, 0)] * (grey.ndim - 2) + [(1, 1)] * 2, "reflect")
    down = padded[..., 2:, :] - padded[..., :-2, :]
    right = padded[..., :, 2:] - padded[..., :, :-2]
    across = right[..., :-2, :] + 2 * right[..., 1:-1, :] + right[..., 2:, :]
    along = down[..., :, :-2] + 2 * down[..., :, 1:-1] + down[..., :, 2:]
    strength = (np.minimum(np.abs(across), 2) + np.minimum(np.abs(along), 2)) / 2  # 0..2
    return np.repeat(np.expand_dims(strength - 1, -3), 3, axis=-3)


def class_pixels(mask: np.ndarray, most: int, rng: np.random.Generator, num_classes: int = 29) -> np.ndarray:
    """Up to so many pixels of each class of a mask, uint8 [H, W], at random: int32 [num_classes, most], places in the mask read row by row,
    and −1 where there are fewer."""
    places = np.full((num_classes, most), -1, np.int32)
    flat = mask.ravel()
    for label in np.unique(flat):
        own = np.flatnonzero(flat == label)
        chosen = rng.choice(own, most, replace=False) if len(own) > most else own
        places[label, : len(chosen)] = chosen
    return places


def random_crop(array: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A window [..., height, width] at a random place of [..., H, W]."""
    top = int(rng.integers(array.shape[-2] - height + 1))
    left = int(rng.integers(array.shape[-1] - width + 1))
    return array[..., top : top + height, left : left + width]


def random_flip(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged, or not, with equal chance."""
    return array[..., ::-1] if rng.random() < 0.5 else array


def color_statistics(image: np.ndarray) -> np.ndarray:
    """What a photo's colours are, without where: float32 [54] of uint8 [H, W, 3].

    For red, green and blue the mean and the standard deviation (of values in −1..1), then the square root of the share of pixels in
    each of 16 bins of brightness.
    """
    pixels = image.reshape(-1, 3)
    shares = [np.bincount(channel >> 4, minlength=HISTOGRAM_BINS) / len(pixels) for channel in pixels.T]
    moments = [pixels.mean(axis=0) / 127.5 - 1, pixels.std(axis=0) / 127.5]
    return np.concatenate([*moments, *np.sqrt(shares)]).astype(np.float32)
