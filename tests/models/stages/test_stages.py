"""Stages learn what they are given, and the UNet uses both of its conditions."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest

from datasets.landscape import read_image, read_mask
from datasets.loader import stack
from datasets.pairs import Pair
from datasets.transforms import to_array
from models.diffusion.schedule import stratified
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import UNKNOWN
from models.networks.pretrained import initialise, load_network, save_network
from models.painters.latent_diffusion import LatentDiffusion
from models.stages.latents import bring_to_scale, measure_latents
from models.stages.segformer import AugmentedPairs, SegformerStage, zoomed
from models.stages.unet import LatentPairs, UNetStage
from models.stages.vae import OPPONENT, VAEStage
from models.training.loop import save
from tests.models.stages.conftest import drawn_pairs
from tests.small import OPTIONS, copies
from utils.checkpoint import module_arrays
from utils.errors import UserError
from utils.image import write_png


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two layouts in three styles each: neither mask nor reference alone says which picture is wanted."""
    return drawn_pairs(tmp_path_factory.mktemp("data"), [(layout, style) for layout in range(2) for style in range(3)])


def batch_of(dataset, indices, seed=0):
    return stack([dataset.example(i, np.random.default_rng((seed, i))) for i in indices])


def untrained_autoencoder():
    """One that is sure of its latents: else they would be mostly noise, which nothing can learn."""
    vae = AutoencoderKL(OPTIONS["vae"].network)
    vae.quant_conv.bias.update(jt.array(np.array([0] * 4 + [-8] * 4, np.float32)))  # means and log-variances
    return vae


@pytest.fixture(scope="module")
def unet_stage(pairs, tmp_path_factory):
    """A UNet that has seen the six pictures many times."""
    jt.set_global_seed(0)
    run = tmp_path_factory.mktemp("run")
    vae = untrained_autoencoder()
    save_network(vae, module_arrays(vae), run / "vae")
    stage = UNetStage(replace(OPTIONS["unet"], lr=3e-3, steps=150), run)
    training_set, _ = stage.datasets(pairs, pairs[:2])
    stage.learned = [stage.train_step([batch_of(training_set, range(6), seed=step)], step)["loss"] for step in range(150)]
    stage.training_set = training_set
    return stage


def test_the_autoencoder_starts_with_the_averages_of_cells(pairs, tmp_path):
    """Untrained, it shows each cell's colour: else it would learn brightness alone for a thousand steps."""
    stage = VAEStage(OPTIONS["vae"], tmp_path)
    photos = np.stack([read_image(pair.image, (96, 64)) for pair in pairs])
    mean, logvar = stage.vae.posterior(jt.array(to_array(photos)))
    shown = stage.vae.reconstruct(mean).numpy()

    def cells(x):
        return x.reshape(6, 3, 8, 8, 12, 8).mean(axis=(3, 5))

    for colors in OPPONENT:
        expected, found = (np.tensordot(colors, cells(x), ([0], [1])).ravel() for x in (to_array(photos), shown))
        assert np.corrcoef(expected, found)[0, 1] > 0.8
    assert np.allclose(logvar.numpy(), -6, atol=1)


def test_the_autoencoder_learns_a_batch(pairs, tmp_path):
    jt.set_global_seed(0)
    stage = VAEStage(replace(OPTIONS["vae"], lr=3e-3, steps=60), tmp_path)
    training_set, _ = stage.datasets(pairs, pairs)
    batch = batch_of(training_set, (0, 1))
    steps = [stage.train_step([batch], step) for step in range(60)]
    assert steps[-1]["psnr"] > steps[0]["psnr"] + 1
    assert steps[-1]["posterior_mean_rms"] < 10 and steps[-1]["posterior_std"] < 2


def latents_of(vae, pairs):
    """The means of the posteriors of photos, channel by channel, [4, N]."""
    photos = np.stack([read_image(pair.image, (96, 64)) for pair in pairs])
    mean, _ = vae.posterior(jt.array(to_array(photos)))
    return np.moveaxis(mean.numpy(), 1, 0).reshape(mean.shape[1], -1)


