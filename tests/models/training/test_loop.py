"""The training loop, on a stage that it has never heard of: a toy GAN of two learners."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

from models.networks.layers import Linear, freeze
from models.training import learner as learning
from models.training import loop
from tests.models.training.toy_gan import OPTIONS, Network, Shape, trained
from utils.errors import TrainingError, UserError
from utils.optimizer import AdamW
from utils.stop import Stop

TOY = Path(__file__).with_name("toy_gan.py")


@pytest.fixture(autouse=True)
def signals():
    """A run takes Ctrl-C and SIGTERM for its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert trained(folder)
    return folder


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state" / "toy").iterdir())


def final_state(folder: Path) -> bytes:
    return (folder / "state" / "toy" / "step-00000012.safetensors").read_bytes()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_gan_is_trained_by_the_loop_that_trains_all(whole):
    assert states(whole) == ["step-00000008.safetensors", "step-00000012.safetensors"]
    state = load_file(whole / "state" / "toy" / "step-00000012.safetensors")
    assert {name.split(".")[0] for name in state} == {"generator", "discriminator"}
    kinds = {(name.split(".")[0], name.split(".")[1]) for name in state}
    assert ("generator", "ema") in kinds and ("discriminator", "ema") not in kinds
    steps = [line for line in lines(whole) if "loss" in line]
    assert [line["step"] for line in steps] == [*range(1, 13)]
    assert all((line["lr"], line["discriminator_lr"]) == (1e-3, 4e-3) for line in steps)
    exported = load_file(whole / "generator" / "diffusion_pytorch_model.safetensors")
    assert all(np.array_equal(array, state[f"generator.ema.generator.{name}"]) for name, array in exported.items())
    assert not (whole / "discriminator").exists()
    best = json.loads((whole / "best" / "best.json").read_text())["toy"]
    values = {line["step"]: abs(line["val_radius"] - 1) for line in lines(whole) if "val_radius" in line}
    assert [*values] == [4, 8, 12] and best["step"] == min(values, key=values.get)
    assert sorted(path.name for path in (whole / "previews").iterdir()) == ["toy-00000012-raw.png", "toy-00000012.png"]  # a young run


