"""Samplers: from noise to a picture, one network evaluation a timestep.

Each is a generator on a Denoiser that yields x after every step; the last is the picture. One call site for all:

    noise = seeded_noise(seeds, shape=(4, 48, 64))
    timesteps = sampling_timesteps(schedule, steps=25)
    x = jt.array(noise(0))
    for x in tqdm(SAMPLERS["dpm++2m"](denoiser, x, timesteps, noise), total=len(timesteps)):
        x.sync()  # lazily evaluated arrays: run the step now rather than keep the graph of all of them

To start from a noised latent instead, give `start` < 1 and x = schedule.add_noise(latent, noise(0), timesteps[0]).

denoiser: Denoiser, the same for all pictures of the batch
x: np.ndarray or jt.Var [B, ...] at the noise level of timesteps[0]
timesteps: falling integers in [0, T), from `sampling_timesteps`
noise: callable (step) -> noise of x's shape, called with 1, 2, ... by the samplers that add noise (0 is for the start)

The step from the last timestep goes to a clean picture, noise level 0. A first timestep of pure noise (zero terminal
SNR) is taken in its exact limit.
"""

import math

import numpy as np

from utils.errors import UserError


def sampling_timesteps(schedule, steps, start=1.0):
    """`steps` falling timesteps, evenly spaced and ending each interval ("trailing", Lin et al. 2023, table 2).

    start: in (0, 1], share of the process to run; at 1 the first timestep is the last of training, T - 1, as it must
    be where x starts as pure noise. Raises UserError for another start, and for more steps than there are timesteps.
    """
    if not 0 < start <= 1:
        raise UserError(f"sampling cannot start at {start}: choose a number above 0 and at most 1")
    count = max(1, round(start * schedule.num_train_timesteps))
    if not 1 <= steps <= count:
        advice = ", or start earlier, with --prior_start or --ref_start" if start < 1 else ""
        raise UserError(f"{steps} sampling steps are not possible from {start} of the process: choose 1 to {count}{advice}")
    return [round(count * (steps - i) / steps) - 1 for i in range(steps)]


def seeded_noise(seeds, shape):
    """Normal noise for a batch, as a callable step -> float32 [len(seeds), *shape].

    Picture i's noise depends on seeds[i] (a non-negative int) and the step alone, not on its place or companions.
    """

    def noise(step):
        return np.stack([np.random.default_rng((seed, step)).standard_normal(shape, np.float32) for seed in seeds])

    return noise


def ddim(denoiser, x, timesteps, noise=None, eta=0.0):
    """DDIM (Song et al. 2021, eq. 12 and 16). eta = 0 is deterministic and needs no noise."""
    levels = _noise_levels(denoiser.schedule, timesteps)
    for i, t in enumerate(timesteps):
        (alpha, sigma), (next_alpha, next_sigma) = levels[i : i + 2]
        x0, eps = denoiser.predict(x, t)
        std = eta * next_sigma / sigma * math.sqrt(1 - (alpha / next_alpha) ** 2)
        x = x0 * next_alpha + eps * math.sqrt(max(0.0, next_sigma**2 - std**2))
        if std > 0:
            x = x + noise(i + 1) * std
        yield x


def ddpm(denoiser, x, timesteps, noise):
    """Ancestral sampling with the posterior's variance (Ho et al. 2020, eq. 7), over any subset of timesteps.

    That is DDIM at eta = 1 (Song et al. 2021, section 4.1).
    """
    return ddim(denoiser, x, timesteps, noise, eta=1.0)


def dpm_solver_pp_2m(denoiser, x, timesteps, noise=None):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), deterministic: `noise` is taken for the common call and not used.

    First order where no history helps: at the first step, in the one after pure noise (its interval of log SNR is
    infinite, so the extrapolation vanishes), and at the last, whose own interval is.
    """
    levels = _noise_levels(denoiser.schedule, timesteps)
    log_snr = [_half_log_snr(*level) for level in levels]
    last_x0 = None
    for i, t in enumerate(timesteps):
        (alpha, sigma), (next_alpha, next_sigma) = levels[i : i + 2]
        x0, _ = denoiser.predict(x, t)
        estimate = x0
        if 0 < i < len(timesteps) - 1:
            ratio = (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1])  # 1 / r
            estimate = x0 * (1 + ratio / 2) - last_x0 * (ratio / 2)
        last_x0 = x0
        # next_alpha (1 - exp(-h)) written without logarithms, so that alpha = 0 and next_sigma = 0 are exact
        x = x * (next_sigma / sigma) + estimate * (next_alpha - alpha * next_sigma / sigma)
        yield x


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpm++2m": dpm_solver_pp_2m}


def _noise_levels(schedule, timesteps):
    """[(alpha, sigma)] at each timestep, and at last that of a clean picture."""
    return [(schedule.alpha(t), schedule.sigma(t)) for t in timesteps] + [(1.0, 0.0)]


def _half_log_snr(alpha, sigma):
    """lambda = log(alpha / sigma) (Lu et al. 2022, section 2.1), infinite at both ends."""
    if alpha == 0:
        return -math.inf
    return math.log(alpha / sigma) if sigma > 0 else math.inf
