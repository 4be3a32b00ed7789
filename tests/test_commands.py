"""The two scripts as a user runs them, each in a process of its own."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from models.metrics.style import style_similarity
from tests.small import arguments
from utils.files import locked

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, *words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / script, *map(str, words)], capture_output=True, text=True, cwd="/")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "trained"
    # --restart has nothing to throw away in a new run, and must not stand in its way
    result = run("MainTrain.py", "--input_path", data, "--run", folder, "--val_fraction", 0.3, "--restart", *arguments())
    assert result.returncode == 0, result.stderr
    return folder


def paint(data: Path, folder: Path, output: Path, *words) -> subprocess.CompletedProcess:
    return run(
        "MainTest.py", "--input_path", data, "--img_path", data, "--checkpoint", folder, "--output_path", output,
        "--steps", 3, "--batch_size", 2, *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def painted(data, trained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("painted") / "results"
    result = paint(data, trained, output, "--zip")
    assert result.returncode == 0, result.stderr
    return output


def test_training_writes_what_it_promises(trained):
    assert {"run.json", "vae", "unet", "conditioner", "best", "state", "previews", "log.jsonl", "tensorboard"} <= set(os.listdir(trained))
    assert not (trained / "rehearsal").exists()
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    for stage, names in {"vae": {"psnr", "posterior_std", "posterior_mean_rms"}, "unet": {"mse"}, "decoder": {"perceptual"}}.items():
        own = [line for line in lines if line["stage"] == stage]
        assert [line["step"] for line in own if "loss" in line] == [1, 2, 3, 4]
        assert all(names <= line.keys() for line in own if "loss" in line)
        assert any(name.startswith("val_") for line in own for name in line)
        assert Image.open(trained / "previews" / f"{stage}-00000004.png").width > 96
    assert json.loads((trained / "best" / "best.json").read_text()).keys() == {"vae", "unet", "decoder"}


def test_training_never_imports_jtorch(data, trained):
    """jtorch switches Jittor into a mode in which plain training stops learning."""
    command = "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); print(*sys.modules)"
    words = ["--input_path", data, "--run", trained, "--val_fraction", 0.3, *arguments(unet_steps=5)]
    result = subprocess.run(
        [sys.executable, "-c", command, str(ROOT / "MainTrain.py"), *map(str, words)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    modules = result.stdout.split()
    assert "jittor" in modules and "tensorboardX" in modules
    assert not {"jtorch", "torch"} & set(modules)


def test_a_picture_for_every_mask(data, painted):
    stems = {path.stem for path in (data / "val_A_labels_resized").iterdir()}
    assert {path.name for path in painted.iterdir()} == {f"{stem}.jpg" for stem in stems}
    for path in painted.iterdir():
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (512, 384))
    assert len(np.unique([np.asarray(Image.open(path)).mean() for path in painted.iterdir()])) == len(stems)
    with zipfile.ZipFile(painted.with_name("results.zip")) as archive:
        assert sorted(archive.namelist()) == sorted(f"{stem}.jpg" for stem in stems)


@pytest.mark.bit_for_bit
def test_pictures_that_exist_are_kept_and_the_others_come_out_the_same(data, trained, painted, tmp_path):
    output = tmp_path / "results"
    shutil.copytree(painted, output)
    removed, kept = sorted(output.iterdir())[0], sorted(output.iterdir())[1]
    removed.unlink()
    mine = (painted / removed.name).read_bytes()  # of another mask
    kept.write_bytes(mine)
    result = paint(data, trained, output)
    assert result.returncode == 0 and "4 of 5 pictures are there and kept as they are; --overwrite paints them anew." in result.stdout
    assert kept.read_bytes() == mine
    assert removed.read_bytes() == (painted / removed.name).read_bytes()
    assert paint(data, trained, output, "--overwrite").returncode == 0
    other = paint(data, trained, output, "--guidance", 4, "--batch_size", 1)
    assert "5 of 5 pictures are there and kept as they are, 5 of them painted otherwise (guidance 3.0, now 4.0); --overwr" in other.stdout
    assert all(path.read_bytes() == (painted / path.name).read_bytes() for path in output.iterdir())


def test_a_picture_depends_on_neither_batch_nor_company(data, trained, painted, tmp_path):
    listing = json.loads((data / "label_to_img.json").read_text())
    name = sorted(listing)[3]
    (tmp_path / "one.json").write_text(json.dumps({name: listing[name]}))
    assert paint(data, trained, tmp_path / "one", "--pairs", tmp_path / "one.json").returncode == 0
    (alone,) = (tmp_path / "one").iterdir()
    difference = np.asarray(Image.open(alone)).astype(int) - np.asarray(Image.open(painted / alone.name))
    assert np.abs(difference).mean() < 0.05 and np.abs(difference).max() <= 8  # a level more or less, and what JPEG makes of it


def test_mixed_precision(data, trained, painted, tmp_path):
    """A run that began in float32 goes on in float16; what is painted in bfloat16 is much the same picture."""
    folder = tmp_path / "half"
    shutil.copytree(trained, folder)
    words = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--stage", "unet", "--amp", "float16"]
    result = run("MainTrain.py", *words, *arguments(steps=7))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["stage"] == "unet" and "loss" in line][-1]
    assert last["step"] == 7 and np.isfinite(last["loss"]) and last["loss_scale"] == 2.0 ** (16 - last["skipped"])
    assert paint(data, trained, tmp_path / "painted", "--amp", "bfloat16").returncode == 0
    for path in (tmp_path / "painted").iterdir():
        difference = np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(painted / path.name))
        assert 0 < np.abs(difference).mean() < 8


def test_every_choice_of_painting_works(data, trained, painted, tmp_path):
    first = sorted(painted.iterdir())[0].name
    seen = {(painted / first).read_bytes(): ()}
    choices = [
        ("--sampler", "ddpm"), ("--sampler", "ddim", "--guidance", 50), ("--guidance", 100), ("--ref_guidance", 100), ("--ref_start", 0.5),
        ("--color_match", "none"), ("--color_match", "lab"), ("--tile", 64), ("--seed", 1), ("--checkpoint", trained / "best"),
    ]  # fmt: skip
    for i, words in enumerate(choices[:-1]):
        result = paint(data, trained, tmp_path / str(i), *words)
        assert result.returncode == 0, result.stderr
        picture = (tmp_path / str(i) / first).read_bytes()
        assert picture not in seen, f"{words} gives the picture of {seen[picture]}"
        seen[picture] = words
    assert paint(data, trained, tmp_path / "best", *choices[-1]).returncode == 0


@pytest.fixture(scope="module")
def judge(data, tmp_path_factory) -> Path:
    """A run that has nothing but a judge."""
    folder = tmp_path_factory.mktemp("checkpoints") / "judge"
    words = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--system", "judge", *arguments("segformer")]
    result = run("MainTrain.py", *words)
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "best" / "best.json").read_text()).keys() == {"segformer"} and not (folder / "vae").exists()
    return folder


def test_a_score_needs_no_checkpoint_where_the_pictures_are_there(data, judge, painted, tmp_path):
    output = tmp_path / "results"
    shutil.copytree(painted, output)
    shutil.copy(painted.with_name("results-painted.jsonl"), tmp_path)
    leftover = tmp_path / "results-score" / f".report.html.{os.uname().nodename}.4194399.tmp"  # of a process that has been killed
    leftover.parent.mkdir()
    leftover.touch()
    result = paint(data, tmp_path / "nowhere", output, "--score", "--judge", judge, "--weights", tmp_path)
    assert result.returncode == 0 and not leftover.exists(), result.stderr
    assert "mask accuracy" in result.stdout and "PARTIAL" in result.stdout and "0.5852" in result.stdout
    assert "n/a (needs pt_inception-2015-12-05-6726825d.pth: https://" in result.stdout
    written = json.loads((tmp_path / "results-score" / "score.json").read_text())
    values = {row["name"]: row["value"] for row in written["table"]}
    assert 0 <= values["mask accuracy"] <= 1 and -1 <= values["style"] <= 1 and values["FID"] is None
    assert written["pictures"].keys() == {path.stem for path in output.iterdir()}
    assert re.fullmatch(r".*/trained \[conditioner \d, decoder \d, unet \d, vae \d\]: 5", written["facts"]["painted with"])
    assert "5 of them painted otherwise (checkpoint" in result.stdout
    assert (tmp_path / "results-score" / "report.html").read_text().count("data:image/jpeg") == 2 * len(written["pictures"])

    one, other = sorted(output.iterdir())[:2]
    Image.open(one).resize((100, 80)).save(one)
    other.write_bytes(b"no picture")
    one_sentence(paint(data, tmp_path / "nowhere", output, "--score", "--judge", judge), one.name, "100x80", other.name)


def test_of_several_pictures_the_best_is_kept(data, trained, judge, painted, tmp_path):
    references = json.loads((data / "label_to_img.json").read_text())

    def styles(folder: Path) -> np.ndarray:
        pairs = [(path, data / "train_resized" / "imgs" / references[f"{path.stem}.png"]) for path in sorted(folder.iterdir())]
        return np.array([style_similarity(np.array(Image.open(a)), np.array(Image.open(b)), "faithful") for a, b in pairs])

    assert paint(data, trained, tmp_path / "style", "--best_of", 4, "--best_by", "style").returncode == 0
    before, after = styles(painted), styles(tmp_path / "style")
    assert (
        after > before - 0.02
    ).all() and after.mean() > before.mean()  # the first of the four is the one painted before; JPEG is not exact
    assert paint(data, trained, tmp_path / "both", "--best_of", 2, "--judge", judge).returncode == 0
    assert len(list((tmp_path / "both").iterdir())) == len(after)


def states(folder: Path, stage: str) -> dict[str, np.ndarray]:
    return load_file(folder / "state" / stage / "step-00000012.safetensors")


@pytest.mark.bit_for_bit
@pytest.mark.parametrize("stops", [(signal.SIGTERM, signal.SIGINT, signal.SIGTERM), (signal.SIGKILL,) * 3], ids=["stopped", "killed"])
def test_a_stopped_run_resumes_to_the_same_weights(data, tmp_path, stops):
    """Bit for bit, after polite stops and after kills. A Ctrl-C of the terminal reaches all processes that the run has started."""
    words = ["--input_path", data, "--val_fraction", 0.3, *arguments(steps=12)]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run("MainTrain.py", *words, "--run", whole).returncode == 0
    for stage, stop in zip(("vae", "unet", "decoder"), stops, strict=True):
        command = [sys.executable, ROOT / "MainTrain.py", *map(str, words), "--run", stopped]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        wait_for(stopped / "log.jsonl", stage, 5, process)
        os.killpg(process.pid, stop)
        output = process.communicate()[0].decode()
        assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[stop]
        assert stop == signal.SIGKILL or ("What was done is saved. To go on: " in output and "Traceback" not in output)
    assert run("MainTrain.py", *words, "--run", stopped).returncode == 0
    for stage in ("vae", "unet", "decoder"):
        expected, found = states(whole, stage), states(stopped, stage)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)
    steps = [(line["stage"], line["step"]) for line in map(json.loads, (stopped / "log.jsonl").read_text().splitlines()) if "loss" in line]
    assert steps == [(stage, step) for stage in ("vae", "unet", "decoder") for step in range(1, 13)]


def test_a_run_whose_terminal_is_closed_saves_the_step_under_way(data, tmp_path):
    """As where the connection to a server is lost. All that it prints afterwards goes nowhere."""
    words = ["--input_path", data, "--val_fraction", 0.3, "--stage", "vae", *arguments("vae", steps=4000), "--run", tmp_path / "run"]
    ours, its = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup pytest` has it ignored

    command = [sys.executable, ROOT / "MainTrain.py", *map(str, words)]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=take_terminal)
    os.close(its)
    log = tmp_path / "run" / "log.jsonl"
    os.set_blocking(ours, False)
    while not log.is_file() or '"step": 5,' not in log.read_text():
        with suppress(BlockingIOError):
            os.read(ours, 1 << 16)  # a terminal that nobody reads from holds up who writes to it
        time.sleep(0.02)
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP
    last = json.loads(log.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "run" / "state" / "vae" / f"step-{last:08}.safetensors").is_file()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_painting_says_by_which_signal(data, trained, tmp_path, stop):
    command = [sys.executable, ROOT / "MainTest.py", "--input_path", data, "--img_path", data, "--checkpoint", trained]
    command += ["--output_path", tmp_path / "results", "--steps", 400, "--batch_size", 1]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(tmp_path.glob("results/*.jpg")):
        time.sleep(0.02)
    process.send_signal(stop)
    errors = process.communicate()[1]
    assert process.returncode == 128 + stop and "Stopped. The same command does the rest." in errors and "Traceback" not in errors


def wait_for(log: Path, stage: str, step: int, process: subprocess.Popen) -> None:
    """Until the log has the stage's step."""
    while process.poll() is None:
        if log.is_file() and any(f'"step": {step}, "stage": "{stage}"' in line for line in log.read_text().splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[0].decode())


