"""What the UNet's estimates of clean latents look like: a loss on pictures, beside the one on latents."""

from dataclasses import dataclass

import jittor as jt
import numpy as np

from models.diffusion.denoiser import Denoiser
from models.diffusion.schedule import NoiseSchedule
from models.losses.perceptual import picture_distance
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.recompute import recomputation

SHARE = 8  # one example in so many is looked at: a picture costs far more than its latents
LEAST_SNR = 1.0  # of what is looked at; in more noise the estimate is a blur by right, and a network that sees blur would teach it grain


@dataclass
class SeenEstimates:
    """How different the decoded estimates look from the decoded latents. The decoder is frozen; the gradient goes through it."""

    vae: AutoencoderKL
    schedule: NoiseSchedule
    prediction_type: str
    stage: str

    def __post_init__(self) -> None:
        self.distance = picture_distance(self.stage)

    def __call__(self, noisy: jt.Var, output: jt.Var, latent: np.ndarray, t: np.ndarray, part: int = 0, parts: int = 1) -> jt.Var:
        """The mean distance of the least noisy eighth of a batch: noisy latents [B, 4, h, w] at timesteps t [B], the network's output for
        them, and the latents that they are of. 0 where even these are too noisy. The decoder's blocks are computed again for the gradient.

        The batch is one of so many equal parts of a larger one, in the order of their noise (`stratified`). The eighth is of all of it, and
        the mean over the parts of what is returned is its mean distance.
        """
        count = max(1, parts * len(t) // SHARE)
        least = np.argsort(t)[: max(0, count - part * len(t))]
        least = least[self.schedule.snr(t).reshape(-1)[least] >= LEAST_SNR]
        if not len(least) or self.distance is None:
            return jt.zeros(1)
        estimate, _ = Denoiser(lambda x, t: output[least], self.schedule, self.prediction_type).predict(noisy[least], t[least])
        with jt.no_grad():
            true = self.vae.decode(jt.array(latent[least])).stop_grad()
        with recomputation(True):
            made = self.vae.decode(estimate)
        made.sync()  # run together with the backward pass, it would be no recomputation
        return self.distance(made, true) * (parts * len(least) / count)
