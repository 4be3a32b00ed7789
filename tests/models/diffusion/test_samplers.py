import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.diffusion.denoiser import Denoiser, guidance_branches, guide
from models.diffusion.samplers import SAMPLERS, ddim, ddpm, dpm_solver_pp_2m, sampling_timesteps, seeded_noise
from models.diffusion.schedule import NoiseSchedule

ROOT = Path(__file__).parents[3]
REFERENCE_SAMPLERS = {
    "ddpm": ddpm,
    "ddim_eta0": ddim,
    "ddim_eta1": lambda *args: ddim(*args, eta=1.0),
    "dpm++2m": dpm_solver_pp_2m,
}

with np.load(ROOT / "tests" / "golden" / "diffusion.npz") as file:
    GOLDEN = dict(file)


def tanh_model(x, t):
    return np.tanh(0.7 * x + 0.9 * t / 1000)


def last(states):
    *_, x = states
    return x


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith("trajectory/")])
def test_every_step_agrees_with_diffusers(key):
    _, name, steps, prediction_type, *zero_snr = key.split("/")
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=bool(zero_snr))
    if name == "dpm++2m" and zero_snr:  # diffusers stops just short of pure noise here
        schedule = NoiseSchedule([*schedule.alphas_cumprod[:-1], 2**-24])
    denoiser = Denoiser(tanh_model, schedule, prediction_type)
    timesteps = sampling_timesteps(schedule, int(steps))
    noise = lambda step: GOLDEN["step_noise"][step - 1]  # noqa: E731
    states = list(REFERENCE_SAMPLERS[name](denoiser, GOLDEN["x_start"], timesteps, noise))
    assert len(states) == len(GOLDEN[key])
    for step, (state, expected) in enumerate(zip(states, GOLDEN[key], strict=True)):
        np.testing.assert_allclose(state, expected, rtol=1e-6, atol=1e-6, err_msg=f"step {step}")


def gaussian_denoiser(mean, std, zero_snr, prediction_type="v_prediction"):
    """The best possible model where every number of a picture is drawn from N(mean, std^2)."""
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=zero_snr)

    def model(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noise = (x - alpha * mean) * sigma / (alpha**2 * std**2 + sigma**2)
        if prediction_type == "epsilon":
            return noise
        return noise * alpha - (x * alpha * std**2 + mean * sigma**2) / (alpha**2 * std**2 + sigma**2) * sigma

    return Denoiser(model, schedule, prediction_type)


def gaussian_solution(schedule, x, t, mean, std):
    """Where the probability flow ODE carries x from the last timestep to timestep t: quantile to quantile."""
    x = (x - schedule.alpha(999) * mean) / math.hypot(schedule.alpha(999) * std, schedule.sigma(999))
    return schedule.alpha(t) * mean + x * math.hypot(schedule.alpha(t) * std, schedule.sigma(t))


@pytest.mark.parametrize("prediction_type, zero_snr", [("epsilon", False), ("v_prediction", False), ("v_prediction", True)])
def test_solvers_converge_to_the_known_solution(prediction_type, zero_snr):
    mean, std = 1.3, 0.4
    denoiser = gaussian_denoiser(mean, std, zero_snr, prediction_type)
    schedule = denoiser.schedule
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))

    def error(sampler, steps):  # on arrival at t = 199
        timesteps = sampling_timesteps(schedule, steps)
        state = list(sampler(denoiser, x, timesteps))[timesteps.index(199) - 1]
        return np.abs(state - gaussian_solution(schedule, x, 199, mean, std)).max()

    assert error(ddim, 100) / error(ddim, 200) == pytest.approx(2, rel=0.1)  # first order
    assert error(dpm_solver_pp_2m, 100) / error(dpm_solver_pp_2m, 200) == pytest.approx(4, rel=0.1)  # second order
    assert error(dpm_solver_pp_2m, 25) < error(ddim, 25) / 5


