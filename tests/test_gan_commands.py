"""The two scripts with systems that are generative adversarial networks, each command in a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.small import arguments
from tests.test_commands import ROOT, one_sentence, run, wait_for

STEPS = 12


@pytest.fixture(scope="module", params=["ecgan", "lggan"])
def system(request) -> str:
    """The name of a system, and of its only stage and network."""
    return request.param


def train_words(system: str, data: Path, folder: Path, **changed) -> list[str]:
    words = ["--system", system, "--input_path", data, "--val_fraction", 0.3, "--run", folder]
    return [*map(str, words), *arguments(system, **{"steps": STEPS} | changed)]


@pytest.fixture(scope="module")
def trained(system, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "trained"
    result = run("MainTrain.py", *train_words(system, data, folder))
    assert result.returncode == 0, result.stderr
    return folder


def paint(data: Path, folder: Path, output: Path, *words) -> subprocess.CompletedProcess:
    return run("MainTest.py", "--input_path", data, "--img_path", data, "--checkpoint", folder, "--output_path", output, *words)


@pytest.mark.bit_for_bit
def test_a_killed_run_resumes_to_the_same_weights_and_pictures(system, data, trained, tmp_path):
    words, folder = train_words(system, data, tmp_path / "killed"), tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, ROOT / "MainTrain.py", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    wait_for(folder / "log.jsonl", system, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert run("MainTrain.py", *words).returncode == 0
    for path in (f"state/{system}/step-{STEPS:08d}.safetensors", f"{system}/diffusion_pytorch_model.safetensors"):
        expected, found = load_file(trained / path), load_file(folder / path)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not np.array_equal(expected[name], found[name])] == []

    assert paint(data, trained, tmp_path / "a", "--batch_size", 2).returncode == 0
    assert paint(data, folder / "best", tmp_path / "best").returncode == 0
    assert paint(data, folder, tmp_path / "b", "--batch_size", 3).returncode == 0
    stems = {path.stem for path in (data / "val_A_labels_resized").iterdir()}
    for path in (tmp_path / "a").iterdir():
        assert Image.open(path).size == (512, 384) and path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert {path.stem for path in (tmp_path / "a").iterdir()} == {path.stem for path in (tmp_path / "best").iterdir()} == stems


def test_it_goes_on_in_mixed_precision_and_with_recomputation(system, data, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    words = train_words(system, data, folder, steps=STEPS + 2)
    result = run("MainTrain.py", *words, "--amp", "bfloat16", "--recompute")
    assert result.returncode == 0, result.stderr
    last = [line for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "loss" in line][-1]
    assert last["step"] == STEPS + 2 and np.isfinite(last["loss"]) and last["skipped"] == 0


def test_faults_of_the_user_get_a_sentence(system, data, trained, tmp_path):
    one_sentence(run("MainTrain.py", *train_words(system, data, tmp_path / "a", width=100)), f"--{system}_width 100 is not a multiple of")
    one_sentence(run("MainTrain.py", "--system", "judge", "--input_path", data, "--run", trained), f"system {system}", "--run")
    one_sentence(paint(data, trained, tmp_path / "out", "--guidance", 3), "--guidance", f"system {system}", "no such option")
    folder = tmp_path / "other"
    shutil.copytree(trained, folder)
    (folder / system / "config.json").write_text('{"_class_name": "AutoencoderKL", "block_out_channels": [8, 8]}')
    one_sentence(paint(data, folder, tmp_path / "out"), str(folder / system))