def test_latents_are_whitened_once_and_that_is_kept(unet_stage, pairs):
    latents = latents_of(unet_stage.vae, pairs)
    np.testing.assert_allclose(latents.mean(axis=1), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(latents), np.eye(4), atol=0.03)
    assert json.loads((unet_stage.folder / "vae" / "config.json").read_text())["scaling_factor"] == 1
    again = load_network(AutoencoderKL, AutoencoderKLConfig, unet_stage.folder / "vae")
    np.testing.assert_allclose(latents_of(again, pairs), latents, atol=1e-5)
    with pytest.raises(UserError, match="whitened already: give --unet_whiten 1"):
        bring_to_scale(unet_stage.folder, pairs, (96, 64), whitened=False)


@pytest.mark.parametrize("whitened", [True, False])
def test_bringing_latents_to_scale_changes_no_picture(pairs, whitened):
    vae = untrained_autoencoder()
    x = jt.array(to_array(read_image(pairs[0].image, (96, 64))[None]))
    before, scale = vae.reconstruct(vae.posterior(x)[0]).numpy(), latents_of(vae, pairs).std()
    measure_latents(vae, pairs, (96, 64), whitened)
    np.testing.assert_allclose(vae.decode(vae.encode(x)[0]).numpy(), before, atol=2e-4)
    latents = latents_of(vae, pairs) * vae.config.scaling_factor
    assert abs(latents.std() - 1) < 0.02
    assert whitened or abs(vae.config.scaling_factor - 1 / scale) < 0.02 / scale


