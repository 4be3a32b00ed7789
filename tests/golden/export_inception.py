"""Export inception.npz: reference values for models/networks/inception.py and models/metrics/fid.py, from pytorch-fid.

    python tests/golden/export_inception.py

Written with Python 3.11, torch 2.15.0, torchvision 0.29.2, pytorch-fid 0.3.0, scipy 1.17.1. The network is computed in float64. Keys:

    names                       names and shapes of the published file's arrays, as JSON
    pictures [2, 24, 400, 3]    uint8; to be enlarged in height and reduced in width
    mixed_6e [2, 768]           channel means of that layer, with networks.inception_weights
    features [2, 2048]
    frechet/<case>/{a [N, D], b [M, D], distance []}
"""

import json
from pathlib import Path

import numpy as np
import torch
from networks import inception_weights, normal
from pytorch_fid import inception
from pytorch_fid.fid_score import calculate_frechet_distance

CASES = {"regular": (60, 80, 0), "singular": (10, 60, 3)}  # N, M, and how many of the D = 24 channels are always 0


def photos() -> np.ndarray:
    """Patches of colour and grain."""
    patches = 50 * normal("patches", 2, 3, 20, 3).repeat(8, 1).repeat(20, 2)
    return np.uint8((128 + patches + 20 * normal("grain", 2, 24, 400, 3)).clip(0, 255))


def features(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """What pytorch-fid computes, after its own preprocessing."""
    names = {}

    def state_dict(url, **options):
        # fid_inception_v3 asks for the published weights, which fill torchvision's Inception with 1008 classes
        shapes = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None).state_dict()
        names.update({name: list(tensor.shape) for name, tensor in shapes.items() if not name.endswith("num_batches_tracked")})
        counters = {name: tensor for name, tensor in shapes.items() if name not in names}
        return counters | {name: torch.from_numpy(array) for name, array in inception_weights(names).items()}

    inception.load_state_dict_from_url = state_dict
    network = inception.InceptionV3((2, 3)).double().eval()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
    with torch.no_grad():
        mixed_6e, pooled = network(pixels)
    return {"mixed_6e": mixed_6e.mean((2, 3)).numpy(), "features": pooled.flatten(1).numpy(), "names": np.array(json.dumps(names))}


def frechet(case: str) -> dict[str, np.ndarray]:
    n, m, dead = CASES[case]
    mix = normal(f"{case} mix", 24, 24) / 5
    a, b = np.maximum(normal(f"{case} a", n, 24) @ mix + 0.5, 0), np.maximum(normal(f"{case} b", m, 24) @ mix * 1.5 + 0.7, 0)
    a[:, :dead], b[:, :dead] = 0, 0
    moments = [part for x in (np.float64(a), np.float64(b)) for part in (x.mean(axis=0), np.cov(x, rowvar=False))]
    return {"a": a, "b": b, "distance": calculate_frechet_distance(*moments)}


def main():
    pictures = photos()
    arrays = {"pictures": pictures, **features(pictures)}
    arrays |= {f"frechet/{case}/{key}": value for case in CASES for key, value in frechet(case).items()}
    single = {key: np.float32(value) if key in ("mixed_6e", "features") else value for key, value in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("inception.npz"), **single)


if __name__ == "__main__":
    main()
