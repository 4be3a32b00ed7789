"""How much people like a picture, 0..10, from its CLIP embedding: LAION's two public predictors.

- LAION-AI/aesthetic-predictor: one linear map, `sa_0_4_vit_b_32_linear.pth` (on CLIP ViT-B/32) and `sa_0_4_vit_l_14_linear.pth` (ViT-L/14).
- christophschuhmann/improved-aesthetic-predictor: five linear maps in a row, `sac+logos+ava1-l14-linearMSE.pth` (ViT-L/14).

They were fitted to ratings of 0..10 (or 1..10) and can leave that range. The competition's aesthetic score is 0..1 and its model was
never identified: these, divided by 10, stand in for it and may differ from it.
"""

import re
from pathlib import Path

import numpy as np

from utils.checkpoint import check_fit, read_weights

IMPROVED = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}  # dropout lies between, and has no weights


def load_aesthetic(path: str | Path) -> dict[str, np.ndarray]:
    """The weights of a predictor. Raises UserError where the file is neither kind."""
    arrays = read_weights(path)
    if "weight" in arrays:
        expected = {"weight": (1, 768 if arrays["weight"].size == 768 else 512), "bias": (1,)}
    else:
        expected = {f"layers.{i}.{name}": shape[:rank] for i, shape in IMPROVED.items() for name, rank in (("weight", 2), ("bias", 1))}
    check_fit(expected, arrays, path, "an aesthetic predictor")
    return arrays


def aesthetic(weights: dict[str, np.ndarray], embeddings: np.ndarray) -> np.ndarray:
    """CLIP embeddings of unit length [B, D] → scores of about 0..10, float32 [B].

    Raises ValueError if D is another CLIP's, or the embeddings are not of unit length.
    """
    layers = sorted((name for name in weights if name.endswith("weight")), key=lambda name: int("0" + re.sub(r"\D", "", name)))
    if embeddings.shape[1] != weights[layers[0]].shape[1]:
        raise ValueError(f"embeddings of {embeddings.shape[1]} numbers for a predictor of {weights[layers[0]].shape[1]}: another CLIP")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise ValueError("the aesthetic predictor takes embeddings of unit length")
    x = embeddings
    for name in layers:
        x = x @ weights[name].T + weights[name.removesuffix("weight") + "bias"]
    return x[:, 0]
