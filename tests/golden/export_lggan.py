"""Export lggan.npz: reference values for models/networks/lggan.py and the losses of models/stages/lggan.py, from PyTorch.

    python tests/golden/export_lggan.py

Written with Python 3.11, torch 2.13.0. Everything below is written as the papers have it: SAU by unfolding, a convolution for each class of
masked features. Computed in float64; configuration, weights and inputs are those of networks.py. Keys:

    final, global, local [2, 3, 32, 48], every other row and column; logits [2, 29, 29]; classes [2, 87], means over places
    gradients            [P, 2], see networks.gradient_summary, of the sum over these outputs of output · normal(<its key>)
    losses/<name>, discriminator/loss, discriminator/gradients    of one step on this batch, without the perceptual loss, before the
                         change of weights; losses/gradients are those of the generator
    parameters           of the published shape's generator and discriminator
"""

from pathlib import Path

import numpy as np
import torch
from networks import LGGAN, gradient_summary, lggan_inputs, normal, weights
from torch import nn
from torch.nn import functional as F

N = 29


class Spectral(nn.Module):
    """Weight over its largest singular value, by one power iteration from u."""

    def __init__(self, a, b, k, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(b, a, k, k))
        self.bias = nn.Parameter(torch.zeros(b)) if bias else None
        self.register_buffer("u", torch.zeros(1, b))
        self.how = stride, padding

    def forward(self, x):
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u @ matrix)
            u = F.normalize(v @ matrix.T)
        return F.conv2d(x, self.weight / (u @ matrix @ v.T), self.bias, *self.how)


class SPADE(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(N, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(hidden, width, 3, padding=1) for _ in range(2))

    def forward(self, x, label):
        shared = self.mlp_shared(F.interpolate(label, size=x.shape[2:], mode="nearest"))
        return F.instance_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SPADEResBlock(nn.Module):
    def __init__(self, a, b, hidden):
        super().__init__()
        middle = min(a, b)
        self.conv_0, self.conv_1 = Spectral(a, middle, 3, 1, 1), Spectral(middle, b, 3, 1, 1)
        self.norm_0, self.norm_1 = SPADE(a, hidden), SPADE(middle, hidden)
        if a != b:
            self.conv_s, self.norm_s = Spectral(a, b, 1, bias=False), SPADE(a, hidden)

    def forward(self, x, label):
        shortcut = self.conv_s(self.norm_s(x, label)) if hasattr(self, "conv_s") else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, label), 0.2))
        return shortcut + self.conv_1(F.leaky_relu(self.norm_1(x, label), 0.2))


