"""The linear start is the exact expectation under its model, finds the model of a data set, and says nothing where it is off."""

import jittor as jt
import numpy as np
import pytest
from scipy.fft import dctn

from models.diffusion.schedule import PREDICTION_TYPES, NoiseSchedule
from models.networks.conditioner import Conditions, denoise
from models.networks.linear_start import CASES, LinearStart, dct, dct_matrix, expected, heights, noisy_start

C, H, W = 2, 4, 6
RNG = np.random.default_rng(0)
SCHEDULE = NoiseSchedule.make("scaled_linear", rescale_zero_snr=True)


def test_the_transform_is_the_orthonormal_dct_and_its_inverse():
    x = RNG.standard_normal((3, C, H, W)).astype(np.float32)
    np.testing.assert_allclose(dct(jt.array(x)).numpy(), dctn(x, axes=(2, 3), norm="ortho"), atol=1e-5)
    np.testing.assert_allclose(dct(dct(jt.array(x)), inverse=True).numpy(), x, atol=1e-5)


@pytest.mark.parametrize("t", [0, 300, 700, 999])
def test_the_expectation_is_that_of_the_gaussian_with_this_mean_and_covariance(t):
    """Against the conditional mean by the dense covariance, pixel by pixel. At t = 999 there is nothing but noise."""
    power = RNG.uniform(0.01, 3, (1, C, H, W)).astype(np.float32)
    mean, x = RNG.standard_normal((2, 1, C, H, W)).astype(np.float32)
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    basis = np.kron(dct_matrix(H), dct_matrix(W)).astype(np.float64)
    x0, noise = (value.numpy() for value in expected(jt.array(x), alpha, sigma, jt.array(mean), jt.array(power)))
    for c in range(C):
        covariance = basis.T @ np.diag(power[0, c].ravel()) @ basis
        rest = np.linalg.solve(alpha**2 * covariance + sigma**2 * np.eye(H * W), (x - alpha * mean)[0, c].ravel())
        np.testing.assert_allclose(x0[0, c].ravel(), mean[0, c].ravel() + alpha * covariance @ rest, atol=2e-4)
        np.testing.assert_allclose(noise[0, c].ravel(), sigma * rest, atol=2e-4)


def test_where_painting_starts_has_the_mean_and_the_variance_of_noisy_latents():
    """α M, and by channel α² S + σ² on average; where there is nothing but noise, that noise."""
    power = jt.array(RNG.uniform(0.01, 9, (1, C, H, W)).astype(np.float32))
    mean, noise = (jt.array(RNG.standard_normal(shape).astype(np.float32)) for shape in ((1, C, H, W), (4000, C, H, W)))
    started = noisy_start(noise, 0.6, 0.8, mean, power)
    assert abs(started.mean(dim=0) - 0.6 * mean[0]).max().item() < 0.15  # of 4000 with a deviation of up to 2
    variance = (started.numpy() - 0.6 * mean.numpy()).var(axis=(0, 2, 3))
    np.testing.assert_allclose(variance, 0.36 * power.numpy()[0].mean(axis=(1, 2)) + 0.64, rtol=0.03)
    assert np.array_equal(noisy_start(noise, 0.0, 1.0, mean, power).numpy(), noise.numpy())


def told(mask_told, known, b=2, size=(H, W)):
    """Class shares of two classes that change from picture to picture, and the mean of a reference's latents."""
    shares = np.random.default_rng(1).dirichlet([1, 1], (b, *size)).transpose(0, 3, 1, 2).astype(np.float32)
    reference = np.random.default_rng(2).standard_normal((b, C)).astype(np.float32)
    return jt.array(shares * mask_told), jt.array(reference), jt.array(np.full(b, known, np.float32))


def test_it_says_nothing_before_it_is_measured():
    """As published weights want it: the expected velocity is 0."""
    start = LinearStart(C, 2, (H, W))
    assert not start.is_measured()
    x = jt.array(RNG.standard_normal((2, C, H, W)).astype(np.float32))
    x0, noise = expected(x, 0.6, 0.8, *start.prior(*told(1, 0)))
    np.testing.assert_allclose((noise * 0.6 - x0 * 0.8).numpy(), 0, atol=1e-5)