@pytest.mark.parametrize("zero_snr", [False, True])
def test_dpm_solver_ends_nearer_to_the_known_solution_than_ddim(zero_snr):
    mean, std = 1.3, 0.4
    denoiser = gaussian_denoiser(mean, std, zero_snr)
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    at_zero = gaussian_solution(denoiser.schedule, x, 0, mean, std)
    # t = 0 is not quite clean: from there to noise level 0
    alpha, sigma = denoiser.schedule.alpha(0), denoiser.schedule.sigma(0)
    solution = mean + std * (at_zero - alpha * mean) / math.hypot(alpha * std, sigma)

    def error(sampler, steps):
        return np.abs(last(sampler(denoiser, x, sampling_timesteps(denoiser.schedule, steps))) - solution).max()

    assert error(dpm_solver_pp_2m, 25) < 0.75 * error(ddim, 25)
    assert error(dpm_solver_pp_2m, 1000) < 0.003


@pytest.mark.parametrize("zero_snr", [False, True])
def test_ddpm_draws_from_the_distribution(zero_snr):
    mean, std = 1.3, 0.4
    denoiser = gaussian_denoiser(mean, std, zero_snr)
    noise = seeded_noise([5], (1, 100, 100))
    x = last(ddpm(denoiser, noise(0), sampling_timesteps(denoiser.schedule, 1000), noise))
    assert x.mean() == pytest.approx(mean, abs=0.015)
    assert x.std() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 16, 1000])
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_known_picture_is_recovered_exactly(name, steps):
    """Every answer being the same picture, the last step leaves nothing but it."""
    schedule = NoiseSchedule.make("cosine", rescale_zero_snr=True)
    picture = np.random.default_rng(2).standard_normal((2, 3, 4, 5))
    denoiser = Denoiser(lambda x, t: picture, schedule, "sample")
    noise = seeded_noise([1, 2], picture.shape[1:])
    states = list(SAMPLERS[name](denoiser, noise(0), sampling_timesteps(schedule, steps), noise))
    assert len(states) == steps
    np.testing.assert_allclose(states[-1], picture, rtol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_ends_at_the_estimate_of_the_picture(name):
    schedule = NoiseSchedule.make("scaled_linear")
    denoiser = Denoiser(tanh_model, schedule, "v_prediction")
    noise = seeded_noise([1], (1, 2, 2))
    timesteps = sampling_timesteps(schedule, 20)
    *_, before, x = SAMPLERS[name](denoiser, noise(0), timesteps, noise)
    np.testing.assert_array_equal(x, denoiser.predict(before, timesteps[-1])[0])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule_name", ["linear", "scaled_linear", "cosine"])
def test_pure_noise_is_the_limit_of_almost_pure_noise(name, schedule_name):
    exact = NoiseSchedule.make(schedule_name, rescale_zero_snr=True)
    almost = NoiseSchedule([*exact.alphas_cumprod[:-1], 1e-40])
    noise = seeded_noise([1], (1, 2, 2))
    timesteps = sampling_timesteps(exact, 4)
    with np.errstate(all="raise"):
        paths = [
            list(SAMPLERS[name](Denoiser(tanh_model, schedule, "v_prediction"), noise(0), timesteps, noise)) for schedule in (exact, almost)
        ]
    # the logarithm of the signal-to-noise ratio at 1e-40 is -46, far from infinite still: hence the 5 %
    np.testing.assert_allclose(paths[0][0], paths[1][0], rtol=1e-12)
    np.testing.assert_allclose(paths[0], paths[1], rtol=0.05, atol=0.02)


def test_history_of_pure_noise_is_not_extrapolated():
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)
    denoiser = Denoiser(tanh_model, schedule, "v_prediction")
    x = np.random.default_rng(4).standard_normal((1, 2, 3, 4))
    timesteps = sampling_timesteps(schedule, 10)
    first_order, second_order = (list(sampler(denoiser, x, timesteps)) for sampler in (ddim, dpm_solver_pp_2m))
    np.testing.assert_allclose(second_order[:2], first_order[:2], rtol=1e-12)
    assert np.abs(second_order[2] - first_order[2]).max() > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_depends_on_its_own_seed_alone(name):
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)
    denoiser = Denoiser(tanh_model, schedule, "v_prediction")
    timesteps = sampling_timesteps(schedule, 6)

    def sample(seeds):
        noise = seeded_noise(seeds, (2, 3, 4))
        return last(SAMPLERS[name](denoiser, noise(0), timesteps, noise))

    np.testing.assert_array_equal(sample([7, 2**63]), np.concatenate([sample([7]), sample([2**63])]))
    assert np.abs(sample([7]) - sample([8])).min() > 0