class SAU(nn.Module):
    def __init__(self, width, middle, k=5):
        super().__init__()
        self.compress, self.encode = nn.Conv2d(width, middle, 1), nn.Conv2d(middle, k * k * 4, 1)
        self.project, self.k = nn.Conv2d(width, width // 2, 1), k

    def forward(self, x):
        kernel = F.pixel_shuffle(self.encode(self.compress(x)), 2).softmax(1)  # [B, k², H, W]
        up = F.interpolate(x, scale_factor=2, mode="nearest")
        patches = F.unfold(up, self.k, padding=self.k // 2).reshape(*x.shape[:2], self.k**2, *up.shape[2:])
        return self.project((patches * kernel[:, None]).sum(2))


class Doubling(nn.Module):
    def __init__(self, width, middle):
        super().__init__()
        self.upsamplings = nn.ModuleList([SAU(width, middle), SAU(width // 2, middle)])

    def forward(self, x):
        for sau in self.upsamplings:
            x = F.relu(F.instance_norm(sau(x)))
        return x


class Reflect(nn.Conv2d):
    def __init__(self, a, b, k):
        super().__init__(a, b, k, padding=k // 2, padding_mode="reflect")


class ResBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv_0, self.conv_1 = Reflect(width, width, 3), Reflect(width, width, 3)

    def forward(self, x):
        return x + F.instance_norm(self.conv_1(F.relu(F.instance_norm(self.conv_0(x)))))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.convs = nn.ModuleList([Reflect(N, c, 7), *(nn.Conv2d(c * 2**i, c * 2 ** (i + 1), 3, 2, 1) for i in range(4))])


class GlobalBranch(nn.Module):
    def __init__(self, c):
        super().__init__()
        pairs = [(16, 16)] * 3 + [(16, 8), (8, 4), (4, 2), (2, 1)]
        self.blocks = nn.ModuleList([SPADEResBlock(a * c, b * c, 2 * c) for a, b in pairs])
        self.conv_img = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x, label):
        head, middle_0, middle_1, *others = self.blocks
        x = F.interpolate(x, size=(label.shape[2] // 32, label.shape[3] // 32), mode="nearest")
        x = F.interpolate(head(x, label), scale_factor=2)
        x = middle_1(middle_0(x, label), label)
        for block in others:
            x = block(F.interpolate(x, scale_factor=2), label)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


class LocalBranch(nn.Module):
    def __init__(self, c, blocks):
        super().__init__()
        self.blocks, self.doubling = nn.Sequential(*(ResBlock(4 * c) for _ in range(blocks))), Doubling(4 * c, c)
        self.class_convs, self.conv_img = nn.Conv2d(c, 3 * N, 7), nn.Conv2d(3 * N, 3, 3, padding=1)  # the first holds those of all classes

    def forward(self, x, label):
        features = self.doubling(self.blocks(x))
        kernels, biases = self.class_convs.weight.chunk(N), self.class_convs.bias.chunk(N)
        masked = [features * label[:, i : i + 1] for i in range(N)]
        classes = torch.cat(
            [F.conv2d(F.pad(m, (3, 3, 3, 3), "reflect"), *own) for m, *own in zip(masked, kernels, biases, strict=True)], 1
        ).tanh()
        return torch.tanh(self.conv_img(classes)), classes, torch.stack([m.mean((2, 3)) for m in masked], 1)


class Generator(nn.Module):
    def __init__(self, channels=64, blocks=9):
        super().__init__()
        self.encoder, self.global_branch = Encoder(channels), GlobalBranch(channels)
        self.local_branch, self.class_head = LocalBranch(channels, blocks), nn.Linear(channels, N)
        self.fusion, self.fusion_weights = Doubling(4 * channels, channels), nn.Conv2d(channels, 2, 1)

    def forward(self, label):
        maps = [label]
        for conv in self.encoder.convs:
            maps.append(F.relu(F.instance_norm(conv(maps[-1]))))
        global_ = self.global_branch(maps[5], label)
        local, classes, pooled = self.local_branch(maps[3], label)
        a = self.fusion_weights(self.fusion(maps[3])).softmax(1)
        final = a[:, :1] * local + a[:, 1:] * global_
        return {"final": final, "global": global_, "local": local, "classes": classes, "logits": self.class_head(pooled)}


class PatchDiscriminator(nn.Module):
    def __init__(self, c):
        super().__init__()
        inner = [Spectral(a * c, b * c, 4, s, 2, bias=False) for a, b, s in ((1, 2, 2), (2, 4, 2), (4, 8, 1))]
        self.convs = nn.ModuleList([nn.Conv2d(N + 3, c, 4, 2, 2), *inner, nn.Conv2d(8 * c, 1, 4, 1, 2)])

    def forward(self, x):
        first, *inner, last = self.convs
        maps = [F.leaky_relu(first(x), 0.2)]
        for conv in inner:
            maps.append(F.leaky_relu(F.instance_norm(conv(maps[-1])), 0.2))
        return [*maps, last(maps[-1])]


class Discriminator(nn.Module):
    def __init__(self, c=64):
        super().__init__()
        self.discriminators = nn.ModuleList([PatchDiscriminator(c), PatchDiscriminator(c)])

    def forward(self, label, picture):
        x = torch.cat([label, picture], 1)
        half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return [own(scale) for own, scale in zip(self.discriminators, (x, half), strict=True)]


def set_weights(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.double().load_state_dict({name: torch.from_numpy(array) for name, array in weights(shapes).items()})
    return model


def gradients(model, loss):
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return gradient_summary({name: gradient.numpy() for name, gradient in zip(names, found, strict=True)})


def losses_of(outputs, discriminator, real, label):
    """The generator's losses by name, with the weights of the first phase."""
    pictures = [outputs[name] for name in ("final", "global", "local")]
    true, made = discriminator(label, real), [discriminator(label, picture) for picture in pictures]
    occurs = label.flatten(2).amax(2) > 0
    results = outputs["classes"].reshape(len(real), N, 3, *real.shape[2:])
    losses = {
        "adversarial": sum(-maps[-1].mean() for scales in made for maps in scales) / 2,
        "feature_matching": sum(
            F.l1_loss(made_map, true_map.detach())
            for scales in made
            for own, others in zip(scales, true, strict=True)
            for made_map, true_map in zip(own[:-1], others[:-1], strict=True)
        )
        / 2,
        "l1": sum(F.l1_loss(picture, real) for picture in pictures),
        "class_l1": sum(F.l1_loss(results[:, i], real * label[:, i : i + 1]) for i in range(N)),
        "class_entropy": F.cross_entropy(outputs["logits"][occurs], occurs.nonzero()[:, 1]),
        "variation": sum(picture.diff(dim=axis).square().mean() for picture in pictures for axis in (2, 3)),
    }  # fmt: skip
    factors = {"adversarial": 1, "feature_matching": 8, "l1": 2, "class_l1": 2, "class_entropy": 5, "variation": 4}
    return losses | {"loss": sum(factors[name] * loss for name, loss in losses.items())}


def main():
    generator, discriminator = set_weights(Generator(**LGGAN)), set_weights(Discriminator(LGGAN["channels"]))
    inputs = lggan_inputs()
    label = F.one_hot(torch.from_numpy(inputs["mask"]).long(), N).movedim(3, 1).double()
    real = torch.from_numpy(inputs["image"]).double()
    outputs = generator(label)
    summed = {name: output[:, :, ::2, ::2] if name in ("final", "global", "local") else output for name, output in outputs.items()}
    summed["classes"] = outputs["classes"].mean((2, 3))
    arrays = {name: output.detach().numpy().astype(np.float32) for name, output in summed.items()}
    product = sum((output * torch.from_numpy(normal(name, *output.shape))).sum() for name, output in summed.items())
    arrays["gradients"] = gradients(generator, product)

    losses = losses_of(outputs, discriminator, real, label)
    arrays |= {f"losses/{name}": np.array(loss.item()) for name, loss in losses.items()}
    arrays["losses/gradients"] = gradients(generator, losses["loss"])
    verdict = sum(
        (1 - r[-1]).relu().mean() + (1 + f[-1]).relu().mean()
        for name in ("final", "global", "local")
        for r, f in zip(discriminator(label, real), discriminator(label, outputs[name].detach()), strict=True)
    ) / 2  # fmt: skip
    arrays |= {"discriminator/loss": np.array(verdict.item()), "discriminator/gradients": gradients(discriminator, verdict)}
    with torch.device("meta"):
        arrays["parameters"] = np.array([sum(p.numel() for p in model.parameters()) for model in (Generator(), Discriminator())])
    np.savez_compressed(Path(__file__).with_name("lggan.npz"), **arrays)
    print(arrays["parameters"], {name: float(value) for name, value in arrays.items() if name.startswith("losses/") and value.ndim == 0})


if __name__ == "__main__":
    main()
