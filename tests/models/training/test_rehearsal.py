"""A step of every stage before the first."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

import MainTrain
from models.training.loop import save
from models.training.progress import export, is_exported
from models.training.rehearsal import rehearse
from models.training.run import Run, System, write_run
from tests.models.training.toy_gan import OPTIONS, Network, Shape, ToyGAN
from utils.checkpoint import write_safetensors
from utils.errors import TrainingError, UserError, telling_of_memory
from utils.stop import Stop


def system(events, short_of_memory=False):
    """Two toy stages, of which the second stands on what the first has exported."""

    class First(ToyGAN):
        name, networks = "first", ("generator",)

        def train_step(self, batches, step):
            events.append((self.name, self.options.batch_size, len(batches)))
            return super().train_step(batches, step)

    class Second(First):
        name, builds_on, networks = "second", ("first",), ()

        def __init__(self, options, folder):
            super().__init__(options, folder)
            assert (folder / "generator" / "config.json").is_file()

        def train_step(self, batches, step):
            if short_of_memory:
                raise RuntimeError("[f 1125 00:00:00 cuda_device_allocator.cc:31] Unable to alloc cuda device memory for size 1073741824")
            return super().train_step(batches, step)

    return System((First, Second), None, {})


def run_in(folder: Path) -> Run:
    run = Run(folder, "toys", "tiny", {"first": OPTIONS, "second": OPTIONS})
    write_run(run)
    return run


def test_every_stage_takes_one_step_and_leaves_nothing(tmp_path, capsys):
    events = []
    rehearse(system(events), ["first", "second"], ([], []), run_in(tmp_path), {})
    assert events == [("first", 4, 1), ("second", 4, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert "All of them work; that took" in capsys.readouterr().out


def test_a_stage_that_is_trained_is_stood_on_and_left_as_it_is(tmp_path):
    jt.set_global_seed(5)
    export(ToyGAN(OPTIONS, tmp_path), tmp_path, 7)
    before = {path: path.read_bytes() for path in (tmp_path / "generator").iterdir()}
    events = []
    rehearse(system(events), ["second"], ([], []), run_in(tmp_path), {})
    assert [name for name, *_ in events] == ["second"]
    assert {path: path.read_bytes() for path in (tmp_path / "generator").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generator", "run.json"]


def test_a_disk_that_is_full_while_a_network_is_copied_is_known_for_one(tmp_path, monkeypatch):
    export(ToyGAN(OPTIONS, tmp_path), tmp_path, 7)
    copyfile = shutil.copyfile

    def copied(source, target, **options):
        if str(source).endswith(".safetensors"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return copyfile(source, target, **options)

    run = run_in(tmp_path)
    monkeypatch.setattr("shutil.copyfile", copied)
    with pytest.raises(OSError) as raised:
        rehearse(system([]), ["second"], ([], []), run, {})
    assert raised.value.errno == errno.ENOSPC and not (tmp_path / "rehearsal").exists()  # utils.errors.or_exit says the rest


def test_a_stage_that_was_saved_and_not_exported_is_tried_again(tmp_path, monkeypatch):
    """The disk was full in between, say: the stage that stands on it finds in the rehearsal what it needs."""
    events = []
    toys = system(events)
    toys = replace(toys, stages=(*toys.stages, type("Third", (toys.stages[1],), {"name": "third"})))
    monkeypatch.setitem(MainTrain.SYSTEMS, "toys", toys)
    stage, run = toys.stages[0](OPTIONS, tmp_path), replace(run_in(tmp_path), options=dict.fromkeys(("first", "second", "third"), OPTIONS))
    save(stage, tmp_path, 2, 8)
    shutil.rmtree(tmp_path / "generator")
    args = type("args", (), {"init_first": None, "init_second": None, "workers": 0})
    assert not MainTrain.train_stages(run, list(run.options), ([], []), args, Stop(0))
    assert [name for name, *_ in events] == list(run.options) and is_exported(stage, tmp_path, 2)


def test_published_weights_that_do_not_fit_are_said_before_the_first_step(tmp_path, monkeypatch):
    """And not when the stage before, which takes days, is done."""

    class First(ToyGAN):
        name, networks = "first", ("discriminator",)

    class Second(ToyGAN):
        name, builds_on = "second", ("first",)

    monkeypatch.setitem(MainTrain.SYSTEMS, "toys", System((First, Second), None, {}))
    weights = tmp_path / "published.safetensors"
    args = type("args", (), {"init_discriminator": None, "init_generator": weights, "workers": 0})
    write_safetensors(weights, {"fc1.weight": np.zeros((3, 2), np.float32)})
    with pytest.raises(UserError, match=r"published\.safetensors does not fit Network"):
        MainTrain.train_stages(run_in(tmp_path), ["first", "second"], ([], []), args, Stop(float("inf")))
    assert not (tmp_path / "state").exists() and not (tmp_path / "rehearsal").exists()

    published = {name: np.full(weight.shape, 0.5, np.float32) for name, weight in Network(Shape()).state_dict().items()}
    write_safetensors(weights, published)
    assert MainTrain.train_stages(run_in(tmp_path), ["first", "second"], ([], []), args, Stop(float("inf")))
    trained = load_file(tmp_path / "generator" / "diffusion_pytorch_model.safetensors")
    assert all(0 < np.abs(array - 0.5).max() < 0.1 for array in trained.values())  # twelve steps of 0.001 from there


def test_what_memory_is_too_short_for_is_said_before_the_first_step(tmp_path, monkeypatch):
    """And not after the 100,000 steps of the stage before."""
    events = []
    monkeypatch.setitem(MainTrain.SYSTEMS, "toys", system(events, short_of_memory=True))
    args = type("args", (), {"init_first": None, "init_second": None, "workers": 0})
    with pytest.raises(TrainingError) as raised, telling_of_memory(MainTrain.LESS_MEMORY):
        MainTrain.train_stages(run_in(tmp_path), ["first", "second"], ([], []), args, Stop(float("inf")))
    assert len(events) == 1 and not (tmp_path / "state").exists()
    assert all(word in str(raised.value) for word in ("--preset small", "--recompute", "--batch_size", "--accumulate"))


@pytest.mark.parametrize("error, told", [
    (RuntimeError("CUDA error at a.cc:1 code=2( cudaErrorMemoryAllocation ) cudaMalloc"), True),
    (RuntimeError("cudnn: CUDNN_STATUS_ALLOC_FAILED"), True),
    (MemoryError(), True),
    (np.core._exceptions._ArrayMemoryError((1 << 50,), np.dtype(np.float32)), True),
    (RuntimeError("Check failed: shapes differ"), False),
])  # fmt: skip
def test_other_errors_are_not_taken_for_a_lack_of_memory(error, told):
    with pytest.raises(TrainingError if told else type(error)), telling_of_memory("take less"):
        raise error