def test_noise_differs_from_step_to_step():
    noise = seeded_noise([3, 3], (4, 4))
    assert noise(1).dtype == np.float32 and noise(1).shape == (2, 4, 4)
    np.testing.assert_array_equal(noise(1)[0], noise(1)[1])
    np.testing.assert_array_equal(noise(1), noise(1))
    assert np.abs(noise(1) - noise(2)).min() > 0


def test_sampling_may_start_from_a_noised_picture():
    mean, std = 1.3, 0.4
    denoiser = gaussian_denoiser(mean, std, zero_snr=True)
    noise = seeded_noise([1, 2], (3, 4, 5))
    picture = np.float32(mean + 0.5 * std) + np.zeros((2, 3, 4, 5), np.float32)
    timesteps = sampling_timesteps(denoiser.schedule, 25, start=0.1)
    x = denoiser.schedule.add_noise(picture, noise(0), timesteps[0])
    assert timesteps[0] == 99
    assert np.abs(last(dpm_solver_pp_2m(denoiser, x, timesteps)) - picture).mean() < std


@pytest.mark.parametrize("name", SAMPLERS)
def test_jittor_gives_what_numpy_gives(name):
    """The documented call, with two guidance scales, once in NumPy and once in Jittor."""
    import jittor as jt

    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)
    branches = guidance_branches({"mask": 3.0, "reference": 1.5})
    shift = np.repeat([("mask" in branch.kept) + 2.0 * ("reference" in branch.kept) for branch in branches], 2).astype(np.float32)
    shift = shift.reshape(-1, 1, 1, 1)
    noise = seeded_noise([1, 2], (2, 3, 4))
    timesteps = sampling_timesteps(schedule, 4)

    def sample(asarray, concat, tanh):
        def model(x, t):
            return guide(branches, tanh(concat([x] * len(branches)) * 0.7 + asarray(shift) * 0.1 + t / 1000))

        x = schedule.add_noise(asarray(noise(7)), noise(0), timesteps[0])
        return last(SAMPLERS[name](Denoiser(model, schedule, "v_prediction"), x, timesteps, noise))

    expected = sample(np.asarray, np.concatenate, np.tanh)
    got = sample(jt.array, jt.concat, jt.tanh)
    assert isinstance(got, jt.Var) and got.dtype == "float32"
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_jittor_batches_meet_their_coefficients():
    import jittor as jt

    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)
    x0, noise = np.random.default_rng(3).standard_normal((2, 3, 1, 2, 2)).astype(np.float32)
    t = np.array([0, 500, 999])
    for function in (
        lambda x0, noise: schedule.add_noise(x0, noise, t),
        lambda x0, noise: schedule.target(x0, noise, t, "v_prediction"),
        lambda x0, noise: (x0 - noise) * (x0 - noise) * schedule.min_snr_weight(t, "v_prediction"),
    ):
        got = function(jt.array(x0), jt.array(noise))
        assert isinstance(got, jt.Var) and got.dtype == "float32"
        np.testing.assert_allclose(got.numpy(), function(x0, noise), rtol=1e-5, atol=1e-6)


def test_no_framework_is_needed():
    code = "import sys, models.diffusion.samplers, models.diffusion.denoiser; print('jittor' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
