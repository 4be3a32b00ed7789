"""LGGAN trains two learners by the losses that were published, and its masks may hold any classes."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.loader import batches
from models.networks.layers import autocast
from models.painters.lggan import LGGANPainter, PaintingOptions
from models.stages.lggan import CHANGE, WEIGHTS, LGGANStage, class_entropy
from models.training.progress import validate
from tests.golden.networks import lggan_inputs, weights
from tests.models.networks.test_lggan import GOLDEN, assert_gradients
from tests.small import OPTIONS
from utils.checkpoint import load_strict


def stage_of(tmp_path, **changed):
    jt.set_global_seed(0)
    return LGGANStage(replace(OPTIONS["lggan"], **changed), tmp_path)


def test_the_losses_of_one_step_agree_with_pytorch(tmp_path):
    golden, stage = np.load(GOLDEN), stage_of(tmp_path)
    stage.perceptual.network = None
    for network in (stage.lggan, stage.discriminator):
        load_strict(network, weights({name: weight.shape for name, weight in network.state_dict().items()}), "networks.py")
    u = {name: weight.numpy() for name, weight in stage.discriminator.state_dict().items() if name.endswith(".u")}

    def as_before():
        """Each call of the discriminator moves its `u` on; the reference's are those that it began with."""
        for name, weight in stage.discriminator.state_dict().items():
            if name in u:
                weight.update(jt.array(u[name])).stop_grad()

    judge = stage.judge
    stage.judge = lambda *given: (as_before(), judge(*given))[1]
    judged = []
    losses = stage.losses(lggan_inputs(), step=0, judged=judged)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(float(golden[f"losses/{name}"]), rel=1e-4), name
    # of a million differences a few round to the other side of 0, where |x| has the other slope
    assert_gradients(stage.lggan, losses["loss"], golden["losses/gradients"], tolerance=1e-3)
    verdict = stage.discriminator_losses(judged[0])["loss"]
    assert verdict.item() == pytest.approx(float(golden["discriminator/loss"]), rel=1e-4)
    assert_gradients(stage.discriminator, verdict, golden["discriminator/gradients"])


def test_it_learns(tmp_path, pairs):
    stage = stage_of(tmp_path, steps=40, lr=1e-3, ema=0.5)
    training_set, validation_set = stage.datasets(pairs, pairs)
    before = validate(stage, validation_set, 0)
    stream = batches(training_set, 2, seed=0, workers=0)
    scalars = [stage.train_step([next(stream)], step) for step in range(20)]
    assert validate(stage, validation_set, 0)["val_l1"] < 0.8 * before["val_l1"]
    assert {*WEIGHTS[0], "adversarial", "discriminator_loss"} <= scalars[0].keys()
    rows = stage.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(stage.columns)] * 2
    learner = stage.learners["discriminator"]
    assert learner.recipe.lr(0) == pytest.approx(4 * stage.learners["lggan"].recipe.lr(0))
    assert [learner.recipe.lr(step) > learner.recipe.lr(step + 1) for step in (0, 15, 18, 39)] == [False, False, True, True]


def test_the_losses_weigh_otherwise_in_the_last_quarter(tmp_path):
    stage = stage_of(tmp_path, steps=8)
    stage.perceptual.network = None
    for step, phase in ((5, 0), (6, 1)):
        assert (step >= CHANGE * 8) == phase
        losses = stage.losses(lggan_inputs(), step, [])
        expected = sum(WEIGHTS[phase].get(name, 1) * value.item() for name, value in losses.items() if name != "loss")
        assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_masks_of_one_class_and_of_none_and_a_batch_of_one(tmp_path, size):
    stage = stage_of(tmp_path)
    mask = np.full((size, 64, 96), 3, np.uint8)
    mask[-1] = 255 if size > 1 else 28  # no class at all beside one; the last class alone
    batch = {"mask": mask, "image": lggan_inputs()["image"][:size]}
    scalars = stage.train_step([batch], 0)
    assert all(np.isfinite(value) for value in scalars.values()) and scalars["skipped"] == 0
    assert scalars["class_entropy"] == pytest.approx(np.log(29), rel=0.2)


def test_only_classes_that_occur_are_told_apart():
    label, logits = np.zeros((2, 29, 2, 2), np.float32), np.random.default_rng(0).standard_normal((2, 29, 29)).astype(np.float32)
    label[0, 3], label[1, 5, 0], label[1, 9, 1] = 1, 1, 1
    given = [-np.log(np.exp(logits[i, k, k]) / np.exp(logits[i, k]).sum()) for i, k in ((0, 3), (1, 5), (1, 9))]
    assert class_entropy(jt.array(logits), jt.array(label)).item() == pytest.approx(np.mean(given), rel=1e-5)


def test_a_step_in_mixed_precision(tmp_path):
    exact, rough = stage_of(tmp_path), stage_of(tmp_path)
    losses = exact.losses(lggan_inputs(), 0, [])
    with autocast("bfloat16"):
        scalars = rough.train_step([lggan_inputs()], 0)
    assert scalars["loss"] == pytest.approx(losses["loss"].item(), rel=0.02) and scalars["skipped"] == 0


def test_a_picture_depends_on_its_mask_alone(tmp_path):
    stage = stage_of(tmp_path)
    painter, mask = LGGANPainter(stage.options, stage.lggan), lggan_inputs()["mask"]
    assert painter.size == (96, 64)
    together = painter.paint(mask, None, ["", ""], [1, 2], PaintingOptions())
    assert together.shape == (2, 64, 96, 3) and together.dtype == np.uint8
    alone = np.concatenate([painter.paint(mask[i : i + 1], None, [""], [7], PaintingOptions()) for i in range(2)])
    assert np.array_equal(together, alone)
