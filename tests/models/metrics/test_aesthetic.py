from pathlib import Path

import numpy as np
import pytest

from models.metrics.aesthetic import IMPROVED, aesthetic, load_aesthetic
from models.networks.clip import unit_length
from tests.golden.networks import normal, weights
from utils.checkpoint import write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "clip.npz")
SHAPES = {
    "linear": {"weight": (1, 768), "bias": (1,)},
    "improved": {f"layers.{i}.{name}": shape[: 1 + (name == "weight")] for i, shape in IMPROVED.items() for name in ("weight", "bias")},
}
EMBEDDINGS = unit_length(normal("embeddings", 4, 768))


@pytest.mark.parametrize("predictor", SHAPES)
def test_scores_agree_with_pytorch(predictor, tmp_path):
    write_safetensors(tmp_path / "weights", weights(SHAPES[predictor]))
    scores = aesthetic(load_aesthetic(tmp_path / "weights"), EMBEDDINGS)
    expected = GOLDEN[f"aesthetic/{predictor}"]
    assert scores.shape == (4,) and scores.dtype == np.float32 and np.abs(scores - expected).max() < 1e-5


@pytest.mark.parametrize("shapes", [
    {"weight": (1, 640), "bias": (1,)},
    SHAPES["improved"] | {"layers.7.weight": (2, 16)},
    {"fc.weight": (1, 768)},
])  # fmt: skip
def test_weights_of_something_else_are_told(shapes, tmp_path):
    write_safetensors(tmp_path / "weights", weights(shapes))
    with pytest.raises(UserError, match="does not fit an aesthetic predictor"):
        load_aesthetic(tmp_path / "weights")


def test_embeddings_of_another_clip_or_length_are_refused():
    with pytest.raises(ValueError, match="another CLIP"):
        aesthetic(weights(SHAPES["linear"]), unit_length(EMBEDDINGS[:, :512]))
    with pytest.raises(ValueError, match="unit length"):
        aesthetic(weights(SHAPES["linear"]), 2 * EMBEDDINGS)
