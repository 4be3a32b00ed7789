"""The hinge losses of a generator and its discriminator (Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018). Scores are lists of maps.

Means are taken in float32, whatever the maps are.
"""

import jittor as jt


def discriminator_hinge(real: list[jt.Var], fake: list[jt.Var]) -> jt.Var:
    """Scores of true pictures are to be above 1, of made ones below −1; the mean over each map, summed over the maps."""
    return sum(jt.maximum(1 - r.float32(), 0).mean() + jt.maximum(1 + f.float32(), 0).mean() for r, f in zip(real, fake, strict=True))


def generator_hinge(fake: list[jt.Var]) -> jt.Var:
    """Scores of made pictures are to be high."""
    return -sum(f.float32().mean() for f in fake)


def scores(outputs: list[list[jt.Var]]) -> list[jt.Var]:
    """Of what a multi-scale discriminator puts out the last maps, one a scale."""
    return [maps[-1] for maps in outputs]


def feature_matching(fake: list[list[jt.Var]], real: list[list[jt.Var]]) -> jt.Var:
    """Mean absolute difference of a multi-scale discriminator's maps of made and of true pictures, without the scores: summed over the
    layers, the mean over the scales (Wang et al. 2018, "High-resolution image synthesis", eq. 4). No gradient goes by way of `real`."""
    pairs = [pair for made, true in zip(fake, real, strict=True) for pair in zip(made[:-1], true[:-1], strict=True)]
    return sum((f.float32() - r.detach().float32()).abs().mean() for f, r in pairs) / len(fake)
