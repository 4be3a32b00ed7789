"""Export rcan.npz: reference values for models/networks/rcan.py, from the network written out in PyTorch here.

    python tests/golden/export_rcan.py

Written with Python 3.11, torch 2.13.0. It follows Zhang et al. 2018 and the names of the authors' files. Configuration, weights and input
are those of networks.py, but for the shifts by the mean, which are DIV2K's and not drawn; computed in float64. Keys:

    output [2, 3, 24, 40]        of the pictures, values 0..255
    input_gradient               [2, 3, 12, 20], of the sum of output · normal("rcan")
    gradients [P, 2]             networks.gradient_summary of the trained weights, of the same
    names                        names and shapes of the published network's weights, as JSON
"""

import json
from pathlib import Path

import numpy as np
import torch
from networks import RCAN, gradient_summary, normal, rcan_input, weights
from torch import nn


def conv(channels: int, out: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, padding=size // 2)


class Shift(nn.Conv2d):
    def __init__(self, sign: int):
        super().__init__(3, 3, 1)
        self.weight.data = torch.eye(3)[..., None, None]
        self.bias.data = sign * 255 * torch.tensor([0.4488, 0.4371, 0.4040])
        self.requires_grad_(False)


class Attention(nn.Module):
    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.conv_du = nn.Sequential(conv(width, width // reduction, 1), nn.ReLU(), conv(width // reduction, width, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.conv_du(nn.functional.adaptive_avg_pool2d(x, 1))


class Residual(nn.Module):
    """body(x) + x, of a block as of a group."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x) + x


class Network(nn.Module):
    def __init__(self, n_resgroups: int, n_resblocks: int, n_feats: int, reduction: int):
        super().__init__()
        n = n_feats

        def block() -> nn.Module:
            return Residual(conv(n, n), nn.ReLU(), conv(n, n), Attention(n, reduction))

        groups = [Residual(*(block() for _ in range(n_resblocks)), conv(n, n)) for _ in range(n_resgroups)]
        self.sub_mean, self.add_mean = Shift(-1), Shift(1)
        self.head = nn.Sequential(conv(3, n))
        self.body = nn.Sequential(*groups, conv(n, n))
        self.tail = nn.Sequential(nn.Sequential(conv(n, 4 * n), nn.PixelShuffle(2)), conv(n, 3))

    def forward(self, x):
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(self.body(x) + x))


def main():
    network = Network(**RCAN).double()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, array in weights({name: tuple(parameter.shape) for name, parameter in trained.items()}).items():
        trained[name].data = torch.from_numpy(array).double()
    x = torch.from_numpy(rcan_input()).double().requires_grad_()
    output = network(x)
    (output * torch.from_numpy(normal("rcan", *output.shape))).sum().backward()
    with torch.device("meta"):
        published = {name: list(weight.shape) for name, weight in Network(10, 20, 64, 16).state_dict().items()}
    np.savez_compressed(
        Path(__file__).with_name("rcan.npz"),
        output=np.float32(output.detach().numpy()),
        input_gradient=np.float32(x.grad.numpy()),
        gradients=gradient_summary({name: parameter.grad.numpy() for name, parameter in trained.items()}),
        names=np.array(json.dumps(published)),
    )


if __name__ == "__main__":
    main()
