"""How far pictures are from those they are to be, and the losses of a variational autoencoder (Kingma & Welling 2014)."""

import jittor as jt

from models.networks.layers import cell_means


def l1(error: jt.Var) -> jt.Var:
    """Mean absolute error, given the difference of two pictures [B, 3, H, W]: up to constants the negative log-likelihood of a Laplace
    distribution."""
    return error.abs().mean()


def tone(error: jt.Var, cell: int) -> jt.Var:
    """Mean absolute error of the means over cells of so many pixels a side: of colour, which is to be learnt before texture."""
    return cell_means(error, cell).abs().mean()


def kl_divergence(mean: jt.Var, std: jt.Var, logvar: jt.Var) -> jt.Var:
    """KL(N(mean, std²) ‖ N(0, 1)), a mean over latents [B, 4, h, w], with logvar = log std² (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.sqr() + std.sqr() - 1 - logvar).mean()


def total_variation(picture: jt.Var) -> jt.Var:
    """Mean squared difference of neighbours in pictures [B, C, H, W], of those beside and those above each other, added up: grain costs."""
    across, down = picture[..., 1:] - picture[..., :-1], picture[:, :, 1:] - picture[:, :, :-1]
    return across.sqr().mean() + down.sqr().mean()