def data_set(count=400):
    """Pictures that are their own mean, a number for each class and its slope, and noise of a known power."""
    rng = np.random.default_rng(3)
    classes, slopes = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([[0.0, 0.7], [-0.3, 0.0]])
    power = 0.01 + np.exp(-np.add.outer(np.arange(H), np.arange(W)))
    for _ in range(count):
        shares = rng.dirichlet([0.3, 0.3], (H, W)).transpose(2, 0, 1)
        rest = dct_matrix(H).T @ (rng.standard_normal((C, H, W)) * np.sqrt(power)) @ dct_matrix(W)
        part = np.tensordot(classes, shares, 1) + np.tensordot(slopes, shares, 1) * heights(H)
        yield rng.standard_normal((C, 1, 1)) + 5 + part - part.mean(axis=(1, 2), keepdims=True) + rest, shares.astype(np.float32)


def test_it_finds_the_means_of_classes_and_the_power_of_the_rest():
    start = LinearStart(C, 2, (H, W))
    start.measure(data_set)
    assert start.is_measured()
    np.testing.assert_allclose(start.mean.numpy(), 5 + 0, atol=0.2)
    m, n = start.classes.numpy().reshape(2, C, 2)
    np.testing.assert_allclose(m[:, 0] - m[:, 1], [3.0, 0.5], atol=0.2)  # what all classes have in common is the picture's own mean
    np.testing.assert_allclose(n[:, 0] - n[:, 1], [-0.7, -0.3], atol=0.1)
    power = start.power.numpy()
    assert power.shape == (CASES, C, H, W) and (power > 0).all()
    # the more is told, the less is left, in the mean and elsewhere
    assert (power[3, :, 0, 0] < 0.1 * power[0, :, 0, 0]).all() and power[3, :, 1:].sum() < 0.5 * power[1, :, 1:].sum()
    np.testing.assert_allclose(power[3, :, 2, 2], 0.01 + np.exp(-4), rtol=0.5)


@pytest.mark.parametrize("mask_told, known, case", [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)])
def test_each_combination_of_absent_conditions_has_a_mean_and_a_rest_of_its_own(mask_told, known, case):
    start = LinearStart(C, 2, (H, W))
    start.measure(data_set)
    shares, reference, known_var = told(mask_told, known)
    mean, power = (value.numpy() for value in start.prior(shares, reference, known_var))
    base = reference.numpy() if known else np.tile(start.mean.numpy(), (2, 1))
    m, n = start.classes.numpy().reshape(2, C, 2)
    part = np.einsum("kc,bchw->bkhw", m, shares.numpy()) + np.einsum("kc,bchw->bkhw", n, shares.numpy()) * heights(H)
    np.testing.assert_allclose(mean, base[:, :, None, None] + part, atol=1e-5)
    np.testing.assert_allclose(power, np.tile(start.power.numpy()[case], (2, 1, 1, 1)), rtol=1e-5)


def test_another_size_has_the_same_powers_by_share_of_the_highest_frequency():
    start = LinearStart(C, 2, (H, W))
    start.measure(data_set)
    mean, power = start.prior(*told(1, 1, size=(2 * H, 3 * W)))
    assert tuple(mean.shape) == tuple(power.shape) == (2, C, 2 * H, 3 * W)
    np.testing.assert_allclose(power.numpy()[0, :, 0, 0], start.power.numpy()[3, :, 0, 0], rtol=1e-4)
    np.testing.assert_allclose(power.numpy()[0, :, -1, -1], start.power.numpy()[3, :, -1, -1], rtol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_network_that_says_nothing_predicts_what_is_expected(prediction_type):
    start = LinearStart(C, 2, (H, W))
    start.measure(data_set)
    conditions = Conditions(shares=told(1, 1)[0], prior=start.prior(*told(1, 1)))
    x, t = RNG.standard_normal((2, C, H, W)).astype(np.float32), np.array([100, 800])

    def silent(inputs, *_, **__):
        assert inputs.shape[1] == C + 2  # the class shares come with the latents
        return jt.zeros_like(inputs[:, :C])

    output = denoise(silent, jt.array(x), t, conditions, SCHEDULE, prediction_type).numpy()
    x0, noise = (value.numpy() for value in expected(jt.array(x), SCHEDULE.alpha(t), SCHEDULE.sigma(t), *conditions.prior))
    np.testing.assert_allclose(output, SCHEDULE.target(x0, noise, t, prediction_type), atol=1e-5)
