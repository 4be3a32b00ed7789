"""`python3 -m datasets.prepare` as a user runs it, and training that leaves out what it names."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.landscape import read_image, read_mask
from datasets.pairs import check_training_pairs
from datasets.prepare.clean import write_report
from models.metrics import mask_accuracy
from models.networks.pretrained import save_network
from models.networks.segformer import SEGFORMERS, SegformerForSemanticSegmentation
from models.training.run import Run, write_run
from tests.small import OPTIONS, arguments
from utils.checkpoint import module_arrays, write_json

ROOT = Path(__file__).resolve().parent.parent


def prepare(*words) -> subprocess.CompletedProcess:
    return run("-m", "datasets.prepare", *words)


def run(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT)


def sentence(result: subprocess.CompletedProcess, *needles: str) -> None:
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert all(needle in result.stderr for needle in needles), result.stderr


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def flawed(data, tmp_path_factory) -> Path:
    """A drawn training set with a grey photo, a framed one, a photo twice, once mirrored, and a damaged one."""
    root = tmp_path_factory.mktemp("flawed") / "set"
    shutil.copytree(data / "train_resized", root / "train")
    imgs, labels = root / "train" / "imgs", root / "train" / "labels"

    def change(number, picture):
        path = imgs / f"train_{number:05d}.jpg"
        picture(Image.open(path)).save(path, quality=85)

    def in_frame(photo):
        return Image.fromarray(np.pad(np.array(photo.resize((120, 88))), ((4, 4), (4, 4), (0, 0)), constant_values=255))

    change(0, lambda photo: photo.convert("L"))
    change(1, in_frame)
    Image.open(imgs / "train_00002.jpg").save(imgs / "again.jpg", quality=40)
    Image.open(imgs / "train_00003.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(imgs / "mirrored.jpg", quality=90)
    for original, copy in ((2, "again"), (3, "mirrored")):
        shutil.copy(labels / f"train_{original:05d}.png", labels / f"{copy}.png")
    (imgs / "train_00004.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def cleaned(flawed, tmp_path_factory) -> Path:
    folder, before = tmp_path_factory.mktemp("cleaned") / "out", contents(flawed)
    result = prepare("clean", "--input_path", flawed, "--output_path", folder)
    assert result.returncode == 0, result.stderr
    assert "12 pairs of " in result.stdout and "5 better left out (1 damaged, 1 grey, 1 framed, 2 duplicate)" in result.stdout
    assert before == contents(flawed)
    return folder


def listed(folder: Path) -> dict[str, str]:
    lines = (folder / "leave_out.txt").read_text().splitlines()
    return dict(line.split("\t") for line in lines if not line.startswith("# "))


def test_what_is_better_left_out_is_listed_with_reasons_and_shown(cleaned):
    reasons = listed(cleaned)
    assert reasons.keys() == {"train_00000", "train_00001", "again", "mirrored", "train_00004"}
    assert reasons["again"] == "duplicate: of train_00002" and reasons["mirrored"] == "duplicate: mirrored, of train_00003"
    assert reasons["train_00000"].startswith("grey: chroma 0.")
    assert reasons["train_00001"] == "framed: top 4, bottom 4, left 4, right 4 pixels"
    assert reasons["train_00004"].startswith("damaged: imgs/train_00004.jpg, cannot be decoded")
    page = (cleaned / "report.html").read_text()
    assert all(stem in page for stem in reasons)
    assert page.count("data:image/jpeg") == 4 + 2 and page.count("data:image/png") == 4  # photos, originals; masks


def test_an_edited_list_is_not_written_over(flawed, cleaned):
    before = contents(cleaned)
    sentence(prepare("clean", "--input_path", flawed, "--output_path", cleaned), "leave_out.txt", "another folder")
    assert before == contents(cleaned)


def test_preparing_does_without_jittor(flawed, tmp_path):
    command = "import runpy, sys; runpy.run_module('datasets.prepare', run_name='__main__'); print(*sys.modules)"
    words = ["clean", "--input_path", flawed, "--output_path", tmp_path / "out"]
    result = run("-c", command, *words)
    assert result.returncode == 0, result.stderr
    modules = result.stdout.split()
    assert "datasets.prepare.clean" in modules and "jittor" not in modules


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    """A run with a judge that has learnt nothing."""
    folder = tmp_path_factory.mktemp("checkpoints") / "judge"
    network = SegformerForSemanticSegmentation(SEGFORMERS["b0"])
    save_network(network, module_arrays(network), folder / "best" / "segformer")
    write_json(folder / "best" / "best.json", {"segformer": {"step": 1, "value": 1.0, "val_loss": 1.0, "val_pixel_accuracy": 0.75}})
    write_run(Run(folder, "judge", "tiny", {"segformer": OPTIONS["segformer"]}))
    return folder


def test_a_judge_looks_at_the_masks_once(data, judge, tmp_path, monkeypatch):
    result = prepare("clean", "--input_path", data, "--judge", judge, "--output_path", tmp_path / "out")
    assert result.returncode == 0 and "(in its validation: 75.0%)" in result.stdout, result.stderr
    (rows,) = (tmp_path / "out" / "cache").iterdir()
    seen, found = rows.read_bytes(), listed(tmp_path / "out")
    assert len(seen) % 10 == 0 and found.keys() <= {f"train_{i:05d}" for i in range(10)}
    (tmp_path / "out" / "leave_out.txt").unlink()  # as if the command had been killed
    monkeypatch.setattr(mask_accuracy.Judge, "labels", None)  # it cannot look again
    write_report(data, tmp_path / "out", judge)
    assert seen == rows.read_bytes() and found == listed(tmp_path / "out")


def test_the_mask_that_the_judge_does_not_see_is_named(data, judge, tmp_path, monkeypatch):
    """By a judge that sees what was drawn, before two masks were exchanged."""
    root = tmp_path / "set"
    shutil.copytree(data / "train_resized", root)
    pairs = [(root / "imgs" / f"train_{i:05d}.jpg", root / "labels" / f"train_{i:05d}.png") for i in range(10)]
    drawn = [(read_image(image).astype(int), read_mask(mask, (96, 64))) for image, mask in pairs]

    def sees(self, pictures, size):
        return np.stack([min(drawn, key=lambda pair: np.abs(pair[0] - picture).sum())[1] for picture in pictures])

    monkeypatch.setattr(mask_accuracy.Judge, "labels", sees)
    agreement = np.array([[(one == other).mean() for _, other in drawn] for _, one in drawn])
    a, b = np.unravel_index(agreement.argmin(), agreement.shape)
    contents = pairs[a][1].read_bytes(), pairs[b][1].read_bytes()
    pairs[a][1].write_bytes(contents[1]), pairs[b][1].write_bytes(contents[0])
    write_report(root, tmp_path / "out", judge)
    reasons = listed(tmp_path / "out")
    assert reasons.keys() == {pairs[a][0].stem, pairs[b][0].stem}
    assert all(
        re.match(r"mask: evidence -\d\.\d\d; \d+% of its pixels are \w+, which the judge sees as \w+$", text) for text in reasons.values()
    )


def test_training_leaves_out_what_a_list_names_and_goes_on_so(flawed, cleaned, tmp_path):
    """To the same bytes as a run that was never stopped, though the command that goes on does not name the list again."""
    words = ["MainTrain.py", "--input_path", flawed, "--val_fraction", 0.3, "--stage", "vae", *arguments("vae"), "--run"]
    leave_out, kept = ["--leave_out", cleaned / "leave_out.txt"], 12 - len(listed(cleaned))
    whole = run(*words, tmp_path / "whole", *leave_out)
    stopped = run(*words, tmp_path / "run", *leave_out, "--max_minutes", 1e-6)
    assert whole.returncode == stopped.returncode == 0 and "Stopped" in stopped.stderr, whole.stderr + stopped.stderr
    resumed = run(*words, tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    for result in (whole, stopped, resumed):
        assert f"5 pictures are left out, as {cleaned / 'leave_out.txt'} says." in result.stdout
        train, val = (int(line) for line in result.stdout.split(" to validate on")[0].splitlines()[-1].split() if line.isdigit())
        assert train + val == kept
    assert json.loads((tmp_path / "run" / "run.json").read_text())["leave_out"] == str(cleaned / "leave_out.txt")
    states = [(tmp_path / name / "state" / "vae" / "step-00000004.safetensors").read_bytes() for name in ("whole", "run")]
    assert states[0] == states[1]
    other = run(*words, tmp_path / "run", "--leave_out", os.devnull)  # all of them again, of which one is damaged
    sentence(other, "train_00004.jpg")


def test_faults_of_a_list_are_all_named_before_training(data, tmp_path):
    (tmp_path / "list.txt").write_text("train_00001\nnobody\nnothing.jpg\n")
    words = ["MainTrain.py", "--input_path", data, "--run", tmp_path / "run", *arguments("vae"), "--stage", "vae", "--leave_out"]
    sentence(run(*words, tmp_path / "list.txt"), "list.txt names 2 pictures", "nobody, nothing")
    (tmp_path / "list.txt").write_text("".join(f"train_{i:05d}\n" for i in range(10)))
    sentence(run(*words, tmp_path / "list.txt"), "list.txt leaves out all 10 pictures")
    sentence(run(*words, tmp_path / "nowhere.txt"), "nowhere.txt", "cannot be read")


def test_a_set_that_was_split_and_cleaned_is_trained_on(flawed, cleaned, tmp_path):
    before = contents(flawed)
    words = ["--input_path", flawed, "--leave_out", cleaned / "leave_out.txt", "--output_path"]
    result = prepare("split", *words, tmp_path / "split", "--count", 2)
    assert result.returncode == 0 and "5 pairs to train on, 2 held out" in result.stdout, result.stderr
    assert {path.name for path in (tmp_path / "split" / "val").iterdir()} == {"imgs", "labels", "label_to_img.json", "captions.json"}
    sentence(prepare("split", *words, tmp_path / "split"), "split exists already")
    result = prepare("sr", "--input_path", tmp_path / "split", "--output_path", tmp_path / "sr")
    assert result.returncode == 0 and "5 pairs in " in result.stdout, result.stderr
    assert Image.open(next((tmp_path / "sr" / "LR_bicubic" / "X2").iterdir())).size == (64, 48)
    assert before == contents(flawed)
    words = ["MainTrain.py", "--input_path", tmp_path / "split", "--val_path", tmp_path / "split" / "val", "--run", tmp_path / "run"]
    result = run(*words, "--stage", "vae", *arguments("vae"))
    assert result.returncode == 0 and "5 pairs to train on, 2 to validate on" in result.stdout, result.stderr


def test_a_set_of_any_size_is_drawn(tmp_path):
    result = prepare("draw", "--output_path", tmp_path / "drawn", "--train", 3, "--test", 1)
    assert result.returncode == 0, result.stderr
    assert len(check_training_pairs(tmp_path / "drawn", skip_bad=False)) == 3
    assert read_image(tmp_path / "drawn" / "val_A_truth" / "test_00000.jpg", None).shape == (384, 512, 3)
    sentence(prepare("draw", "--output_path", tmp_path / "none", "--train", 0), "at least 1")


def test_faults_of_the_user_get_a_sentence(data, tmp_path):
    paths = ["--input_path", data, "--output_path", tmp_path / "out"]
    sentence(prepare("split", *paths, "--share", 1, "--seed", -1), "--share", "--seed")
    sentence(prepare("split", *paths, "--count", 10), "10 of 10 pairs")
    sentence(prepare("split", *paths, "--count", 2, "--share", 0.5), "not allowed with")
    sentence(prepare("clean", *paths, "--judge", tmp_path / "nowhere"), "--judge", "nowhere")
    sentence(prepare("clean", *paths, "--judge", tmp_path), "run.json")
    sentence(prepare("clean", "--input_path", tmp_path / "nowhere", "--output_path", tmp_path / "out"), "nowhere does not exist")
    sentence(prepare("sr", "--input_path", data, "--output_path", data), "holds other things")
    sentence(prepare("paint", *paths), "paint", "split")
    sentence(prepare("split", "--input_path", data), "--output_path")
