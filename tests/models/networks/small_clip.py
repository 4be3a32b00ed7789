"""The small CLIP of tests/golden/export_clip.py, on disk."""

import json
from pathlib import Path

import numpy as np

from models.networks.clip import CLIPModel, read_config
from tests.golden.networks import weights
from utils.checkpoint import write_safetensors

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "clip.npz")
CONFIG = json.loads(str(GOLDEN["config"]))


def write_small_clip(folder):
    """As transformers lays one down, with the counts that older files have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(str(GOLDEN["tokenizer"]), encoding="utf-8")
    arrays = weights(shapes(CLIPModel(read_config(folder / "config.json"))))
    counts = {f"{tower}_model.embeddings.position_ids": np.arange(n)[None] for tower, n in (("text", 77), ("vision", 17))}
    write_safetensors(folder / "model.safetensors", arrays | counts)
    return folder


def shapes(network):
    return {name: list(weight.shape) for name, weight in network.state_dict().items()}
