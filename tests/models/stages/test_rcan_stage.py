"""RCAN starts as interpolation and gets better than that."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.degradation import halved
from datasets.landscape import read_image
from datasets.loader import batches, stack
from models.metrics.reconstruction import psnr
from models.networks.rcan import double
from models.stages.rcan import PhotosAndHalves, RCANStage, bicubic
from models.training.progress import validate
from tests.small import OPTIONS


def stage_of(folder, **changed):
    jt.set_global_seed(0)
    return RCANStage(replace(OPTIONS["rcan"], **changed), folder)


def test_untrained_it_interpolates_linearly(pairs, tmp_path):
    stage = stage_of(tmp_path)
    for pair in pairs:
        photo = read_image(pair.image, (96, 64))
        half = halved(photo)
        assert abs(psnr(double(stage.rcan, half), photo) - psnr(bicubic(half), photo)) < 1
    y, x = np.mgrid[:8, :8]
    ramp = np.uint8(np.stack([10 * x, 100 + 4 * y, 8 * (x + y)], -1))
    large, (v, u) = double(stage.rcan, ramp).astype(int), (np.mgrid[:16, :16] - 0.5) / 2
    inside = slice(2, -2)
    assert np.abs(large - np.stack([10 * u, 100 + 4 * v, 8 * (u + v)], -1))[inside, inside].max() <= 0.5


def test_it_learns_to_do_better(pairs, tmp_path):
    stage = stage_of(tmp_path, lr=2e-3, warmup=5, halve_every=60, ema=0.9, degraded=0.5)
    training_set, validation_set = stage.datasets(pairs, pairs)
    before, stream = validate(stage, validation_set, 0), batches(training_set, 4, seed=0, workers=0)
    scalars = [stage.train_step([next(stream)], step) for step in range(120)]
    after = validate(stage, validation_set, 0)
    assert after["val_psnr"] > before["val_psnr"] + 0.5 and after["val_psnr"] > after["val_psnr_bicubic"] + 0.1
    assert after["val_psnr_faulty"] > before["val_psnr_faulty"]
    assert before["val_psnr_bicubic"] == after["val_psnr_bicubic"]
    assert stage.to_minimise(after) == pytest.approx(-(after["val_psnr"] + after["val_psnr_faulty"]) / 2)
    assert {"loss", "psnr", "lr", "grad_norm"} <= scalars[0].keys() and scalars[-1]["lr"] == 1e-3
    rows = stage.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(stage.columns)] * 2 and all(p.shape == (64, 96, 3) for p in rows[0][:1] + rows[0][2:])


def test_squares_are_turned_and_mirrored_with_their_halves(pairs):
    options, photo = replace(OPTIONS["rcan"], degraded=0.0, patch=64, width=64), read_image(pairs[0].image, (64, 64))
    dataset = PhotosAndHalves(pairs[:1], options, whole=False)
    examples = [dataset.example(0, np.random.default_rng(seed)) for seed in range(60)]
    symmetries = {np.rot90(p, k).tobytes() for p in (photo, photo[:, ::-1]) for k in range(4)}
    assert {example["photo"].tobytes() for example in examples} == symmetries and len(symmetries) == 8
    assert all(np.array_equal(halved(example["photo"]), example["half"]) for example in examples)


def test_the_share_of_faulty_halves_is_the_one_asked_for(pairs):
    def faulty(share):
        dataset = PhotosAndHalves(pairs, replace(OPTIONS["rcan"], degraded=share), whole=False)
        examples = [dataset.example(i % 4, np.random.default_rng(i)) for i in range(100)]
        return np.mean([not np.array_equal(halved(example["photo"]), example["half"]) for example in examples])

    assert faulty(0.0) == 0 and 0.3 < faulty(0.5) < 0.6 and 0.75 < faulty(1.0) < 1  # an eighth has none of the faults


def test_the_border_does_not_count(pairs, tmp_path):
    stage = stage_of(tmp_path)
    batch = stack([stage.datasets(pairs, pairs)[0].example(i, np.random.default_rng(i)) for i in range(2)])
    loss = stage.losses(batch)["loss"].item()
    batch["photo"][:, :4] = batch["photo"][:, :, -4:] = 0
    assert stage.losses(batch)["loss"].item() == loss
    batch["photo"][:, 4] = 0
    assert stage.losses(batch)["loss"].item() > loss


@pytest.mark.parametrize("changed, words", [
    ({"width": 255, "patch": 33}, ["--rcan_width 255 is not even", "--rcan_patch 33 is not even"]),
    ({"patch": 200}, ["--rcan_patch 200 is more than a side of the photos, 256x192"]),
    ({"channels": 30}, ["--rcan_channels 30 is not a multiple of --rcan_reduction 4"]),
])  # fmt: skip
def test_every_fault_between_options_is_named(changed, words):
    found = "; ".join(replace(OPTIONS["rcan"], **{"width": 256, "height": 192} | changed).faults({}))
    assert all(word in found for word in words), found
