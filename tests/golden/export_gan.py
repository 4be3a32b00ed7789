"""Export gan.npz: reference values for models/networks/spade.py, ecgan.py, the multi-scale discriminator and their losses, in PyTorch.

    python tests/golden/export_gan.py

Written with Python 3.11, torch 2.13.0, from the papers and the facts of published code; computed in float64. Configuration, weights and
inputs are those of networks.py. Keys:

    block_<norm> [2, 6, 8, 12], block_<norm>_gradients [P, 2]   a SPADEResBlock with these statistics, and networks.gradient_summary
    result, image, edge, mean, logvar                           of the whole generator; gradients [P, 2]
    plain                                                       the result without edge branch
    scores_<scale>                                              of the discriminator
    loss_<name> []                                              of one step: adversarial, feature, kl, contrastive, discriminator, vgg
    vgg_gradient [2, 3, 32, 48]                                 of the last, by the picture that is made
    contrastive_pixels [M, D]                                   the gradient of the contrastive loss
    counts [4]                                                  weights of the published generator, with and without edge branch, of its
                                                                discriminator, and of a SPADEResBlock of 1024 channels
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from networks import GAN, gan_inputs, gradient_summary, normal, weights
from torch import nn


class Spectral(nn.Module):
    """A convolution of weight W / σ(W), σ by one power iteration from `u`."""

    def __init__(self, a, b, k, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(b, a, k, k))
        self.bias = nn.Parameter(torch.zeros(b)) if bias else None
        self.register_buffer("u", torch.zeros(1, b))
        self.stride, self.padding = stride, padding

    def forward(self, x):
        w = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u @ w, dim=1)
            u = F.normalize(v @ w.T, dim=1)
        return F.conv2d(x, self.weight / (u @ w @ v.T).squeeze(), self.bias, self.stride, self.padding)


def standardized(x, norm):
    if norm == "batch":
        return F.batch_norm(x, None, None, training=True)
    return F.instance_norm(x) if norm == "instance" else F.group_norm(x, x.shape[1] // int(np.gcd(16, x.shape[1])))


class SPADE(nn.Module):
    def __init__(self, channels, classes, hidden, norm):
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(classes, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)
        self.norm = norm

    def forward(self, x, label):
        hidden = self.mlp_shared(F.interpolate(label, size=x.shape[2:], mode="nearest"))
        return standardized(x, self.norm) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SPADEResBlock(nn.Module):
    def __init__(self, a, b, classes, norm, hidden):
        super().__init__()
        self.norm_0, self.norm_1 = SPADE(a, classes, hidden, norm), SPADE(min(a, b), classes, hidden, norm)
        self.conv_0, self.conv_1 = Spectral(a, min(a, b), 3, padding=1), Spectral(min(a, b), b, 3, padding=1)
        self.learned = a != b
        if self.learned:
            self.norm_s, self.conv_s = SPADE(a, classes, hidden, norm), Spectral(a, b, 1, bias=False)

    def forward(self, x, label):
        y = self.conv_0(F.leaky_relu(self.norm_0(x, label), 0.2))
        y = self.conv_1(F.leaky_relu(self.norm_1(y, label), 0.2))
        return y + (self.conv_s(self.norm_s(x, label)) if self.learned else x)


class Encoder(nn.Module):
    def __init__(self, channels, size, style, norm):
        super().__init__()
        pairs = zip((3, *channels[:-1]), channels, strict=True)
        self.convs = nn.ModuleList([Spectral(a, b, 3, 2, 1, bias=False) for a, b in pairs])
        inputs = channels[-1] * (size // 2 ** len(channels)) ** 2
        self.fc_mu, self.fc_var, self.norm = nn.Linear(inputs, style), nn.Linear(inputs, style), norm

    def forward(self, x):
        for conv in self.convs:
            x = F.leaky_relu(standardized(conv(x), self.norm), 0.2)
        return self.fc_mu(x.flatten(1)), self.fc_var(x.flatten(1)).clamp(-10, 10)


class Branches(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = (c, c // 2, c // 4, c // 8, 3)
        self.edge, self.image = (nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]) for _ in range(2))

    def forward(self, x):
        edge = image = x
        for i, (to_edge, to_image) in enumerate(zip(self.edge, self.image, strict=True)):
            edge, image = to_edge(F.leaky_relu(edge, 0.2)), to_image(F.leaky_relu(image, 0.2))
            if i < 3:
                image = image * (1 + edge.sigmoid())
        return edge.tanh(), image.tanh() * (1 + edge.tanh().sigmoid())


class Refinement(nn.Module):
    def __init__(self, c, classes):
        super().__init__()
        self.squeeze, self.expand = nn.Conv2d(c, classes, 3, padding=1), nn.Conv2d(classes, c, 3, padding=1)
        self.paint = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(F.leaky_relu(x, 0.2))
        x = x * (1 + F.adaptive_avg_pool2d(x, 1).sigmoid())
        return self.paint(F.leaky_relu(self.expand(F.leaky_relu(x, 0.2)), 0.2)).tanh()


class Generator(nn.Module):
    def __init__(self, size, channels, hidden, style, style_channels, style_size, style_norm, norm, edge_branch):
        super().__init__()
        cell = 2 ** (len(channels) - 1)
        self.shape = (channels[0], size[1] // cell, size[0] // cell)
        self.encoder = Encoder(style_channels, style_size, style, style_norm)
        self.fc = nn.Linear(style, int(np.prod(self.shape)))
        pairs = zip((channels[0], *channels[:-1]), channels, strict=True)
        self.blocks = nn.ModuleList([SPADEResBlock(a, b, 29, norm, hidden) for a, b in pairs])
        if edge_branch:
            self.branches, self.refinement = Branches(channels[-1]), Refinement(channels[-1] + 35, 29)
        else:
            self.conv_img = nn.Conv2d(channels[-1], 3, 3, padding=1)
        self.edge_branch = edge_branch

    def forward(self, label, style):
        x = self.blocks[0](self.fc(style).view(-1, *self.shape), label)
        for block in self.blocks[1:]:
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), label)
        if not self.edge_branch:
            return x, self.conv_img(F.leaky_relu(x, 0.2)).tanh()
        edge, image = self.branches(x)
        return x, self.refinement(torch.cat([x, image, edge, label], 1)), image, edge


class Discriminator(nn.Module):
    """Two scales of four layers and the scores."""

    def __init__(self, inputs, base):
        super().__init__()
        self.discriminators = nn.ModuleList([nn.ModuleDict({"convs": self.layers(inputs, base)}) for _ in range(2)])

    def layers(self, inputs, base):
        widths = [base, 2 * base, 4 * base, 8 * base]
        inner = [Spectral(a, b, 4, s, 2, bias=False) for a, b, s in zip(widths[:-1], widths[1:], (2, 2, 1), strict=True)]
        return nn.ModuleList([nn.Conv2d(inputs, base, 4, 2, 2), *inner, nn.Conv2d(8 * base, 1, 4, 1, 2)])

    def forward(self, x):
        outputs = []
        for i, scale in enumerate(self.discriminators):
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False) if i else x
            first, *inner, last = scale["convs"]
            maps = [F.leaky_relu(first(x), 0.2)]
            for conv in inner:
                maps.append(F.leaky_relu(F.instance_norm(conv(maps[-1])), 0.2))
            outputs.append([*maps, last(maps[-1])])
        return outputs


def loaded(module):
    """With the weights of networks.py, in float64."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights(shapes).items()})
    return module.double()