def one_sentence(result: subprocess.CompletedProcess, *needles: str) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert all(needle in result.stderr for needle in needles), result.stderr


def test_faults_of_the_user_get_a_sentence(data, trained, tmp_path):
    before = {path: path.read_bytes() for path in trained.rglob("*.safetensors")}
    train = ["--input_path", data, "--val_fraction", 0.3, "--run"]
    one_sentence(run("MainTrain.py", *train, tmp_path / "a", "--preset", "huge"), "huge", "tiny")
    one_sentence(run("MainTrain.py", *train, tmp_path / "a", "--unet_lr", "nan", "--accumulate", 0), "--unet_lr", "--vae_accumulate")
    one_sentence(run("MainTrain.py", *train, tmp_path / "a", *arguments(width=100)), "--unet_width 100")
    one_sentence(run("MainTrain.py", *train, tmp_path / "a", "--stage", "unet", "--init_vae", data), "--init_vae")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text('{"system": "diffusion", "preset": "tiny"}')
    one_sentence(run("MainTrain.py", *train, tmp_path / "b"), "run.json", "seed")
    one_sentence(paint(data, tmp_path / "b", tmp_path / "out"), "run.json", "seed")
    one_sentence(run("MainTrain.py", *train, trained, "--preset", "small"), "tiny", "unet_channels", "--run")
    one_sentence(run("MainTrain.py", *train, trained, "--system", "judge"), "system diffusion", "--run")
    with locked(trained):
        one_sentence(run("MainTrain.py", *train, trained), f"in use by process {os.getpid()}", "--run")
    one_sentence(run("MainTrain.py", "--input_path", tmp_path / "nowhere", "--run", tmp_path / "a"), "nowhere")
    one_sentence(paint(data, tmp_path / "nowhere", tmp_path / "out"), "nowhere")
    one_sentence(paint(data, trained, tmp_path / "out", "--steps", 0), "--steps")
    one_sentence(paint(data, trained, tmp_path / "out", "--guidance", "nan"), "--guidance")
    one_sentence(paint(data, trained, tmp_path / "out", "--style", "file"), "--style", "system diffusion", "no such option")
    one_sentence(
        paint(data, trained, tmp_path / "out", "--lora", "nowhere.safetensors:0.5"), "--lora: there is no adapter nowhere.safetensors"
    )
    one_sentence(paint(data, trained, data / "train_resized" / "imgs", "--overwrite"), "--output_path", "imgs")
    (tmp_path / "file").write_text("")
    one_sentence(paint(data, trained, tmp_path / "file"), str(tmp_path / "file"))
    assert before == {path: path.read_bytes() for path in trained.rglob("*.safetensors")}


