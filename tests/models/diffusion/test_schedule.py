from pathlib import Path

import numpy as np
import pytest

from models.diffusion.samplers import sampling_timesteps
from models.diffusion.schedule import PREDICTION_TYPES, NoiseSchedule
from utils.errors import UserError

NAMES = ("linear", "scaled_linear", "cosine")


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[2] / "golden" / "diffusion.npz") as file:
        return dict(file)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_schedule_agrees_with_diffusers(golden, name, zero_snr):
    key = name + ("/zero_snr" if zero_snr else "")
    alphas_cumprod = NoiseSchedule.make(name, rescale_zero_snr=zero_snr).alphas_cumprod
    assert alphas_cumprod.dtype == np.float64
    # diffusers multiplies 1000 factors in float32
    np.testing.assert_allclose(alphas_cumprod, golden[f"alphas_cumprod/{key}"], rtol=2e-5, atol=2e-7)
    betas = 1 - alphas_cumprod / np.concatenate([[1], alphas_cumprod[:-1]])
    np.testing.assert_allclose(betas, golden[f"betas/{key}"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_zero_snr_ends_in_pure_noise_and_keeps_the_start(name):
    plain, rescaled = (NoiseSchedule.make(name, rescale_zero_snr=zero_snr) for zero_snr in (False, True))
    assert rescaled.alpha(999) == 0 and rescaled.sigma(999) == 1 and rescaled.snr(999) == 0
    assert rescaled.alpha(0) == pytest.approx(plain.alpha(0), rel=1e-12)
    assert plain.alpha(999) > 0
    # algorithm 1 is linear in alpha
    share = (rescaled.alpha(500) - 0) / rescaled.alpha(0)
    assert share == pytest.approx((plain.alpha(500) - plain.alpha(999)) / (plain.alpha(0) - plain.alpha(999)), rel=1e-9)


def test_add_noise_and_velocity_agree_with_diffusers(golden):
    x0, noise, t = golden["x0"], golden["noise_t"], golden["t"]
    for key, zero_snr in (("scaled_linear", False), ("scaled_linear/zero_snr", True)):
        schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=zero_snr)
        np.testing.assert_allclose(schedule.add_noise(x0, noise, t), golden[f"add_noise/{key}"], rtol=1e-5, atol=1e-6)
        velocity = schedule.target(x0, noise, t, "v_prediction")
        np.testing.assert_allclose(velocity, golden[f"velocity/{key}"], rtol=1e-5, atol=1e-6)
        assert schedule.target(x0, noise, t, "epsilon") is noise
        assert schedule.target(x0, noise, t, "sample") is x0


def test_timestep_arrays_and_ints_agree():
    schedule = NoiseSchedule.make("cosine", rescale_zero_snr=True)
    t = np.array([3, 999])
    for coefficient in (schedule.alpha, schedule.sigma, schedule.snr):
        batch = coefficient(t)
        assert batch.shape == (2, 1, 1, 1) and batch.dtype == np.float32
        for value, one in zip(batch.flat, t, strict=True):
            assert isinstance(coefficient(int(one)), float)
            assert value == pytest.approx(coefficient(int(one)), rel=1e-7)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_min_snr_weight_agrees_with_the_formulas(golden, prediction_type):
    snr, expected = golden["min_snr/snr"], golden[f"min_snr/{prediction_type}"]
    schedule = NoiseSchedule((snr / (1 + snr))[::-1])
    weight = schedule.min_snr_weight(np.arange(len(snr)), prediction_type, gamma=5)
    assert weight.shape == (len(snr), 1, 1, 1) and weight.dtype == np.float32
    np.testing.assert_allclose(weight.ravel()[::-1], expected, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_min_snr_weight_trains_the_terminal_step(prediction_type):
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)
    weight = schedule.min_snr_weight(np.arange(1000), prediction_type)
    assert np.isfinite(weight).all() and weight.min() > 0
    assert weight[-1] == 1


def test_trailing_timesteps_agree_with_diffusers(golden):
    schedule = NoiseSchedule.make("linear")
    keys = [key for key in golden if key.startswith("timesteps/")]
    assert keys
    for key in keys:
        timesteps = sampling_timesteps(schedule, int(key.split("/")[1]))
        assert all(type(t) is int for t in timesteps)
        np.testing.assert_array_equal(timesteps, golden[key], err_msg=key)


@pytest.mark.parametrize("num_train_timesteps", [1, 7, 100])
@pytest.mark.parametrize("start", [0.13, 0.5, 1.0])
def test_timesteps_fall_from_the_start_to_no_less_than_0(num_train_timesteps, start):
    schedule = NoiseSchedule.make("linear", num_train_timesteps)
    count = max(1, round(start * num_train_timesteps))
    for steps in range(1, count + 1):
        timesteps = sampling_timesteps(schedule, steps, start)
        assert len(timesteps) == steps and timesteps[0] == count - 1 and timesteps[-1] >= 0
        assert all(np.diff(timesteps) < 0)
    with pytest.raises(UserError, match=f"choose 1 to {count}{', or start earlier' if start < 1 else '$'}"):
        sampling_timesteps(schedule, count + 1, start)


@pytest.mark.parametrize("steps, start", [(0, 1.0), (-3, 1.0), (10, 0.0), (10, 1.5), (10, float("nan"))])
def test_impossible_timesteps_are_refused(steps, start):
    with pytest.raises(UserError):
        sampling_timesteps(NoiseSchedule.make("linear"), steps, start)


def test_mistakes_are_refused():
    schedule = NoiseSchedule.make("linear")
    with pytest.raises(ValueError, match="choose linear, scaled_linear or cosine"):
        NoiseSchedule.make("quadratic")
    with pytest.raises(ValueError, match="epsilon, v_prediction, sample"):
        schedule.target(np.zeros(1), np.zeros(1), 0, "v")
    with pytest.raises(ValueError, match="epsilon, v_prediction, sample"):
        schedule.min_snr_weight(0, "eps")
    for t in (-1, 1000, np.array([5, -1])):
        with pytest.raises(IndexError):
            schedule.alpha(t)


@pytest.mark.parametrize(
    "alphas_cumprod",
    [[], [[0.9]], [0.5, 0.6], [0.5, 0.5], [1.0, 0.5], [0.5, -0.1], [0.5, 0.0, 0.0], [np.nan, 0.1], [0.9, np.nan, 0.1]],
)
def test_alphas_cumprod_must_fall_within_0_and_1(alphas_cumprod):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        NoiseSchedule(alphas_cumprod)
