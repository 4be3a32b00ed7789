"""How far two pictures are apart in the features of a network that has seen many."""

from collections.abc import Callable

import jittor as jt

from models.networks.efficientnet_lite import EfficientNetLite, load_efficientnet_lite
from models.networks.lpips import LPIPS, load_lpips
from models.networks.vgg import VGG19Features, load_vgg19
from models.networks.weights import FOLDER, LITE1, VGG16, VGG16_LPIPS, VGG19, MissingWeights, find_weights, packaged_weights

EPS = 1e-6
LITE_BLOCKS, LITE_CHANNELS = (2, 5, 9, 16), (24, 40, 80, 192)  # of EfficientNet-lite1: at 1/4 to 1/32 of the size
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)  # of relu1_1 to relu5_1


def unit_channels(x: jt.Var) -> jt.Var:
    """Features [B, C, h, w] of length 1 over channels (Zhang et al. 2018, "The unreasonable effectiveness of deep features", eq. 1)."""
    return x / (x.sqr().sum(dim=1, keepdims=True) + EPS).sqrt()


def feature_distance(features: list[jt.Var], others: list[jt.Var]) -> jt.Var:
    """Mean over places of the squared distance of channel-normalised features [B, C_i, h_i, w_i], 0..4, summed over the maps."""
    return sum((unit_channels(a) - unit_channels(b)).sqr().sum(dim=1).mean() for a, b in zip(features, others, strict=True))


def vgg_distance(features: list[jt.Var], others: list[jt.Var]) -> jt.Var:
    """Mean absolute difference of VGG19's five maps, weighted (Wang et al. 2018, "High-resolution image synthesis", section 3.3)."""
    return sum(weight * (a - b).abs().mean() for weight, a, b in zip(VGG_WEIGHTS, features, others, strict=True))


def lite_maps(backbone: EfficientNetLite, picture: jt.Var) -> list[jt.Var]:
    """The maps [B, C_i, h_i, w_i], C_i of LITE_CHANNELS, that pictures [B, 3, H, W] in −1..1 have in EfficientNet-lite1."""
    return backbone.features((picture + 1) / 2, LITE_BLOCKS)


def load_backbone(stage: str, without: str) -> EfficientNetLite | None:
    """EfficientNet-lite1, or None where its package is not installed; then it is said what the stage trains `without`."""
    try:
        return load_efficientnet_lite("lite1", packaged_weights(LITE1))
    except MissingWeights as missing:
        print(f"Stage {stage} trains without {without}, for want of {missing}")
        return None


def load_teacher(stage: str) -> LPIPS | None:
    """LPIPS by VGG16, or None where its weights are not in checkpoints/weights; which it is, is said. The score's LPIPS is by AlexNet: what
    has taught a network does not judge it."""
    try:
        network = load_lpips("vgg", *find_weights(FOLDER, VGG16, VGG16_LPIPS))
        print(f"Stage {stage}: the perceptual loss is LPIPS")
        return network
    except MissingWeights as missing:
        print(f"Stage {stage}: the perceptual loss is not LPIPS, for want of {missing}")
        return None


def picture_distance(stage: str) -> Callable[[jt.Var, jt.Var], jt.Var] | None:
    """The mean distance of pictures [B, 3, H, W] in −1..1: LPIPS, where its weights are in checkpoints/weights, or else the distance in the
    features of EfficientNet-lite1. None where neither is there."""
    teacher = load_teacher(stage)
    if teacher:
        return lambda made, true: teacher(made, true).mean()
    backbone = load_backbone(stage, "a perceptual loss")
    if backbone:
        return lambda made, true: feature_distance(lite_maps(backbone, made), lite_maps(backbone, true)) / len(LITE_BLOCKS)
    return None


class PerceptualLoss:
    """The distance of pictures [B, 3, H, W] in −1..1 in the features of VGG19, where its weights are in checkpoints/weights, or else in
    those of EfficientNet-lite1; which it is, is said. Where neither is there, `network` is None, and it cannot be called."""

    def __init__(self, stage: str):
        self.network: VGG19Features | EfficientNetLite | None
        try:
            (path,) = find_weights(FOLDER, VGG19)
            self.network = load_vgg19(path)
        except MissingWeights as missing:
            self.network = load_backbone(stage, "a perceptual loss")
            if self.network:
                print(f"Stage {stage}: the perceptual loss is that of EfficientNet-lite1; VGG19 would need {missing}")

    def features(self, pictures: jt.Var) -> list[jt.Var]:
        return self.network(pictures) if isinstance(self.network, VGG19Features) else lite_maps(self.network, pictures)

    def __call__(self, made: jt.Var, true: jt.Var) -> jt.Var:
        """The gradient is that of `made` alone."""
        with jt.no_grad():
            others = [map_.stop_grad() for map_ in self.features(true)]
        return self.distance(self.features(made), others)

    def distance(self, features: list[jt.Var], others: list[jt.Var]) -> jt.Var:
        """Of maps that `features` has given: with VGG19 the weighted sum over them, with EfficientNet-lite1 the mean."""
        if isinstance(self.network, VGG19Features):
            return vgg_distance(features, others)
        return feature_distance(features, others) / len(features)
