"""The loss on what the UNet's estimates look like reaches the UNet."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.loader import stack
from models.diffusion.denoiser import Denoiser
from models.networks.pretrained import save_network
from models.stages.unet import UNetStage
from tests.models.stages.test_stages import untrained_autoencoder
from tests.small import OPTIONS
from utils.checkpoint import module_arrays

SEEN = replace(OPTIONS["unet"], perceptual_weight=0.5, perceptual_from=2, lr=1e-3)
T = np.array([700, 150])  # of two examples, the second is looked at


@pytest.fixture(scope="module")
def stage(pairs, tmp_path_factory):
    jt.set_global_seed(0)
    run = tmp_path_factory.mktemp("run")
    vae = untrained_autoencoder()
    save_network(vae, module_arrays(vae), run / "vae")
    stage = UNetStage(SEEN, run)
    stage.training_set, _ = stage.datasets(pairs, pairs[:2])
    stage.batch = stack([stage.training_set.example(i, np.random.default_rng(i)) for i in range(2)])
    stage.batch["time"] = np.array([0.3, 0.6])  # timesteps 150 and 800
    return stage


def test_it_has_a_gradient_where_the_estimate_means_something(stage):
    noisy, output = stage.prediction(stage.batch, stage.given(stage.batch), T)
    loss = stage.seen(noisy, output, stage.batch["latent"], T)
    assert 0 < loss.item() < 4
    by_output, *by_weights = (g.numpy() for g in jt.grad(loss, [output, *stage.unet.parameters()]))
    assert not by_output[0].any() and np.abs(by_output[1]).max() > 1e-6
    assert sum(np.abs(gradient).max() > 0 for gradient in by_weights) > 0.9 * len(by_weights)
    assert all(weight.is_stop_grad() for weight in stage.vae.parameters())
    noise_alone = np.array([990, 800])
    assert stage.seen(*stage.prediction(stage.batch, stage.given(stage.batch), noise_alone), stage.batch["latent"], noise_alone).item() == 0


def test_the_estimate_that_is_looked_at_is_that_of_the_denoiser(stage):
    """A perfect prediction looks as the latents do; what is recomputed has the gradient of what is not."""
    target = stage.schedule.target(stage.batch["latent"], stage.batch["noise"], T, SEEN.prediction_type)
    noisy = jt.array(stage.schedule.add_noise(stage.batch["latent"], stage.batch["noise"], T))
    assert stage.seen(noisy, jt.array(target), stage.batch["latent"], T).item() < 1e-4
    output = jt.array(target + np.float32(0.3)).start_grad()
    (gradient,) = jt.grad(stage.seen(noisy, output, stage.batch["latent"], T), [output])
    estimate, _ = Denoiser(lambda x, t: output[1:], stage.schedule, SEEN.prediction_type).predict(noisy[1:], T[1:])
    true = stage.vae.decode(jt.array(stage.batch["latent"][1:]))
    (expected,) = jt.grad(stage.seen.distance(stage.vae.decode(estimate), true), [output])
    np.testing.assert_allclose(gradient.numpy(), expected.numpy(), atol=1e-3 * np.abs(expected.numpy()).max())


def test_parts_of_a_batch_look_at_what_the_whole_looks_at(stage):
    """Of sixteen, two; one in each of two parts, or both in the first, where all the others have nothing."""
    count, seen = 16, stage.seen
    latent, noise = (np.random.default_rng(i).standard_normal((count, *stage.batch["latent"].shape[1:]), np.float32) for i in range(2))
    t = np.sort(np.random.default_rng(2).integers(1000, size=count))
    t[:2] = 20, 90
    noisy, output = jt.array(stage.schedule.add_noise(latent, noise, t)), jt.array(noise)
    whole = seen(noisy, output, latent, t).item()
    assert whole > 0
    for parts, looking in ((2, 1), (8, 1), (16, 2)):
        own = [slice(i, i + count // parts) for i in range(0, count, count // parts)]
        found = [seen(noisy[s], output[s], latent[s], t[s], part, parts).item() for part, s in enumerate(own)]
        assert np.mean(found) == pytest.approx(whole, rel=1e-4) and sum(value > 0 for value in found) == looking


def test_it_sets_in_after_the_step_that_is_asked_for_and_falls(stage):
    logged = [stage.train_step([stage.batch], step) for step in range(30)]
    assert ["perceptual" in scalars for scalars in logged[:3]] == [False, False, True]
    seen = [scalars["perceptual"] for scalars in logged[2:]]
    assert seen[-1] < seen[0]
    with jt.no_grad():
        assert stage.validate(stage.batch)["val_perceptual"] >= 0
    assert UNetStage(OPTIONS["unet"], stage.folder).seen is None
