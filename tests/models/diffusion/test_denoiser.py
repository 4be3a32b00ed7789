import numpy as np
import pytest

from models.diffusion.denoiser import Denoiser, guidance_branches, guide
from models.diffusion.schedule import NoiseSchedule

RNG = np.random.default_rng(0)
SCALES = [(1, 1), (3, 3), (3, 1.5), (1, 4), (2.5, 0), (1, 0), (0, 0), (0, 2)]


@pytest.mark.parametrize(
    "prediction_type, zero_snr",
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True), ("sample", False), ("sample", True)],
)
def test_perfect_predictions_give_back_picture_and_noise(prediction_type, zero_snr):
    schedule = NoiseSchedule.make("scaled_linear", rescale_zero_snr=zero_snr)
    x0, noise = RNG.standard_normal((2, 3, 4, 5, 6))
    for t in (0, 500, 998, 999):
        denoiser = Denoiser(lambda x, t: schedule.target(x0, noise, t, prediction_type), schedule, prediction_type)
        got_x0, got_noise = denoiser.predict(schedule.add_noise(x0, noise, t), t)
        np.testing.assert_allclose(got_noise, noise, atol=1e-9)
        np.testing.assert_allclose(got_x0, x0, atol=1e-9)


def test_model_is_asked_about_the_noisy_picture_at_its_timestep():
    asked = []
    x = np.ones((1, 1, 2, 2))
    Denoiser(lambda *args: asked.append(args) or x, NoiseSchedule.make("linear"), "sample").predict(x, 17)
    assert asked == [(x, 17)]


def test_noise_prediction_from_pure_noise_is_refused():
    with pytest.raises(ValueError, match="use v_prediction"):
        Denoiser(None, NoiseSchedule.make("linear", rescale_zero_snr=True), "epsilon")
    with pytest.raises(ValueError, match="unknown"):
        Denoiser(None, NoiseSchedule.make("linear"), "noise")


@pytest.mark.parametrize("scales", SCALES)
def test_guidance_is_equation_3(scales):
    nothing, mask, both = RNG.standard_normal((3, 2, 4, 5, 6))
    outputs = {frozenset(): nothing, frozenset({"mask"}): mask, frozenset({"mask", "reference"}): both}
    branches = guidance_branches(dict(zip(("mask", "reference"), scales, strict=True)))
    stacked = np.concatenate([outputs[branch.kept] for branch in branches])
    expected = nothing + scales[0] * (mask - nothing) + scales[1] * (both - mask)
    np.testing.assert_allclose(guide(branches, stacked), expected, rtol=1e-12)


@pytest.mark.parametrize("scales", [(), (3.0,), (3.0, 1.5, 7.0), (2.0, 2.0, 1.0)])
def test_any_number_of_conditions_is_guided(scales):
    """Each condition moves the output by its scale times what it changes, after those before it."""
    names = ("mask", "reference", "words")[: len(scales)]
    outputs = {frozenset(names[:k]): RNG.standard_normal((2, 4, 5, 6)) for k in range(len(names) + 1)}
    expected = outputs[frozenset()].copy()
    for k, scale in enumerate(scales):
        expected += scale * (outputs[frozenset(names[: k + 1])] - outputs[frozenset(names[:k])])
    branches = guidance_branches(dict(zip(names, scales, strict=True)))
    np.testing.assert_allclose(guide(branches, np.concatenate([outputs[branch.kept] for branch in branches])), expected, rtol=1e-12)


@pytest.mark.parametrize("scales", SCALES)
def test_no_branch_is_evaluated_in_vain(scales):
    branches = guidance_branches(dict(zip(("mask", "reference"), scales, strict=True)))
    needed = {(1, 1): 1, (3, 3): 2, (3, 1.5): 3, (1, 4): 2, (2.5, 0): 2, (1, 0): 1, (0, 0): 1, (0, 2): 3}
    assert len(branches) == needed[scales]
    assert sum(branch.weight for branch in branches) == 1
    assert all(type(branch.weight) is float for branch in branches)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_the_contrast_that_guidance_adds_is_taken_back(rescale):
    """Wholly, where `rescale` is 1: each picture has the standard deviation of what all conditions give (Lin et al. 2023, eq. 15-16)."""
    branches = guidance_branches({"mask": 4.0})
    outputs = RNG.standard_normal((4, 3, 5, 6)) * np.array([1, 2, 3, 4]).reshape(-1, 1, 1, 1)
    guided, rescaled = guide(branches, outputs), guide(branches, outputs, rescale)
    for before, after, alone in zip(guided, rescaled, outputs[2:], strict=True):
        np.testing.assert_allclose(after, before * (rescale * alone.std() / before.std() + 1 - rescale), rtol=1e-9)
