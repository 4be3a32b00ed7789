"""Control learns from the mask what the UNet has not, and nothing else changes; it goes on where it was."""

import math
import shutil
from dataclasses import replace

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

from models.networks.pretrained import WEIGHTS
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.stages.control import ControlStage
from models.systems import SYSTEMS
from models.training.loop import train
from models.training.run import read_run
from tests.small import OPTIONS, write_small_run
from utils.checkpoint import module_arrays
from utils.stop import Stop


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder)
    return folder


def trained(folder, pairs, **changed):
    run = read_run(folder, SYSTEMS)
    stage = ControlStage(replace(OPTIONS["control"], **changed), folder)
    assert train(stage, (pairs, pairs), run, [], 0, Stop(math.inf))
    return stage


def test_it_learns_and_the_unet_stays(run, pairs, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    stage = trained(tmp_path, pairs, steps=30, lr=1e-2, warmup=5, ema=0.5, validate_every=30, preview_every=30)
    assert stage.options.channels == OPTIONS["unet"].channels and stage.options.steps == 30
    before, after = (load_file(folder / "unet" / WEIGHTS) for folder in (run, tmp_path))
    own = module_arrays(stage.unet)
    assert all(np.array_equal(before[name], after[name]) and np.array_equal(before[name], own[name]) for name in before)

    lines = (tmp_path / "log.jsonl").read_text()
    assert "val_loss_other_mask" in lines and (tmp_path / "previews" / "control-00000030.png").is_file()
    fresh = ControlStage(OPTIONS["control"], tmp_path)
    _, validation_set = fresh.datasets(pairs, pairs)
    examples = [[validation_set.example(i, np.random.default_rng((seed, i))) for i in range(4)] for seed in range(4)]
    batches = [{name: np.stack([example[name] for example in some]) for name in some[0]} for some in examples]
    with jt.no_grad():
        losses = [np.mean([np.mean(one.validate(batch)["val_loss"]) for batch in batches]) for one in (fresh, stage)]
    assert losses[1] < 0.95 * losses[0]

    assert "conv_in.weight" in load_file(tmp_path / "control" / WEIGHTS)


@pytest.mark.bit_for_bit
def test_it_goes_on_to_the_same_bytes_and_is_painted_with(run, pairs, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shutil.copytree(run, whole)
    trained(whole, pairs, form="low_rank")
    stored = load_file(whole / "control" / WEIGHTS)
    assert "conv_in.weight" not in stored and any(array.any() for name, array in stored.items() if "lora_up" in name)
    shutil.copytree(whole, stopped)
    last = "state/control/step-00000004.safetensors"
    (stopped / last).unlink()
    trained(stopped, pairs, form="low_rank")
    assert (whole / last).read_bytes() == (stopped / last).read_bytes()

    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8), ["", ""], [1, 2]
    painters = {name: LatentDiffusion.load(read_run(folder, SYSTEMS), folder) for name, folder in (("plain", run), ("control", whole))}
    painters["best"] = LatentDiffusion.load(read_run(whole, SYSTEMS), whole / "best")  # which holds nothing else: the UNet is the run's

    def painted(name, **options):
        return painters[name].paint(*inputs, PaintingOptions(steps=4, **options))

    plain = painted("plain")
    assert np.array_equal(painted("control", control_weight=0.0), plain)
    assert not np.array_equal(painted("control", control_weight=3.0), plain)
    assert painted("best").shape == plain.shape
