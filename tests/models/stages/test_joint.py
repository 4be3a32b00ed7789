"""Autoencoder and UNet trained together: the UNet follows the latents, and these do not collapse."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.landscape import read_image, read_mask
from datasets.loader import batches
from datasets.transforms import to_array
from models.diffusion.schedule import stratified
from models.losses.reconstruction import l1
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import denoise
from models.networks.pretrained import save_network
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.stages.decoder import JointDecoderStage
from models.stages.joint import JointStage, LatentStatistics, normalising
from models.stages.unet import PREVIEW, UNetStage
from models.stages.vae import start_as_averages
from models.systems import SYSTEMS
from models.training.learner import Learner
from models.training.progress import averaged, export, validate
from models.training.run import Run, read_run, restart, write_run
from tests.small import OPTIONS, copies
from utils.checkpoint import load_strict, module_arrays
from utils.errors import TrainingError, UserError


@pytest.fixture(scope="module")
def folder(pairs, tmp_path_factory):
    """A run whose autoencoder knows the colours of cells, and whose UNet has learnt nothing."""
    folder = tmp_path_factory.mktemp("run")
    jt.set_global_seed(0)
    vae = AutoencoderKL(OPTIONS["vae"].network)
    start_as_averages(vae)
    save_network(vae, module_arrays(vae), folder / "vae", step=4)
    write_run(Run(folder, "diffusion", "tiny", {name: OPTIONS[name] for name in SYSTEMS["diffusion"].presets["tiny"]}))
    unet = UNetStage(OPTIONS["unet"], folder)
    unet.datasets(pairs, pairs)
    export(unet, folder, 1)
    return folder


def stage_of(folder, **changed):
    jt.set_global_seed(0)
    return JointStage(replace(OPTIONS["joint"], **{"steps": 100, "lr": 3e-3, "vae_lr": 3e-3, "ema": 0.5} | changed), folder)


def stream_of(stage, pairs):
    return batches(stage.datasets(pairs, pairs)[0], 2, seed=0, workers=0)


def test_no_gradient_of_the_diffusion_loss_goes_into_the_encoder(folder, pairs):
    stage = stage_of(folder)
    loss = stage.losses(stage.encoded(next(stream_of(stage, pairs)), step=0))["loss"]
    encoder, unet = ([p for p in network.parameters() if not p.is_stop_grad()] for network in (stage.vae, stage.unet))
    found = jt.grad(loss, encoder + unet)
    assert all((gradient.numpy() == 0).all() for gradient in found[: len(encoder)])
    assert any((gradient.numpy() != 0).any() for gradient in found[len(encoder) :])


def test_what_is_exported_gives_the_latents_that_the_unet_follows_and_the_same_pictures(folder, pairs):
    stage = stage_of(folder)
    rng = np.random.default_rng(0)
    mean, variance = rng.standard_normal(4), rng.random(4) + 0.5
    square = np.outer(mean, mean) + np.diag(variance)
    load_strict(stage.statistics, {"mean": mean.astype(np.float32), "square": square.astype(np.float32)}, "the test")
    other = AutoencoderKL(stage.vae.config)
    load_strict(other, normalising(module_arrays(stage.vae), stage.statistics.state_dict()), "the test")
    image = jt.array(to_array(read_image(pairs[0].image, (96, 64))[None]))
    latents, expected = stage.vae.encode(image)[0], stage.statistics.normalised(stage.vae.encode(image)[0].numpy())
    np.testing.assert_allclose(other.encode(image)[0].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(other.decode(jt.array(expected)).numpy(), stage.vae.decode(latents).numpy(), atol=1e-3)
    found, deviation = (vae.encode(image)[1].numpy() for vae in (other, stage.vae))
    np.testing.assert_allclose(found, deviation / np.sqrt(variance)[:, None, None], rtol=1e-3)


def test_statistics_find_those_of_the_latents():
    statistics, rng = LatentStatistics(3), np.random.default_rng(0)
    mixing = np.array([[2.0, 0, 0], [2, 0.01, 0], [0, 0, 0.5]])  # the first two channels say the same
    for _ in range(300):
        statistics.follow((np.tensordot(mixing, rng.standard_normal((3, 2, 8, 12)), 1) + 1).transpose(1, 0, 2, 3).astype(np.float32))
    found = statistics.summary()
    assert found["latent_std_least"] == pytest.approx(0.5, rel=0.05) and found["latent_std_most"] == pytest.approx(2, rel=0.05)
    assert found["latent_mean"] == pytest.approx(1, abs=0.05) and found["latent_rank"] == pytest.approx(
        np.exp(-np.log(4 / 27) / 3), rel=0.01
    )


def test_drift_has_the_gradient_of_the_divergence():
    rng = np.random.default_rng(0)
    latents, direction = (rng.standard_normal((3, 4, 5, 6)) * scale + scale / 4 for scale in (2, 1))

    def moments_of(z):
        flat = np.moveaxis(z, 1, 0).reshape(4, -1)
        return flat.mean(axis=1), flat @ flat.T / flat.shape[1]

    def divergence(z):
        mean, square = moments_of(z)
        covariance = square - np.outer(mean, mean)
        return (np.trace(covariance) + mean @ mean - np.log(np.linalg.det(covariance)) - 4) / 8

    statistics, x = LatentStatistics(4), jt.array(latents.astype(np.float32))
    load_strict(
        statistics, dict(zip(("mean", "square"), (part.astype(np.float32) for part in moments_of(latents)), strict=True)), "the test"
    )
    found = (jt.grad(statistics.drift(x), x).numpy() * direction).sum()
    assert found == pytest.approx((divergence(latents + 1e-5 * direction) - divergence(latents - 1e-5 * direction)) / 2e-5, rel=1e-3)


def published(stage):
    """A step as published: the diffusion loss goes into the encoder, nothing bounds the posterior, and latents have a fixed scale."""
    networks = {"vae": stage.vae, "unet": stage.unet, "conditioner": stage.conditioner}
    learner = Learner(networks, stage.options.recipe)

    def losses(batch):
        image, noise, t = jt.array(batch["image"]), jt.array(batch["noise"]), stratified(batch["time"], 1000)
        mean, std = stage.vae.encode(image)
        latent = mean + std * jt.array(batch["sample"])
        stage.statistics.follow(latent.numpy())
        alpha, sigma = (jt.array(np.float32(part(t))) for part in (stage.schedule.alpha, stage.schedule.sigma))
        conditions = stage.conditioner(stage.given(batch | {"reference": stage.vae.encode(jt.array(batch["shown"]))[0].numpy()}))
        output = denoise(stage.unet, alpha * latent + sigma * noise, t, conditions, stage.schedule, "v_prediction")
        error = output - (alpha * noise - sigma * latent)
        return {"loss": error.sqr().mean() + l1(stage.vae.reconstruct(latent) - image), "mse": error.sqr().mean()}

    return lambda batches, step: learner.step(losses, batches, step)


def test_latents_stay_in_bounds_where_as_published_they_collapse(folder, pairs):
    stage = stage_of(folder)
    stream, (_, validation_set) = stream_of(stage, pairs), stage.datasets(pairs, pairs)
    before = validate(stage, validation_set, 0)
    scalars = [stage.train_step([next(stream)], step) for step in range(80)]  # each of which checks that they are
    after = validate(stage, validation_set, 0)
    assert after["val_psnr"] > before["val_psnr"] + 1
    assert after["val_loss_other_reference"] > after["val_loss"]
    assert stage.to_minimise(after) == after["val_loss"] * stage.picture_losses.to_minimise(after)
    assert scalars[-1]["latent_rank"] > 3 and scalars[-1]["latent_std_most"] < 2
    assert {"loss", "vae_loss", "vae_kl", "vae_posterior_std", "discriminator_loss"} <= scalars[-1].keys()

    other = stage_of(folder)
    stream, step = stream_of(other, pairs), published(other)
    losses = []
    with pytest.raises(TrainingError, match=r"left their bounds in step \d+: .*--joint_vae_lr"):
        for i in range(80):
            losses.append(step([next(stream)], i)["mse"])
            other.check(other.statistics.summary(), i)
    assert np.median(losses[-10:]) < 0.8 * np.median(losses[:5])  # what is void of detail is easy to denoise


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30])
def test_latents_that_are_no_numbers_end_the_training_in_a_sentence(folder, pairs, wrong):
    stage = stage_of(folder)
    batch = next(stream_of(stage, pairs))
    batch["sample"][:] = wrong
    with pytest.raises(TrainingError, match=r"left their bounds in step 1: .*--joint_vae_lr"):
        stage.train_step([batch], 0)


def test_deviations_that_are_lost_beside_the_mean_are_out_of_bounds(folder):
    stage = stage_of(folder)
    load_strict(stage.statistics, {"mean": np.ones(4, np.float32), "square": np.full((4, 4), 1 - 1e-6, np.float32)}, "the test")
    with pytest.raises(TrainingError, match="a channel's deviation is nan"):
        stage.check(stage.statistics.summary(), 0)


def state_of(stage):
    return {name: copies(learner.state()) for name, learner in stage.learners.items()}


@pytest.mark.bit_for_bit
def test_it_resumes_to_the_last_bit_and_what_it_exports_paints(folder, pairs, capsys):
    whole, half = stage_of(folder), stage_of(folder)
    stream = stream_of(whole, pairs)
    for step in range(4):
        whole.train_step([next(stream)], step)
    stream = stream_of(half, pairs)
    for step in range(2):
        half.train_step([next(stream)], step)
    resumed, before = stage_of(folder), state_of(half)
    for name, learner in resumed.learners.items():
        learner.load(before[name], "the test")
    stream = batches(resumed.datasets(pairs, pairs)[0], 2, seed=0, start=4, workers=0)
    for step in (2, 3):
        resumed.train_step([next(stream)], step)
    expected, found = state_of(whole), state_of(resumed)
    assert all(np.array_equal(expected[name][key], found[name][key]) for name in expected for key in expected[name])

    run = read_run(folder, SYSTEMS)
    references = read_image(pairs[0].image, (96, 64))[None]
    options, masks = PaintingOptions(steps=2), np.zeros((1, 64, 96), np.uint8)
    before = LatentDiffusion.load(run, folder).paint(masks, references, [""], [0], options)
    for place in (folder, folder / "best"):
        export(whole, place, 4)
        assert not np.array_equal(LatentDiffusion.load(run, place).paint(masks, references, [""], [0], options), before)
    with averaged(whole):
        rows = whole.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(whole.columns)] * 2
    shown = LatentDiffusion.load(run, folder).paint(
        read_mask(pairs[0].mask, (96, 64))[None], read_image(pairs[1].image, (96, 64))[None], [""], [0], PREVIEW
    )
    assert np.abs(rows[0][2].astype(int) - shown[0]).max() <= 1  # what is exported paints what the preview shows

    beside = {place: LatentDiffusion.load(run, place).paint(masks, references, [""], [0], options) for place in (folder, folder / "best")}
    own = [folder / name for name in ("vae", "unet", "conditioner")]
    for path in own:  # it needs none of them
        path.rename(path.with_name(f"{path.name} aside"))
    decoder = JointDecoderStage(replace(OPTIONS["joint_decoder"], steps=4), folder)
    training_set, _ = decoder.datasets(pairs, pairs)
    for path in own:
        path.with_name(f"{path.name} aside").rename(path)
    decoder.train_step([next(batches(training_set, 2, seed=0, workers=0))], 2)
    capsys.readouterr()
    for place in (folder, folder / "best"):
        export(decoder, place, 1)
    export(whole, folder / "best", 3)  # latents of another step
    assert not np.array_equal(LatentDiffusion.load(run, folder).paint(masks, references, [""], [0], options), beside[folder])
    assert "other latents" not in capsys.readouterr().out
    assert np.array_equal(LatentDiffusion.load(run, folder / "best").paint(masks, references, [""], [0], options), beside[folder / "best"])
    assert "other latents" in capsys.readouterr().out

    restart(run, SYSTEMS["diffusion"], ["joint"])
    assert not (folder / "joint_decoder").exists()
    with pytest.raises(UserError, match="joint_vae is missing: stage joint_decoder follows stage joint"):
        JointDecoderStage(OPTIONS["joint_decoder"], folder)
    assert np.array_equal(LatentDiffusion.load(run, folder).paint(masks, references, [""], [0], options), before)