def test_a_damaged_checkpoint_is_named_and_left(data, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    newest = sorted((folder / "state" / "unet").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    resume = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--unet_steps", 6]
    one_sentence(run("MainTrain.py", *resume), newest.name)
    assert newest.stat().st_size == 1000
    newest.rename(tmp_path / "away")
    assert run("MainTrain.py", *resume).returncode == 0
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    one_sentence(paint(data, folder, tmp_path / "out"), str(weights.parent))


def test_names_of_every_kind_and_a_terminal_of_ascii(data, trained, tmp_path):
    """Not UTF-8, as long as names may be, Chinese, like an option, like HTML: painted, packed, scored and shown."""
    masks, photos = tmp_path / "masks", tmp_path / "photos"
    shutil.copytree(data / "val_A_labels_resized", masks)
    shutil.copytree(data / "train_resized" / "imgs", photos)
    stems = ["y" * 251, "山水", "--rf", "<b>&", "a b"]
    for path, stem in zip(sorted(masks.iterdir()), stems, strict=True):
        path.rename(masks / f"{stem}.png")
    for path, name in zip(sorted(photos.iterdir()), ["山.jpg", os.fsdecode(b"\xff\xe4.jpg"), "x" * 251 + ".jpg"], strict=False):
        path.rename(photos / name)
    references = ["山.jpg", "x" * 251 + ".jpg", *sorted(path.name for path in photos.iterdir() if path.name.startswith("train"))]
    (tmp_path / "pairs.json").write_text(json.dumps({f"{stem}.png": name for stem, name in zip(stems, references, strict=False)}))
    words = ["--input_path", masks, "--img_path", photos, "--pairs", tmp_path / "pairs.json", "--checkpoint", trained]
    words += ["--output_path", tmp_path / "results", "--steps", 3, "--batch_size", 2, "--zip", "--score", "--weights", tmp_path]
    command = [sys.executable, ROOT / "MainTest.py", *words]
    result = subprocess.run(list(map(str, command)), capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    assert {path.stem for path in (tmp_path / "results").iterdir()} == {*stems}
    assert json.loads((tmp_path / "results-score" / "score.json").read_text())["pictures"].keys() == {*stems}


def test_damaged_data_is_reported_before_training(data, trained, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data / "train_resized", root)
    (root / "imgs" / "train_00003.jpg").write_bytes(b"no picture")
    (root / "labels" / "train_00005.png").unlink()
    words = ["--input_path", root, "--run", tmp_path / "run", "--val_fraction", 0.3, *arguments(), "--stage", "vae"]
    one_sentence(run("MainTrain.py", *words), "train_00003.jpg", "train_00005", "--skip_bad")
    result = run("MainTrain.py", *words, "--skip_bad")
    assert result.returncode == 0 and "train_00003.jpg" in result.stderr + result.stdout