def test_every_batch_sees_all_levels_of_noise():
    times = np.random.default_rng(0).random(8)
    whole = stratified(times, 1000)
    assert [t * 8 // 1000 for t in whole] == [*range(8)] and whole.dtype.kind == "i"
    assert np.array_equal(np.concatenate([stratified(times[:4], 1000, 0, 2), stratified(times[4:], 1000, 1, 2)]), whole)
    assert stratified(np.array([0.0]), 1000) == 0 and stratified(np.array([1 - 1e-12]), 1000) == 999


def test_the_error_is_told_by_level_of_noise(unet_stage):
    batch = batch_of(unet_stage.training_set, range(6))
    found, tenths = unet_stage.validate(batch), stratified(batch["time"], 1000) // 100
    assert all(len(found[f"val_mse_{tenth}"]) == (tenths == tenth).sum() for tenth in range(10))
    assert len(found["val_loss"]) == 6


def test_published_weights_predict_all_of_the_noise_of_latents_of_one_scale():
    weights = {"unet": Path("unet.safetensors")}
    assert OPTIONS["unet"].for_published_weights(weights, {"lr": 0.5}) == replace(OPTIONS["unet"], linear_start=2, whiten=0, lr=0.5)
    assert OPTIONS["unet"].for_published_weights(weights, {"linear_start": 1, "whiten": 1}) == OPTIONS["unet"]  # of a run of one's own
    assert OPTIONS["unet"].for_published_weights({"vae": Path("vae")}, {"lr": 0.5}) == replace(OPTIONS["unet"], lr=0.5)


@pytest.mark.parametrize("weights", ["unet", "unet/diffusion_pytorch_model.bin"])
def test_a_published_unet_goes_on_with_the_noise_that_it_was_trained_with(weights, tmp_path):
    """What Stable Diffusion 2.1 says beside its UNet; the command line has the last word, in tests/models/training/test_run.py."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").touch()
    (tmp_path / "scheduler").mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    said = {"_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085}
    file.write_text(json.dumps(said | {"num_train_timesteps": 1000, "prediction_type": "v_prediction"}))
    begun = replace(OPTIONS["unet"], noise_schedule="cosine", prediction_type="epsilon")
    changed = begun.for_published_weights({"unet": tmp_path / weights}, {})
    assert (changed.noise_schedule, changed.prediction_type, changed.zero_snr) == ("scaled_linear", "v_prediction", 0)
    file.write_text(json.dumps(said))  # Stable Diffusion 1's does not say what is predicted
    assert begun.for_published_weights({"unet": tmp_path / weights}, {}).prediction_type == "epsilon"
    for wrong in ('{"beta_schedule": "sigmoid"}', '{"trained_betas": [0.1]}', '{"beta_start": 0.1}', '{"prediction_type": 5}', "[]"):
        file.write_text(wrong)
        with pytest.raises(UserError, match=r"scheduler_config.*--unet_zero_snr yourself"):
            begun.for_published_weights({"unet": tmp_path / weights}, {})
        said = {"noise_schedule": "linear", "prediction_type": "sample", "zero_snr": 1}
        assert begun.for_published_weights({"unet": tmp_path / weights}, said).prediction_type == "sample"


def test_the_unet_learns_and_uses_mask_and_reference(unet_stage, pairs):
    assert np.mean(unet_stage.learned[-20:]) < 0.6 * np.mean(unet_stage.learned[:10])
    unet_stage.training_set.drop = 0
    names, sums = ("val_loss", "val_loss_other_mask", "val_loss_other_reference"), np.zeros(3)
    with jt.no_grad():
        for seed in range(40):
            found = unet_stage.validate(batch_of(unet_stage.training_set, range(6), seed=1000 + seed))
            sums += [found[name].sum() for name in names]
    right, other_mask, other_reference = sums
    assert other_mask > 1.2 * right
    assert other_reference > 1.05 * right


def test_a_linear_start_for_painting_changes_nothing_of_training_and_is_kept(pairs, tmp_path):
    stages = []
    for linear_start in (0, 2):
        jt.set_global_seed(0)
        run = tmp_path / str(linear_start)
        vae = untrained_autoencoder()
        save_network(vae, module_arrays(vae), run / "vae")
        stage = UNetStage(replace(OPTIONS["unet"], linear_start=linear_start), run)
        training_set, _ = stage.datasets(pairs, pairs[:2])
        stages.append((stage, [stage.train_step([batch_of(training_set, range(2), seed=step)], step)["loss"] for step in range(2)]))
    (_, without), (stage, losses) = stages
    assert losses == without
    save(stage, stage.folder, 2, 2)
    kept = LatentDiffusion.of(stage.options, stage.vae, stage.folder).conditioner
    assert kept.config.for_painting
    measured, found = (conditioner.linear_start.state_dict() for conditioner in (stage.conditioner, kept))
    assert (
        all(np.array_equal(found[name].numpy(), value.numpy()) for name, value in measured.items()) and measured["power"].numpy().std() > 0
    )
    # Another run that begins with this one's networks has photos of its own
    other = UNetStage(stage.options, stage.folder).conditioner
    initialise(other, stage.folder / "conditioner")
    assert not other.linear_start.is_measured()
    initialise(UNetStage(replace(stage.options, linear_start=0), stage.folder).conditioner, stage.folder / "conditioner")
    with pytest.raises(UserError, match="predicts all: give --unet_linear_start 2"):
        initialise(UNetStage(replace(stage.options, linear_start=1), stage.folder).conditioner, stage.folder / "conditioner")
    assert np.array_equal(other.mask_encoder.reduce[0].weight.numpy(), kept.mask_encoder.reduce[0].weight.numpy())


def test_conditions_are_dropped_as_often_as_asked(unet_stage):
    unet_stage.training_set.drop = 0.1
    examples = [unet_stage.training_set.example(0, np.random.default_rng((5, i))) for i in range(600)]
    no_mask = np.array([(example["mask"] == 255).all() for example in examples])
    no_reference = np.array([example["known"] == 0 for example in examples])
    for share in ((no_mask & ~no_reference).mean(), (no_mask & no_reference).mean(), (~no_mask & no_reference).mean()):
        assert 0.06 < share < 0.14


def test_a_mask_is_mirrored_with_its_latents_and_the_reference_on_its_own_account(pairs):
    """Latents that say whether they are mirrored."""
    latents = SimpleNamespace(
        posterior=lambda index, flip: np.stack([np.full((4, 8, 12), flip), np.zeros((4, 8, 12))]).astype(np.float32),
        colors=lambda index: np.zeros(54, np.float32),
    )
    dataset, seen = LatentPairs(pairs, latents, 1.0, OPTIONS["unet"], None, training=False), set()
    mask = read_mask(pairs[0].mask, (96, 64))
    for seed in range(24):
        example = dataset.example(0, np.random.default_rng(seed))
        flip = int(example["latent"][0, 0, 0])
        assert np.array_equal(example["mask"], mask[:, ::-1] if flip else mask)
        seen.add((flip, int(example["reference"][0, 0, 0])))
    assert len(seen) == 4 and not np.array_equal(mask, mask[:, ::-1])


def test_state_goes_round(unet_stage, tmp_path):
    before = copies(unet_stage.learners["unet"].state())
    other = UNetStage(unet_stage.options, unet_stage.folder)
    other.learners["unet"].load(before, "the test")
    after = copies(other.learners["unet"].state())
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.bit_for_bit
def test_the_judge_learns_the_masks_and_starts_where_another_left_off(pairs, tmp_path):
    jt.set_global_seed(0)
    stage = SegformerStage(replace(OPTIONS["segformer"], lr=3e-3, steps=60, warmup=5), tmp_path)
    training_set, validation_set = stage.datasets(pairs, pairs)
    whole = batch_of(validation_set, range(6))
    before = stage.validate(whole)
    losses = [stage.train_step([batch_of(training_set, range(6), seed=step)], step)["loss"] for step in range(60)]
    after = stage.validate(whole)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert after["val_pixel_accuracy"] > max(0.6, before["val_pixel_accuracy"] + 0.2), (before, after)
    rows = stage.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(stage.columns)] * 2 and rows[0][0].shape == rows[0][2].shape == (64, 96, 3)

    save_network(stage.segformer, module_arrays(stage.segformer), tmp_path / "segformer")
    other = SegformerStage(OPTIONS["segformer"], tmp_path)
    initialise(other.segformer, tmp_path / "segformer")
    assert other.validate(whole) == after


@pytest.mark.parametrize("seed", range(8))
def test_a_zoomed_photo_and_its_mask_stay_together(seed):
    """A photo that shows its own mask: every pixel of the crop does, and what lies outside of the photo is unknown."""
    mask = np.kron(np.arange(12).reshape(3, 4), np.ones((32, 32))).astype(np.uint8)
    image = np.repeat(20 * mask[..., None], 3, axis=2)
    cut, labels = zoomed(image, mask, (96, 64), np.random.default_rng(seed))
    assert cut.shape == (64, 96, 3) and labels.shape == (64, 96)
    known = labels != UNKNOWN
    assert not cut[~known].any()
    assert (np.abs(cut[known][:, 0].astype(int) - 20 * labels[known]) <= 10).mean() > 0.8  # Lanczos blurs the borders


def test_a_photo_in_other_light_is_mirrored_with_its_mask(tmp_path):
    """One that shows its own mask, brighter from class to class, in whatever light."""
    mask = np.kron(np.arange(12).reshape(3, 4), np.ones((32, 32))).astype(np.uint8)
    write_png(tmp_path / "mask.png", mask)
    write_png(tmp_path / "photo.png", np.repeat(20 * mask[..., None], 3, axis=2))
    dataset, lights = AugmentedPairs([Pair("a", tmp_path / "photo.png", tmp_path / "mask.png")], (96, 64), whole=False), set()
    for seed in range(8):
        example = dataset.example(0, np.random.default_rng(seed))
        classes = [label for label in np.unique(example["mask"]) if label != UNKNOWN and (example["mask"] == label).sum() > 100]
        medians = [np.median(example["image"][:, example["mask"] == label], axis=1) for label in classes]
        assert (np.diff(medians, axis=0) >= 0).all() and (np.ptp(medians, axis=0) > 0.5).all()
        lights.add(tuple(np.round(medians[-1], 1)))
    assert len(lights) > 4
