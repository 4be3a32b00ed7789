"""How far two pictures are apart in the features of a network that has seen many."""

import jittor as jt

EPS = 1e-6


def unit_channels(x: jt.Var) -> jt.Var:
    """Features [B, C, h, w] of length 1 over channels (Zhang et al. 2018, "The unreasonable effectiveness of deep features", eq. 1)."""
    return x / (x.sqr().sum(dim=1, keepdims=True) + EPS).sqrt()


def feature_distance(features: list[jt.Var], others: list[jt.Var]) -> jt.Var:
    """Mean over places of the squared distance of channel-normalised features [B, C_i, h_i, w_i], 0..4, summed over the maps."""
    return sum((unit_channels(a) - unit_channels(b)).sqr().sum(dim=1).mean() for a, b in zip(features, others, strict=True))
