"""LPIPS 0.1 (Zhang et al. 2018): how different two pictures look, by the features of a classifier.

The classifier is torchvision's AlexNet (`alexnet-owt-7be5be79.pth`) or VGG16 (`vgg16-397923af.pth`); the weights of its features' channels
come with the lpips package (`lpips/weights/v0.1/alex.pth`, `vgg.pth`).
"""

from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.layers import Conv2d, autocast
from models.networks.vgg import VGG16, vgg_layers
from utils.checkpoint import load_frozen, read_weights

# The mean and the deviation of ImageNet's RGB values, for pictures in −1..1
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32).reshape(3, 1, 1)
SCALE = np.array([0.458, 0.448, 0.450], np.float32).reshape(3, 1, 1)


def alexnet() -> list[nn.Module]:
    """Krizhevsky 2014, up to the last ReLU."""
    return [
        Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip


NETWORKS = {  # the layers, after which of them features are compared, and the channels there
    "alex": (alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": (lambda: vgg_layers(VGG16), (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
}


class ChannelWeights(nn.Module):
    """[B, C, H, W] → [B]: the weighted sum over channels, as a mean over places.

    In the package's names it is a 1x1 convolution, `model.1`, after a dropout, `model.0`, which has no weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.model = nn.ModuleList([nn.Identity(), nn.Conv(channels, 1, 1, bias=False)])

    def execute(self, x: jt.Var) -> jt.Var:
        # in float64: added up one by one in float32, the millions of a large picture would be lost to rounding
        total = (x * self.model[1].weight).float64().sum(dims=(1, 2, 3))
        return (total / (x.shape[2] * x.shape[3])).float32()


def unit_channels(x: jt.Var) -> jt.Var:
    """[B, C, H, W] divided by the length of its channels at each place."""
    # the bound is for the gradient where all channels are 0: without it, the square root's is infinite
    return x / (jt.sqrt(jt.maximum((x * x).sum(dim=1, keepdims=True), 1e-20)) + 1e-10)


class LPIPS(nn.Module):
    """The distance [B], from 0, of pictures [B, 3, H, W] in −1..1 with 40 pixels a side or more; `network` is a key of NETWORKS.

    All is computed in float32, within `autocast` too: in 16 bits lengths of features would be lost, and gradients rough.
    """

    def __init__(self, network: str):
        super().__init__()
        layers, self._taps, channels = NETWORKS[network]
        self.features = nn.ModuleList(layers())
        self.lin0, self.lin1, self.lin2, self.lin3, self.lin4 = (ChannelWeights(c) for c in channels)

    def unit_features(self, x: jt.Var) -> list[jt.Var]:
        """Five maps [B, C, H', W'] whose channels have unit length at each place."""
        x = (x - SHIFT) / SCALE
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self._taps:
                maps.append(unit_channels(x))
        return maps

    @autocast("float32")
    def execute(self, x: jt.Var, y: jt.Var) -> jt.Var:
        weigh = self.lin0, self.lin1, self.lin2, self.lin3, self.lin4
        pairs = zip(weigh, self.unit_features(x), self.unit_features(y), strict=True)
        return sum(w((a - b).sqr()) for w, a, b in pairs)  # equation 1


def load_lpips(network: str, classifier: str | Path, channel_weights: str | Path) -> LPIPS:
    """LPIPS from torchvision's classifier, of which the features are kept, and the package's weights; they take no gradients.

    `network` is a key of NETWORKS. Raises UserError.
    """
    model = LPIPS(network)
    features = {name: array for name, array in read_weights(classifier).items() if not name.startswith("classifier.")}
    load_frozen(model, features | read_weights(channel_weights), f"{classifier} with {channel_weights}")
    return model


def lpips(model: LPIPS, pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distances, float32 [B], of two batches of pictures uint8 [B, H, W, 3]. Raises ValueError if the shapes differ."""
    if pictures.shape != others.shape:
        raise ValueError(f"pictures {pictures.shape} and {others.shape} are no pairs")
    with jt.no_grad():
        x, y = (jt.array(p.transpose(0, 3, 1, 2) / np.float32(127.5) - 1) for p in (pictures, others))
        return model(x, y).numpy()
