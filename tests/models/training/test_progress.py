"""Which pairs are validated on, and how."""

from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest
from PIL import Image

from models.networks.pretrained import exported_step
from models.training.learner import Learner, Recipe
from models.training.progress import VALIDATION_BATCH, VALIDATION_PAIRS, note_best, preview, validate
from models.training.run import read_best
from tests.models.training.toy_gan import OPTIONS, Network, Shape, ToyGAN
from utils.stop import Stop


class Numbers:
    """Each example is its own number."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def example(self, index, rng):
        return {"number": np.array(index), "chance": rng.random()}


def stage(seen, metrics):
    def note(batch):
        seen.append(batch)
        return metrics(batch)

    return SimpleNamespace(learners={}, validate=note)


@pytest.mark.parametrize("size", [1, 2, 9, 17, 160, 161, 1000])
def test_an_even_spread_is_validated_on_in_batches_of_more_than_one(size):
    seen = []
    found = validate(stage(seen, lambda batch: {"mean": batch["number"].mean()}), Numbers(size), seed=0)
    numbers = np.concatenate([batch["number"] for batch in seen])
    assert len(numbers) == len({*numbers}) == min(size, VALIDATION_PAIRS)
    assert (numbers[0], numbers[-1]) == (0, size - 1)
    assert np.ptp(np.diff(numbers)) <= 1 if size > 1 else True
    assert max(len(batch["number"]) for batch in seen) <= VALIDATION_BATCH
    assert min(len(batch["number"]) for batch in seen) > 1 or size == 1  # a batch of one is its own "other" picture
    assert found["mean"] == pytest.approx(numbers.mean())


def test_a_stop_ends_a_validation_with_its_batch():
    seen, stop = [], Stop()

    def metrics(batch):
        stop.signal = 15 if len(seen) == 3 else None
        return {"mean": 0.0}

    assert validate(stage(seen, metrics), Numbers(1000), 0, stop) == {} and len(seen) == 3


def test_the_chance_of_an_example_is_always_the_same():
    first, second = [], []
    validate(stage(first, lambda batch: {}), Numbers(20), seed=3)
    validate(stage(second, lambda batch: {}), Numbers(20), seed=3)
    assert all(np.array_equal(a["chance"], b["chance"]) for a, b in zip(first, second, strict=True))


def test_a_metric_that_some_batches_lack_is_the_mean_over_the_others():
    def metrics(batch):
        return {"all": 1.0} | ({"some": float(len(batch["number"]))} if 0 in batch["number"] else {})

    found = validate(stage([], metrics), Numbers(17), seed=0)
    assert found == {"all": 1.0, "some": 6.0}


def test_metrics_of_single_pictures_are_means_over_all_that_have_one():
    def metrics(batch):
        return {"number": batch["number"], "even": batch["number"][batch["number"] % 2 == 0], "none": batch["number"][:0]}

    found = validate(stage([], metrics), Numbers(17), seed=0)
    assert found == {"number": 8.0, "even": np.mean([*range(0, 17, 2)])}


def test_the_best_weights_are_those_of_the_lowest_value(tmp_path):
    stage = ToyGAN(OPTIONS, tmp_path)
    stage.to_minimise = lambda metrics: metrics["val_radius"]
    for step, (value, best) in enumerate([(float("nan"), None), (3.0, 1), (5.0, 1), (2.0, 3), (2.0, 3), (float("-inf"), 3), (2.5, 3)]):
        note_best(stage, tmp_path, step, {"val_radius": value})
        assert read_best(tmp_path).get("toy", {}).get("step") == best == exported_step(tmp_path / "best" / "generator")
    assert read_best(tmp_path)["toy"] == {"step": 3, "value": 2.0, "val_radius": 2.0}


@pytest.mark.parametrize(("best", "value", "said"), [(2.0, 2.3, False), (2.0, 2.5, True), (-30.0, -20.0, False)])
def test_a_validation_that_is_far_worse_is_said(tmp_path, capsys, best, value, said):
    stage = ToyGAN(OPTIONS, tmp_path)
    stage.to_minimise = lambda metrics: metrics["val_radius"]
    note_best(stage, tmp_path, 10, {"val_radius": best})
    assert not capsys.readouterr().err
    note_best(stage, tmp_path, 20, {"val_radius": value})
    err = capsys.readouterr().err
    assert ("step 20" in err and "step 10" in err and "--toy_lr" in err) if said else not err


@pytest.mark.parametrize(("step", "files"), [(49, ["toy-00000049-raw.png", "toy-00000049.png"]), (60, ["toy-00000060.png"])])
def test_the_preview_of_a_young_run_shows_the_weights_beside_their_average(tmp_path, step, files):
    network = Network(Shape())
    learner = Learner({"toy": network}, Recipe(lambda step: 0.0, ema=0.9))
    network.fc1.bias.update(jt.full_like(network.fc1.bias, 200))  # of which the average knows nothing
    learner.averages["toy"].averages["fc1.bias"].update(jt.full_like(network.fc1.bias, 100))
    shown = SimpleNamespace(
        name="toy",
        columns=("value",),
        learners={"toy": learner},
        preview=lambda pairs: [[np.full((64, 64, 3), network.fc1.bias.numpy()[0], np.uint8)]],
    )
    preview(shown, [], tmp_path, step, SimpleNamespace(pictures=lambda step, sheets: None), Stop(float("inf")))
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == files
    sheets = {name: np.asarray(Image.open(tmp_path / "previews" / name)) for name in files}
    values = {name: np.bincount(sheet.ravel())[:255].argmax() for name, sheet in sheets.items()}  # the paper is white
    assert values == {name: 200 if "raw" in name else 100 for name in files}
