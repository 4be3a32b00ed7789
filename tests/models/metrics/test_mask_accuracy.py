import json

import numpy as np
import pytest

from datasets.landscape import NUM_CLASSES
from models.metrics.mask_accuracy import by_class, confusion, evidence, load_judge
from models.networks.pretrained import save_network
from models.networks.segformer import SEGFORMERS, SegformerForSemanticSegmentation
from models.training.run import Run
from tests.small import OPTIONS
from utils.checkpoint import module_arrays
from utils.errors import UserError


def test_confusion_counts_every_pixel_by_both_classes():
    random = np.random.default_rng(0)
    mask, seen = random.integers(0, NUM_CLASSES, (2, 40, 50), np.uint8)  # labels over 8 overflow uint8 where they are multiplied by 29
    matrix = confusion(mask, seen)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
    for a, b in zip(mask.ravel(), seen.ravel(), strict=True):
        expected[a, b] += 1
    assert np.array_equal(matrix, expected)


def test_accuracy_and_iou_of_a_known_case():
    mask = np.repeat(np.array([[0, 0, 28]], np.uint8), 4, axis=0)
    seen = mask.copy()
    seen[:2, 0] = 28  # 2 of the 8 pixels of class 0 are taken for 28
    rates = by_class(confusion(mask, seen))
    assert np.allclose(rates["share"][[0, 1, 28]], [8 / 12, 0, 4 / 12])
    assert np.allclose(rates["accuracy"][[0, 28]], [6 / 8, 1]) and np.isnan(rates["accuracy"][1])
    assert np.allclose(rates["IoU"][[0, 28]], [6 / 8, 4 / 6]) and np.isnan(rates["IoU"][1])


def test_a_judge_comes_back_from_its_run(tmp_path):
    run = Run(tmp_path, "judge", "tiny", {"segformer": OPTIONS["segformer"]})
    with pytest.raises(UserError, match="--system judge"):
        load_judge(run)
    network = SegformerForSemanticSegmentation(SEGFORMERS["b0"])
    save_network(network, module_arrays(network), tmp_path / "best" / "segformer")
    (tmp_path / "best" / "best.json").write_text(
        json.dumps({"segformer": {"step": 1, "value": 1.0, "val_loss": 1.0, "val_pixel_accuracy": 0.75}})
    )
    judge = load_judge(run)
    assert judge.size == (96, 64) and judge.held_out_accuracy == 0.75
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    labels = judge.labels(pictures, (120, 90))
    assert labels.shape == (2, 90, 120) and labels.dtype == np.uint8 and labels.max() < NUM_CLASSES
    assert np.array_equal(judge.labels(pictures[1:], (120, 90))[0], labels[1])


def test_evidence_is_against_a_mask_of_another_picture_and_not_against_what_the_judge_never_learnt():
    """A judge that takes class 2 for class 3 each time, where the mask is right."""
    random = np.random.default_rng(0)
    masks = [random.permutation(np.repeat(classes, 50)) for classes in ((0, 1), (1, 2), (0, 2)) * 7]
    seen = [np.where(mask == 2, 3, mask).astype(np.uint8) for mask in masks]
    values = evidence(np.stack([confusion(mask, labels) for mask, labels in zip(masks, seen, strict=True)]))
    assert values.min() > 0.5
    masks[0], seen[0] = np.repeat(0, 100), np.repeat(1, 100)
    values = evidence(np.stack([confusion(mask, labels) for mask, labels in zip(masks, seen, strict=True)]))
    assert values[0] < -0.5 and values[1:].min() > 0.5


def test_evidence_is_that_of_its_formula():
    matrices = np.zeros((2, NUM_CLASSES, NUM_CLASSES), int)
    matrices[0, 0, 0], matrices[0, 1, 1], matrices[1, 0, 0] = 30, 10, 40
    seen = np.array([31, 11]) / (40 + NUM_CLASSES)  # by the first picture, with one pixel more of each class
    given = (30 + 40 * seen[0]) / (30 + 40)
    assert np.isclose(evidence(matrices)[1], np.log(given / seen[0]))
