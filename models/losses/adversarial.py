"""The hinge losses of a generator and its discriminator (Lim & Ye 2017, "Geometric GAN"; Miyato et al. 2018). Scores are lists of maps."""

import jittor as jt


def discriminator_hinge(real: list[jt.Var], fake: list[jt.Var]) -> jt.Var:
    """Scores of true pictures are to be above 1, of made ones below −1; the mean over each map, summed over the maps."""
    return sum(jt.maximum(1 - r, 0).mean() + jt.maximum(1 + f, 0).mean() for r, f in zip(real, fake, strict=True))


def generator_hinge(fake: list[jt.Var]) -> jt.Var:
    """Scores of made pictures are to be high."""
    return -sum(f.mean() for f in fake)