@pytest.mark.bit_for_bit
def test_a_gan_that_is_killed_resumes_to_the_same_bytes(whole, tmp_path):
    """In the middle of step 7, after the discriminator's part of it."""
    killed = subprocess.run([sys.executable, TOY, tmp_path / "run", "6"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert states(tmp_path / "run") == ["step-00000004.safetensors"]
    resumed = subprocess.run([sys.executable, TOY, tmp_path / "run"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert final_state(tmp_path / "run") == final_state(whole)
    assert [line["step"] for line in lines(tmp_path / "run") if "loss" in line] == [*range(1, 13)]


@pytest.mark.bit_for_bit
@pytest.mark.parametrize("where", ["a training step", "a validation"])
def test_a_photo_that_vanishes_ends_training_with_what_was_done_saved(whole, tmp_path, where, capsys):
    def vanish(stage):
        training_set, validation_set = stage.datasets([], [])
        seen, sound = [], training_set.example

        def example(index, rng):
            seen.append(index)
            if where == "a validation" or len(seen) > 28:
                raise UserError("photo.jpg: cannot be decoded")
            return sound(index, rng)

        (training_set if where == "a training step" else validation_set).example = example
        stage.datasets = lambda train, validation: (training_set, validation_set)

    options = replace(OPTIONS, save_every=12, validate_every=6)
    with pytest.raises(UserError, match=r"photo\.jpg"):
        trained(tmp_path / "run", options, vanish)
    done = 7 if where == "a training step" else 6
    assert states(tmp_path / "run") == [f"step-{done:08d}.safetensors"]
    assert f"could not go on after step {done}. What was done is saved." in capsys.readouterr().err
    assert trained(tmp_path / "run", options)
    assert final_state(tmp_path / "run") == final_state(whole)
    steps = [line["step"] for line in lines(tmp_path / "run") if "loss" in line]
    assert steps == [*range(1, 13)]


@pytest.mark.bit_for_bit
def test_micro_batches_may_be_cut_anew_on_the_way(tmp_path):
    """Eight examples a step as 8, as 4 and 4: each is seen once, in the same order."""
    seen = {}

    def note(name):
        def change(stage):
            step = stage.train_step

            def noting(batches, number):
                seen.setdefault(name, []).append(np.concatenate([batch["noise"] for batch in batches]))
                return step(batches, number)

            stage.train_step = noting

        return change

    assert trained(tmp_path / "one", replace(OPTIONS, steps=8, batch_size=8), note("one"))
    assert trained(tmp_path / "other", replace(OPTIONS, steps=4, batch_size=8), note("other"))
    assert trained(tmp_path / "other", replace(OPTIONS, steps=8, batch_size=4, accumulate=2), note("other"))
    assert np.array_equal(np.concatenate(seen["one"]), np.concatenate(seen["other"]))


def test_what_was_read_to_resume_is_let_go_of(whole, tmp_path, monkeypatch):
    """It is as large as the training itself: 14 GB for the largest preset."""
    subprocess.run(["cp", "-r", whole, tmp_path / "run"], check=True)
    held, alive = [], []
    read = loop.read_training_state

    def reading(path):
        arrays, info = read(path)
        held.extend(weakref.ref(array) for array in arrays.values())
        return arrays, info

    def look(stage):
        step = stage.train_step

        def looking(batches, number):
            gc.collect()
            alive.append(sum(reference() is not None for reference in held))
            return step(batches, number)

        stage.train_step = looking

    monkeypatch.setattr(loop, "read_training_state", reading)
    assert trained(tmp_path / "run", replace(OPTIONS, steps=14), look)
    assert held and alive == [0, 0]


@pytest.mark.parametrize("moment", ["step", "validation", "preview"])
def test_a_stop_saves_before_it_validates_or_paints(tmp_path, moment):
    """Who stops a run kills it half a minute later: what comes first is the training state."""
    events = []

    def change(stage):
        step, validate, preview = stage.train_step, stage.validate, stage.preview

        def stepping(batches, number):
            if moment == "step" and number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batches, number)

        def validating(batch):
            events.append("validation")
            if moment == "validation":
                os.kill(os.getpid(), signal.SIGTERM)
                np.zeros(10).sum()  # a signal is noticed between two lines of Python
            return validate(batch)

        def previewing(pairs):
            events.append("preview")
            if moment == "preview":
                os.kill(os.getpid(), signal.SIGTERM)
                np.zeros(10).sum()
                events.append("preview went on")
            return preview(pairs)

        stage.train_step, stage.validate, stage.preview = stepping, validating, previewing

    assert not trained(tmp_path / "run", replace(OPTIONS, preview_every=4), change)
    assert states(tmp_path / "run") == ["step-00000004.safetensors"]
    if moment == "preview":  # which comes after the validation
        assert events[-1] == "preview" and not (tmp_path / "run" / "previews").exists()
    else:
        assert events == {"step": [], "validation": ["validation"]}[moment]  # of three batches, and no preview
        assert not any("val_radius" in line for line in lines(tmp_path / "run"))
    # what was left out is done when the run goes on
    assert trained(tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run") if "val_radius" in line] == [4, 8, 12]


class LateStop(Stop):
    """Is wanted from when it is asked for the so-manieth time on."""

    def __init__(self, number: int):
        super().__init__()
        self.left = number

    @property
    def wanted(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("number", range(2, 9))
def test_whenever_a_stop_comes_the_last_step_is_saved(tmp_path, number):
    """One that came just after it had been asked for left without saving, and said that all was saved."""
    assert not trained(tmp_path / "run", replace(OPTIONS, save_every=12, validate_every=12), stop=LateStop(number))
    (newest,) = states(tmp_path / "run")
    done = max(line["step"] for line in lines(tmp_path / "run"))
    assert newest == f"step-{done:08d}.safetensors"


def test_a_stop_in_the_last_step_leaves_the_last_validation_for_later(tmp_path):
    def stop_at_the_end(stage):
        step = stage.train_step

        def stepping(batches, number):
            if number == 11:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(batches, number)

        stage.train_step = stepping

    assert not trained(tmp_path / "run", change=stop_at_the_end)  # what comes after this stage must not begin
    assert [line["step"] for line in lines(tmp_path / "run") if "val_radius" in line] == [4, 8]
    assert trained(tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run") if "val_radius" in line] == [4, 8, 12]


def test_a_run_killed_between_saving_and_exporting_exports_when_it_goes_on(whole, tmp_path):
    """A painter must not go on painting what the training has left behind."""
    subprocess.run(["cp", "-r", whole, tmp_path / "run"], check=True)
    weights = tmp_path / "run" / "generator" / "diffusion_pytorch_model.safetensors"
    newest = weights.read_bytes()
    weights.write_bytes(newest.replace(b'"step": "12"', b'"step": "11"'))
    assert trained(tmp_path / "run")
    assert weights.read_bytes() == newest


def test_gradients_that_are_never_finite_end_the_run(tmp_path, monkeypatch):
    """They were skipped to the last step, and the good training states pushed out by those of a failed one."""
    monkeypatch.setattr(learning, "FAILURES", 10)

    def diverge(stage):
        loss = stage.generator_loss
        stage.steps = 0

        def losses(batch):
            stage.steps += 1
            return {"loss": loss(batch)["loss"] * (float("inf") if stage.steps > 9 else 1.0)}

        stage.generator_loss = losses

    with pytest.raises(TrainingError, match="has not been finite in the 10 steps up to 19") as raised:
        trained(tmp_path / "run", replace(OPTIONS, steps=400, save_every=4), diverge)
    assert raised.value.status == 1 and "--lr" in str(raised.value)
    assert states(tmp_path / "run") == ["step-00000004.safetensors", "step-00000008.safetensors"]


def test_a_step_that_was_skipped_puts_a_save_off_to_the_next_one(tmp_path):
    """In float16 now and then one is: its failure counts in a row alone, or nothing would be saved any more."""
    saved = []

    def overflow(stage):
        loss, step = stage.generator_loss, stage.train_step

        def stepping(batches, number):
            saved.append(states(tmp_path / "run") if number > 4 else [])
            stage.generator_loss = lambda batch: {"loss": loss(batch)["loss"] * (float("inf") if number == 3 else 1.0)}
            return step(batches, number)

        stage.train_step = stepping

    assert trained(tmp_path / "run", change=overflow)
    assert saved[5] == ["step-00000005.safetensors"] and saved[8] == ["step-00000005.safetensors", "step-00000008.safetensors"]


def test_what_a_command_would_train_without_is_not_lost(whole, tmp_path):
    """As where the package of a discriminator's features is gone when a run goes on."""
    shutil.copytree(whole, tmp_path / "run")
    with pytest.raises(UserError, match=r"step-00000012.*learnt of discriminator"):
        trained(tmp_path / "run", replace(OPTIONS, steps=16), lambda stage: stage.learners.pop("discriminator"))
    assert final_state(tmp_path / "run") == final_state(whole)


def test_what_a_command_would_train_that_the_run_has_not_is_said_in_a_sentence(tmp_path):
    """As where the package of a discriminator's features was installed after the run had begun without."""
    assert trained(tmp_path / "run", change=lambda stage: (stage.learners.pop("discriminator"), setattr(stage, "train_step", alone(stage))))
    with pytest.raises(UserError, match=r"step-00000012\.safetensors holds nothing of discriminator, .*--restart"):
        trained(tmp_path / "run", replace(OPTIONS, steps=16))


def alone(stage):
    return lambda batches, step: stage.learners["generator"].step(stage.generator_loss, batches, step)


def test_a_step_without_a_finite_gradient_moves_no_average():
    learner = learning.Learner({"network": Network(Shape())}, learning.Recipe(lambda step: 0.1, ema=0.5))
    losses = lambda factor: {"loss": learner.networks["network"](jt.ones((3, 2))).sqr().mean() * factor}  # noqa: E731
    learner.step(losses, [1.0], 0)
    before = {name: np.array(array) for name, array in learner.state().items() if not name.startswith("optimizer.")}
    learner.step(losses, [float("inf")], 1)
    assert learner.failures == 1 and all(np.array_equal(array, learner.state()[name]) for name, array in before.items())


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    def spoil(stage):
        step = stage.train_step

        def stepping(batches, number):
            scalars = step(batches, number)
            if number == 6:
                stage.generator.fc1.bias.update(jt.array(np.full(8, np.nan, np.float32)))
            return scalars

        stage.train_step = stepping

    with pytest.raises(TrainingError, match="not finite after step 12"):
        trained(tmp_path / "run", replace(OPTIONS, validate_every=100), spoil)
    assert states(tmp_path / "run") == ["step-00000004.safetensors"]


def test_training_of_weights_without_a_gradient_is_left_alone_and_not_stored():
    """A learner of an adapter on a frozen network keeps the adapter alone."""
    network = freeze(Network(Shape()))
    network.fc1.adapter = Linear(2, 8)
    learner = learning.Learner({"network": network}, learning.Recipe(lambda step: 0.1, ema=0.5))
    before = network.fc1.weight.numpy()
    losses = lambda batch: {"loss": (network(jt.array(batch)) + network.fc1.adapter(jt.array(batch)).sum()).sqr().mean()}  # noqa: E731
    assert learner.step(losses, [np.ones((3, 2), np.float32)], 0)["grad_norm"] > 0
    assert np.array_equal(before, network.fc1.weight.numpy())
    names = {name.split(".", 2)[2] for name in learner.state() if name.startswith(("model.", "ema."))}
    assert names == {"fc1.adapter.weight", "fc1.adapter.bias"}
    assert isinstance(learner.optimizer, AdamW) and {*learner.optimizer.parameters} == {f"network.{name}" for name in names}
