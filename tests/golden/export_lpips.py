"""Export lpips.npz: reference values for models/networks/lpips.py from the lpips package, and for reconstruction.py from scikit-image.

    python tests/golden/export_lpips.py

Written with Python 3.11, torch 2.15.0, torchvision 0.29.2, lpips 0.1.4, scikit-image 0.26.0. Networks computed in float64. Keys:

    pictures, others [2, 64, 64, 3]     uint8, two pairs
    alex, vgg [2]                       LPIPS 0.1 of the pairs with networks.weights' weights, those of the channels made positive
    psnr, ssim [2]                      SSIM with Wang et al.'s Gaussian window and the variances of the whole window (not of a sample)
    ssim_gray []                        the same of channel 0 of the first pair alone
"""

from pathlib import Path

import lpips
import numpy as np
import torch
from networks import normal, weights
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def picture(name: str) -> np.ndarray:
    """uint8 [64, 64, 3]: patches of colour, finer ones upon them, and grain."""
    levels = np.full((64, 64, 3), 128, np.float32)
    for size, strength in ((16, 50), (4, 20), (1, 6)):
        levels += strength * normal(f"{name} {size}", 64 // size, 64 // size, 3).repeat(size, 0).repeat(size, 1)
    return np.uint8(levels.clip(0, 255))


def distances(network: str, pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    model = lpips.LPIPS(net=network, pretrained=False, pnet_rand=True, verbose=False)
    layers = {f"features.{i}": layer for part in model.net.children() for i, layer in part.named_children() if hasattr(layer, "weight")}
    layers |= {f"lin{i}.model.1": lin.model[1] for i, lin in enumerate(model.lins)}
    parameters = {f"{name}.{key}": tensor for name, layer in layers.items() for key, tensor in layer.state_dict(keep_vars=True).items()}
    arrays = weights({name: tuple(tensor.shape) for name, tensor in parameters.items()})
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(torch.from_numpy(np.abs(arrays[name]) if name.startswith("lin") else arrays[name]))
        x, y = (torch.from_numpy(p.transpose(0, 3, 1, 2)).double() / 127.5 - 1 for p in (pictures, others))
        return model.double()(x, y).flatten().numpy()


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return structural_similarity(picture, truth, channel_axis=-1 if picture.ndim == 3 else None, **options)


def main():
    pictures = np.stack([picture("lake"), picture("hill")])
    others = np.stack([picture("sky"), np.uint8((pictures[1] + 10 * normal("grain", 64, 64, 3)).clip(0, 255))])
    pairs = list(zip(pictures, others, strict=True))
    np.savez_compressed(
        Path(__file__).with_name("lpips.npz"),
        pictures=pictures,
        others=others,
        alex=distances("alex", pictures, others),
        vgg=distances("vgg", pictures, others),
        psnr=[peak_signal_noise_ratio(truth, picture, data_range=255) for picture, truth in pairs],
        ssim=[ssim(*pair) for pair in pairs],
        ssim_gray=ssim(pictures[0, ..., 0], others[0, ..., 0]),
    )


if __name__ == "__main__":
    main()
