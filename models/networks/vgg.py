"""The convolutions of VGG (Simonyan & Zisserman 2015), a classifier whose features serve to compare pictures. Names as in torchvision."""

from pathlib import Path

import jittor as jt
from jittor import nn

from models.networks.layers import Conv2d, autocast, freeze
from utils.checkpoint import load_strict, read_weights

WIDTHS = (64, 128, 256, 512, 512)  # of the five parts, before each of which but the first the size is halved
VGG16, VGG19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)  # convolutions of each part: configurations D and E
FIRST_RELUS = (1, 6, 11, 20, 29)  # layers of VGG19: relu1_1, relu2_1, relu3_1, relu4_1, relu5_1


def vgg_layers(convolutions: tuple[int, ...]) -> list[nn.Module]:
    """All layers up to the last ReLU."""
    layers, channels = [], 3
    for width, count in zip(WIDTHS, convolutions, strict=True):
        layers += [nn.MaxPool2d(2, 2)] if layers else []
        for _ in range(count):
            layers += [Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return layers


class VGG19Features(nn.Module):
    """Pictures [B, 3, H, W] → the five maps after the first ReLU of each part, [B, 64, H, W] to [B, 512, H/16, W/16].

    All is computed in float32, within `autocast` too: in 16 bits the gradients would be rough.
    """

    def __init__(self):
        super().__init__()
        self.features = nn.ModuleList(vgg_layers(VGG19)[: FIRST_RELUS[-1] + 1])

    @autocast("float32")
    def execute(self, x: jt.Var) -> list[jt.Var]:
        maps, x = [], x.float32()
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in FIRST_RELUS:
                maps.append(x)
        return maps


def load_vgg19(path: str | Path) -> VGG19Features:
    """The frozen network with torchvision's weights. Raises UserError."""
    network = VGG19Features()
    own = network.state_dict()
    load_strict(network, {name: array for name, array in read_weights(path).items() if name in own}, path)
    return freeze(network)
