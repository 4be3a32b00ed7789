"""Noise schedule: how much of a picture and how much noise a training timestep holds.

A variance-preserving process over integer timesteps t in [0, T), clean to noisy (Ho et al. 2020, eq. 4):

    x_t = alpha(t) x_0 + sigma(t) noise,    alpha = sqrt(alphas_cumprod),    sigma = sqrt(1 - alphas_cumprod)

Every coefficient is kept in float64 NumPy. At an int it comes back as a Python float; at integers [B] as float32
[B, 1, 1, 1], ready to multiply a batch [B, C, H, W] of np.ndarray or jt.Var. It always stands to the right of the
batch, `x * c`, so that the batch's own `__mul__` decides the type of the result.
"""

import numpy as np

NOISE_SCHEDULES = ("linear", "scaled_linear", "cosine")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")  # diffusers' names: the noise, the velocity, x_0


class NoiseSchedule:
    """A noise schedule given by its cumulative products of 1 - beta.

    alphas_cumprod: decreasing values in [0, 1), [T]. Only the last may be 0: pure noise, "zero terminal SNR".
    Raises ValueError for anything else.
    """

    def __init__(self, alphas_cumprod):
        alphas_cumprod = np.array(alphas_cumprod, dtype=np.float64)
        if alphas_cumprod.ndim != 1 or len(alphas_cumprod) == 0:
            raise ValueError(f"alphas_cumprod has shape {alphas_cumprod.shape}; one value a timestep is needed")
        if not (alphas_cumprod[0] < 1 and alphas_cumprod[-1] >= 0 and np.all(np.diff(alphas_cumprod) < 0)):
            raise ValueError("alphas_cumprod must fall from below 1 to no less than 0")
        self.alphas_cumprod = alphas_cumprod
        self._alpha = np.sqrt(alphas_cumprod)
        self._sigma = np.sqrt(1 - alphas_cumprod)
        self._snr = alphas_cumprod / (1 - alphas_cumprod)

    @classmethod
    def make(
        cls,
        name,  # "linear": betas evenly spaced; "scaled_linear": their square roots are (latent diffusion); "cosine"
        num_train_timesteps=1000,
        beta_start=0.00085,  # first and last beta of the two linear schedules; "cosine" has none
        beta_end=0.012,
        rescale_zero_snr=False,  # make the last timestep pure noise
    ):
        """Build a schedule by name. Raises ValueError for an unknown name."""
        if name == "linear":  # Ho et al. 2020, section 4
            betas = np.linspace(beta_start, beta_end, num_train_timesteps)
        elif name == "scaled_linear":  # Rombach et al. 2022, as published with Stable Diffusion
            betas = np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
        elif name == "cosine":  # Nichol & Dhariwal 2021, eq. 17, betas clipped as they say below it
            time = np.linspace(0, 1, num_train_timesteps + 1)
            f = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
        else:
            raise ValueError(f"noise schedule {name!r} is unknown: choose linear, scaled_linear or cosine")
        alphas_cumprod = np.cumprod(1 - betas)
        return cls(_rescale_zero_snr(alphas_cumprod) if rescale_zero_snr else alphas_cumprod)

    @property
    def num_train_timesteps(self):
        """T, the number of timesteps."""
        return len(self.alphas_cumprod)

    def alpha(self, t):
        """Share of the picture in x_t, in [0, 1)."""
        return _at(self._alpha, t)

    def sigma(self, t):
        """Share of the noise in x_t, in (0, 1]."""
        return _at(self._sigma, t)

    def snr(self, t):
        """Signal-to-noise ratio alpha^2 / sigma^2, in [0, inf)."""
        return _at(self._snr, t)

    def add_noise(self, x0, noise, t):
        """x_t of x_0 (Ho et al. 2020, eq. 4). x0, noise: [B, C, H, W]; t: int or integers [B]."""
        return x0 * self.alpha(t) + noise * self.sigma(t)

    def target(self, x0, noise, t, prediction_type):
        """What a network of this prediction type should answer for x_t. Arguments as in `add_noise`.

        The velocity is v = alpha noise - sigma x_0 (Salimans & Ho 2022, section 4).
        """
        check_prediction_type(prediction_type)
        if prediction_type == "epsilon":
            return noise
        if prediction_type == "sample":
            return x0
        return noise * self.alpha(t) - x0 * self.sigma(t)

    def min_snr_weight(self, t, prediction_type, gamma=5.0):
        """Min-SNR weight on the squared error of the prediction (Hang et al. 2023): (0, 1], for "sample" [1, gamma].

        Seen as a weight on the error of x_0, for which an error of the noise counts SNR times and one of the
        velocity SNR + 1 times:

            epsilon         min(SNR, gamma)        so the noise is weighted by     min(SNR, gamma) / SNR
            v_prediction    min(SNR + 1, gamma)    so the velocity is weighted by  min(SNR + 1, gamma) / (SNR + 1)
            sample          min(SNR + 1, gamma)

        Hang et al. write min(SNR, gamma) for all three. With zero terminal SNR that gives the last timestep a
        weight of 0 and those before it next to nothing, although each picture starts there and owes them its
        brightness and layout. So for v and x_0 it is the velocity's own weight, SNR + 1 (Salimans & Ho 2022), that is
        cut at gamma: 1 at zero SNR, and the published weight wherever SNR >= gamma.
        """
        check_prediction_type(prediction_type)
        snr = self.snr(t)
        if prediction_type == "epsilon":
            return gamma / np.maximum(snr, gamma)  # = min(snr, gamma) / snr, also in the limit of zero SNR
        if prediction_type == "sample":
            return np.minimum(snr + 1, gamma)
        return np.minimum(snr + 1, gamma) / (snr + 1)


def check_prediction_type(prediction_type):
    """Raise ValueError unless it is one of PREDICTION_TYPES."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction type {prediction_type!r} is unknown: choose {', '.join(PREDICTION_TYPES)}")


def _at(values, t):
    """values[t]: a Python float for an int; float32 [B, 1, 1, 1] for integers [B]."""
    if np.min(t) < 0:
        raise IndexError(f"timestep {np.min(t)} is negative")  # NumPy would count it from the end
    picked = values[t]
    return float(picked) if np.ndim(t) == 0 else picked.astype(np.float32).reshape(-1, 1, 1, 1)


def _rescale_zero_snr(alphas_cumprod):
    """Shift and scale sqrt(alphas_cumprod) so that the last is 0 and the first stays (Lin et al. 2023, algorithm 1)."""
    alpha = np.sqrt(alphas_cumprod)
    return ((alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))) ** 2


def stratified(times: np.ndarray, timesteps: int, part: int = 0, parts: int = 1) -> np.ndarray:
    """Timesteps [B] of times 0..1 [B], each in a stratum of its own: every batch sees all levels of noise, and its loss varies less.

    The batch is one of so many equal parts of a larger one, which is spread as a whole.
    """
    places = part * len(times) + np.arange(len(times))
    return (timesteps * (places + times) / (parts * len(times))).astype(int)