def gradients(module):
    return gradient_summary({name: parameter.grad.numpy() for name, parameter in module.named_parameters()})


def contrast(pixels, labels, temperature):
    """Equation 3 of Wang et al. 2021, word by word."""
    total, count = 0, 0
    similar = torch.exp(pixels @ pixels.T / temperature)
    for i, label in enumerate(labels):
        positives = [j for j, other in enumerate(labels) if other == label and j != i]
        negatives = sum(similar[i, j] for j, other in enumerate(labels) if other != label)
        if positives:
            terms = [torch.log(similar[i, j] / (similar[i, j] + negatives)) for j in positives]
            total, count = total - sum(terms) / len(terms), count + 1
    return total / count


def vgg19():
    """torchvision's `features`, up to relu5_1."""
    layers, channels = [], 3
    for width, convolutions in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1)):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.ModuleDict({"features": nn.Sequential(*layers)})


def vgg_loss(made, true):
    layers, total, weight = loaded(vgg19())["features"], 0, {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1}
    for i, layer in enumerate(layers):
        made, true = layer(made), layer(true)
        total = total + weight.get(i, 0) * (made - true).abs().mean()
    return total


def main():
    given = {name: torch.from_numpy(array) for name, array in gan_inputs().items()}
    label = F.one_hot(given["mask"].long(), 29).permute(0, 3, 1, 2).double()
    arrays = {}
    for norm in ("instance", "group", "batch"):
        block = loaded(SPADEResBlock(8, 6, 29, norm, 7))
        y = block(torch.from_numpy(normal("features", 2, 8, 16, 24)).double(), label)
        (y * torch.from_numpy(normal("direction", *y.shape))).sum().backward()
        arrays |= {f"block_{norm}": y, f"block_{norm}_gradients": gradients(block)}

    generator, discriminator = loaded(Generator(**GAN, edge_branch=True)), loaded(Discriminator(32, 8))
    mean, logvar = generator.encoder(given["reference"].double())
    _, result, image, edge = generator(label, mean + torch.exp(0.5 * logvar) * given["z"])
    arrays |= {"mean": mean, "logvar": logvar, "result": result, "image": image, "edge": edge}
    fake = {name: discriminator(torch.cat([label, x], 1)) for name, x in {"image": image, "edge": edge, "result": result}.items()}
    photo, edges = given["image"].double(), given["edge"].double()
    real = {name: discriminator(torch.cat([label, x], 1)) for name, x in {"image": photo, "edge": edges, "result": photo}.items()}
    arrays |= {f"scores_{i}": maps[-1] for i, maps in enumerate(real["image"])}

    shares = {"image": 1, "edge": 1, "result": 2}
    losses = dict.fromkeys(("adversarial", "feature", "discriminator"), 0)
    for name, share in shares.items():
        for f, r in zip(fake[name], real[name], strict=True):
            losses["adversarial"] -= share * f[-1].mean() / 2
            losses["feature"] += share * sum(F.l1_loss(a, b.detach()) for a, b in zip(f[:-1], r[:-1], strict=True)) / 2
            losses["discriminator"] += share * (F.relu(1 - r[-1]).mean() + F.relu(1 + f[-1]).mean()) / 2
    losses["kl"] = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1).mean()
    (losses["adversarial"] + 10 * losses["feature"] + 0.05 * losses["kl"]).backward()
    arrays["gradients"] = gradients(generator)

    labels = np.array([0, 3, 3, 0, 7, 3, 0, 11, 11, 0])
    pixels = F.normalize(torch.from_numpy(normal("pixels", len(labels), 5)).double(), dim=1).requires_grad_()
    losses["contrastive"] = contrast(pixels, labels, 0.1)
    losses["contrastive"].backward()
    arrays["contrastive_pixels"] = pixels.grad
    made = given["image"].double().requires_grad_()
    losses["vgg"] = vgg_loss(made, edges)
    losses["vgg"].backward()
    arrays["vgg_gradient"] = made.grad
    arrays |= {f"loss_{name}": loss for name, loss in losses.items()}
    arrays["plain"] = loaded(Generator(**GAN, edge_branch=False))(label, given["z"].double())[1]

    with torch.device("meta"):
        shape = {"size": (512, 384), "channels": (1024, 1024, 1024, 512, 256, 128, 64), "hidden": 128, "norm": "instance"}
        shape |= {"style": 256, "style_channels": (64, 128, 256, 512, 512, 512), "style_size": 256, "style_norm": "instance"}
        published = [Generator(**shape, edge_branch=edge) for edge in (True, False)]
        published += [Discriminator(32, 64), SPADEResBlock(1024, 1024, 29, "instance", 128)]
    arrays["counts"] = np.array([sum(parameter.numel() for parameter in module.parameters()) for module in published])
    arrays = {name: value.detach().numpy() if isinstance(value, torch.Tensor) else value for name, value in arrays.items()}
    arrays = {name: value.astype(np.float32) if value.dtype == np.float64 else value for name, value in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("gan.npz"), **arrays)


if __name__ == "__main__":
    main()
