"""What stands on a trained UNet, by the two scripts as a user runs them."""

import json
import shutil

import numpy as np
import pytest

from models.networks.pretrained import WEIGHTS
from tests.small import arguments, write_small_run
from tests.test_commands import one_sentence, paint, run
from utils.checkpoint import read_metadata


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run whose UNet is as it begins, and a ControlNet of low rank beside it that has been trained a little."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    write_small_run(folder)
    words = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--stage", "control", "--control_form", "low_rank"]
    result = run("MainTrain.py", *words, *arguments("control", steps=6, lr=0.1, ema=0.1))
    assert result.returncode == 0, result.stderr
    return folder


def test_control_is_trained_where_it_is_named_and_painted_with_where_it_is_there(data, trained, tmp_path):
    assert read_metadata(trained / "control" / WEIGHTS)["step"] == "6" and (trained / "best" / "control").is_dir()
    config = json.loads((trained / "control" / "config.json").read_text())
    assert (config["_class_name"], config["rank"]) == ("LowRankControlNet", 2)
    painted = {}
    for name, words in (("with", ()), ("weight 0", ("--control_weight", 0))):  # which is as without: tests/models/stages/test_control.py
        result = paint(data, trained, tmp_path / name, "--batch_size", 5, *words)
        assert result.returncode == 0, result.stderr
        painted[name] = [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
    assert painted["weight 0"] != painted["with"]


def test_faults_of_the_user_get_a_sentence(data, trained, tmp_path):
    words = ["--input_path", data, "--run", trained, "--val_fraction", 0.3, "--stage", "control"]
    one_sentence(run("MainTrain.py", *words, "--control_width", 128), "--control_width 128, but the UNet's is 96")
    one_sentence(run("MainTrain.py", *words, "--control_form", "full"), "control_form", "--restart")
    other = tmp_path / "other"
    write_small_run(other)
    weights = np.frombuffer((other / "unet" / WEIGHTS).read_bytes(), np.uint8).copy()
    weights[-3] ^= 64
    (other / "unet" / WEIGHTS).write_bytes(weights.tobytes())
    shutil.copytree(trained / "control", other / "control")
    one_sentence(paint(data, other, tmp_path / "out"), str(other / "control"), "another UNet")
