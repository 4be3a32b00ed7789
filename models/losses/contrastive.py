"""The contrastive loss of pixels by their classes."""

import jittor as jt
import numpy as np


def pixel_contrast(pixels: jt.Var, labels: np.ndarray, temperature: float) -> jt.Var:
    """InfoNCE of pixels [M, D] of unit length and their labels [M]: those of one class are to lie together, apart from all others.

    For each pixel the mean over the others of its class; of these the mean, without pixels that are the only ones of their class (Wang et
    al. 2021, "Exploring cross-image pixel contrast for semantic segmentation", eq. 3).
    """
    same = labels[:, None] == labels[None]
    positive, negative = (same & ~np.eye(len(labels), dtype=bool)).astype(np.float32), (~same).astype(np.float32)
    counts = positive.sum(axis=1)
    weights = positive / np.maximum(counts, 1)[:, None] / max(1, np.count_nonzero(counts))
    products = (jt.nn.matmul_transpose(pixels, pixels) - 1) / temperature  # at most 0
    exponentials = products.exp()
    others = (exponentials * jt.array(negative)).sum(dim=1, keepdims=True)
    return (((exponentials + others).log() - products) * jt.array(weights)).sum()
