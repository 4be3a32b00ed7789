"""The losses are what their formulas say, computed in NumPy."""

import jittor as jt
import numpy as np
import pytest

from models.losses.adversarial import discriminator_hinge, feature_matching, generator_hinge, scores
from models.losses.perceptual import feature_distance
from models.losses.reconstruction import kl_divergence, l1, tone
from models.losses.segmentation import negative_log_likelihood

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def maps():
    return [drawn(2, 3, 4, 5), drawn(2, 6, 2, 3)]


def var(arrays):
    return [jt.array(array) for array in arrays]


def test_the_hinge_asks_for_a_margin_and_no_more():
    real, fake = maps(), maps()
    expected = sum(np.maximum(1 - r, 0).mean() + np.maximum(1 + f, 0).mean() for r, f in zip(real, fake, strict=True))
    assert discriminator_hinge(var(real), var(fake)).item() == pytest.approx(expected, rel=1e-5)
    assert discriminator_hinge(var([r * 0 + 1.5 for r in real]), var([f * 0 - 1.5 for f in fake])).item() == 0
    assert generator_hinge(var(fake)).item() == pytest.approx(-sum(f.mean() for f in fake), rel=1e-4)


def test_maps_of_a_discriminator_are_compared_but_for_the_scores():
    fake, real = ([[drawn(1, 2, 3, 4), drawn(1, 4, 2, 2), drawn(1, 1, 3, 3)] for _ in range(2)] for _ in range(2))
    expected = sum(np.abs(f[i] - r[i]).mean() for f, r in zip(fake, real, strict=True) for i in range(2)) / 2
    made, true = [var(maps) for maps in fake], [var(maps) for maps in real]
    assert feature_matching(made, true).item() == pytest.approx(expected, rel=1e-5)
    assert [score.shape for score in scores(made)] == [(1, 1, 3, 3)] * 2
    gradients = jt.grad(feature_matching(made, true), [made[0][0], true[0][0]])
    assert np.abs(gradients[0].numpy()).min() > 0 and not gradients[1].numpy().any()


def test_features_are_compared_by_direction():
    a, b = maps(), maps()

    def unit(x):
        return x / np.sqrt((x**2).sum(axis=1, keepdims=True) + 1e-6)

    expected = sum(((unit(x) - unit(y)) ** 2).sum(axis=1).mean() for x, y in zip(a, b, strict=True))
    assert feature_distance(var(a), var(b)).item() == pytest.approx(expected, rel=1e-5)
    assert feature_distance(var(a), var([7 * x for x in a])).item() == pytest.approx(0, abs=1e-6)


def test_tone_is_the_error_of_the_means_of_cells():
    error = drawn(2, 3, 8, 8)
    assert l1(jt.array(error)).item() == pytest.approx(np.abs(error).mean(), rel=1e-5)
    cells = error.reshape(2, 3, 2, 4, 2, 4).mean(axis=(3, 5))
    assert tone(jt.array(error), 4).item() == pytest.approx(np.abs(cells).mean(), rel=1e-5)


def test_the_divergence_is_that_of_two_gaussians():
    mean, logvar = drawn(2, 4, 3, 3), drawn(2, 4, 3, 3)
    expected = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).mean()
    assert kl_divergence(jt.array(mean), jt.array(np.exp(logvar / 2)), jt.array(logvar)).item() == pytest.approx(expected, rel=1e-5)
    zero = jt.zeros((1, 1, 1, 1))
    assert kl_divergence(zero, zero + 1, zero).item() == 0


def test_the_likelihood_is_that_of_a_softmax():
    logits, shares = drawn(2, 5, 3, 4), RNG.dirichlet(np.ones(5), (2, 3, 4)).transpose(0, 3, 1, 2).astype(np.float32)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert negative_log_likelihood(jt.array(logits), jt.array(shares)).item() == pytest.approx(-(shares * log_softmax).sum(), rel=1e-5)
