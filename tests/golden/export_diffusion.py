"""Export diffusion.npz: reference values for models/diffusion, from diffusers and from the papers' formulas.

    python tests/golden/export_diffusion.py

Written with Python 3.11, torch 2.13.0, diffusers 0.42.1, numpy 1.26.4. Keys (T = 1000):

    betas/<schedule>[/zero_snr], alphas_cumprod/...    float32 [T], diffusers' own
    x0, noise_t, t, add_noise/..., velocity/...        [4, 2, 3, 2], t [4]: DDPMScheduler's add_noise and get_velocity
    min_snr/snr, min_snr/<prediction type>             [N], the cases of the formulas, one SNR at a time
    timesteps/<steps>                                  DDPMScheduler's "trailing" timesteps
    x_start [2, 2, 3, 2], step_noise [20, 2, 2, 3, 2]  where each trajectory starts and the noise its steps add
    trajectory/<sampler>/<steps>/<prediction type>[/zero_snr]    [steps, 2, 2, 3, 2], x after each step

The trajectories are those of an analytic model, tanh(0.7 x + 0.9 t / T), on the scaled_linear schedule. Their
schedulers are given the coefficients in float64, so that they differ from ours by formula and not by rounding.
DPMSolverMultistepScheduler keeps alphas_cumprod[-1] at 2^-24 under zero SNR, and stores that here.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
SHAPE = (2, 2, 3, 2)
TRAJECTORIES = {"ddpm": (10, 20), "ddim_eta0": (10, 20), "ddim_eta1": (10,), "dpm++2m": (1, 10, 20)}


def export_schedules():
    out = {}
    for name, theirs in SCHEDULES.items():
        for suffix, zero_snr in (("", False), ("/zero_snr", True)):
            scheduler = DDPMScheduler(beta_schedule=theirs, rescale_betas_zero_snr=zero_snr, **BETAS)
            out[f"betas/{name}{suffix}"] = scheduler.betas.numpy()
            out[f"alphas_cumprod/{name}{suffix}"] = scheduler.alphas_cumprod.numpy()
    return out


def export_training(rng):
    x0, noise = rng.standard_normal((2, 4, 2, 3, 2))
    t = np.array([0, 371, 900, 999])
    out = {"x0": x0, "noise_t": noise, "t": t}
    x0, noise, t = map(torch.from_numpy, (x0, noise, t))
    for suffix, zero_snr in (("", False), ("/zero_snr", True)):
        scheduler = DDPMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=zero_snr, **BETAS)
        out[f"add_noise/scaled_linear{suffix}"] = scheduler.add_noise(x0, noise, t).numpy()
        out[f"velocity/scaled_linear{suffix}"] = scheduler.get_velocity(x0, noise, t).numpy()
    return out


def export_min_snr(gamma=5.0):
    snr = np.array([0, 1e-6, 0.5, 3.9, 4.0, 4.5, 5.0, 5.5, 1200.0])
    weight = {"epsilon": [], "v_prediction": [], "sample": []}
    for s in snr:
        weight["epsilon"].append(1.0 if s <= gamma else gamma / s)
        weight["v_prediction"].append(1.0 if s + 1 <= gamma else gamma / (s + 1))
        weight["sample"].append(s + 1 if s + 1 <= gamma else gamma)
    return {"min_snr/snr": snr} | {f"min_snr/{name}": np.array(values) for name, values in weight.items()}


def export_timesteps():
    out = {}
    for steps in (1, 2, 3, 7, 10, 25, 30, 50, 999, 1000):
        scheduler = DDPMScheduler(timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        out[f"timesteps/{steps}"] = scheduler.timesteps.numpy()
    return out


def alphas_cumprod64(zero_snr):
    betas = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - (rescale_zero_terminal_snr(betas) if zero_snr else betas), 0)


def trajectory(sampler, steps, prediction_type, zero_snr, x, step_noise):
    common = {
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "trailing",
    } | BETAS
    alphas_cumprod = alphas_cumprod64(zero_snr)
    if sampler == "ddpm":
        scheduler = DDPMScheduler(variance_type="fixed_small", clip_sample=False, **common)
    elif sampler.startswith("ddim"):
        scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **common)
    else:
        scheduler = DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            lower_order_final=True,
            final_sigmas_type="zero",
            **common,
        )
        if zero_snr:
            alphas_cumprod[-1] = 2**-24
    scheduler.alphas_cumprod = alphas_cumprod
    scheduler.set_timesteps(steps)
    if sampler == "dpm++2m":  # set_timesteps rounds the sigmas to float32
        picked = alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - picked) / picked) ** 0.5, torch.zeros(1, dtype=torch.float64)])

    x = torch.from_numpy(x)
    states = []
    for t, noise in zip(scheduler.timesteps, torch.from_numpy(step_noise[:steps]), strict=True):
        scheduling_ddpm.randn_tensor = lambda *args, noise=noise, **kwargs: noise  # DDPMScheduler.step takes no noise
        output = torch.tanh(0.7 * x + 0.9 * t.double() / 1000)
        extra = {"eta": 1.0, "variance_noise": noise} if sampler == "ddim_eta1" else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
        states.append(x.numpy())
    return np.stack(states)


def export_trajectories(rng):
    x = rng.standard_normal(SHAPE)
    step_noise = rng.standard_normal((20, *SHAPE))
    out = {"x_start": x, "step_noise": step_noise}
    for sampler, all_steps in TRAJECTORIES.items():
        for steps in all_steps:
            for prediction_type, zero_snr in (("epsilon", False), ("v_prediction", False), ("v_prediction", True)):
                key = f"trajectory/{sampler}/{steps}/{prediction_type}{'/zero_snr' if zero_snr else ''}"
                out[key] = trajectory(sampler, steps, prediction_type, zero_snr, x, step_noise)
                assert out[key].dtype == np.float64 and np.isfinite(out[key]).all(), key
    return out


def main():
    rng = np.random.default_rng(0)
    arrays = export_schedules() | export_min_snr() | export_timesteps()
    arrays |= export_training(rng) | export_trajectories(rng)
    np.savez_compressed(Path(__file__).with_name("diffusion.npz"), **arrays)


if __name__ == "__main__":
    main()
