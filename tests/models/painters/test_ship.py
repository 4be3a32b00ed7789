"""A run that is handed on: smaller, and it paints the same."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.painters.ship import ship
from models.runs import is_shipped
from models.systems import SYSTEMS, painter_file
from models.training.run import newest_run, read_run
from tests.small import write_small_run
from utils.checkpoint import read_safetensors, write_json, write_safetensors
from utils.errors import UserError


def test_it_takes_half_the_room_and_paints_nearly_the_same(tmp_path):
    run, target = tmp_path / "run", tmp_path / "checkpoints" / "demo"
    write_small_run(run)
    for name in ("state", "latents", "best/unet", ".incomplete/unet", "style/01/latents", "style/01/best/adapter"):
        (run / name).mkdir(parents=True)
        (run / name / "config.json").write_bytes(b"not for painting")
    shutil.copytree(run / "conditioner", run / "style" / "01" / "adapter")  # as far as copying goes, any network will do
    size = ship(run, target)
    assert {path.name for path in target.iterdir()} == {"run.json", "decoder", "unet", "conditioner", "style"}
    files = {path.relative_to(target / "style").as_posix() for path in (target / "style").rglob("*") if path.is_file()}
    assert files == {"01/adapter/config.json", "01/adapter/diffusion_pytorch_model.safetensors"}
    assert size == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    arrays, metadata = read_safetensors(target / "unet" / "diffusion_pytorch_model.safetensors")
    assert {str(array.dtype) for array in arrays.values()} <= {"float16", "float32"} and metadata["step"] == "4"

    rng = np.random.default_rng(0)
    masks, references = rng.integers(0, 29, (1, 64, 96), np.uint8), rng.integers(0, 255, (1, 64, 96, 3), np.uint8)
    before, after = (
        LatentDiffusion.load(read_run(folder, SYSTEMS), folder).paint(masks, references, [""], [1], PaintingOptions(steps=4)).astype(int)
        for folder in (run, target)
    )
    assert np.abs(before - after).mean() < 1

    assert newest_run(target.parent, painter_file) == target and is_shipped(target, target.parent)
    write_small_run(target.parent / "mine")
    assert newest_run(target.parent, painter_file) == target.parent / "mine"
    command = [sys.executable, "-m", "models.painters.ship", str(run), str(target)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[3])
    assert result.returncode == 2 and "exists already" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("decoding", ["joint_vae", "joint_decoder"])
def test_of_a_run_that_was_trained_on_together_only_that_is_handed_on_and_paints(tmp_path, capsys, decoding):
    run, target = tmp_path / "run", tmp_path / "target"
    write_small_run(run)
    for name in ("vae", "unet", "conditioner"):
        shutil.copytree(run / name, run / f"joint_{name}")
    shutil.copytree(run / "vae", run / decoding, dirs_exist_ok=True)
    shutil.copytree(run / "unet", run / "control")  # as far as copying goes, any network will do
    path = run / decoding / "diffusion_pytorch_model.safetensors"
    arrays, metadata = read_safetensors(path)
    write_safetensors(path, arrays | {"post_quant_conv.bias": np.full(4, 7, np.float32)}, metadata)
    for name in ("unet", "decoder"):
        (run / name / "diffusion_pytorch_model.safetensors").write_bytes(b"not for painting")
    stored = json.loads((run / "run.json").read_text())
    stored["stages"]["unet"]["text_encoder"] = "/somewhere/clip"
    write_json(run / "run.json", stored)
    ship(run, target)
    assert {path.name for path in target.iterdir()} == {"run.json", "vae", "unet", "conditioner"}
    assert read_safetensors(target / "vae" / path.name)[0]["post_quant_conv.bias"].tolist() == [7] * 4
    assert "Painting needs /somewhere/clip too" in capsys.readouterr().out
    stored["stages"]["unet"]["text_encoder"] = ""
    for folder in (run, target):
        write_json(folder / "run.json", stored)
        LatentDiffusion.load(read_run(folder, SYSTEMS), folder)
        assert ("without the ControlNet" in capsys.readouterr().out) == (folder == run)


def test_what_float16_cannot_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("models.painters.ship.SMALL", 0)
    write_small_run(tmp_path / "run")
    path = tmp_path / "run" / "unet" / "diffusion_pytorch_model.safetensors"
    arrays, metadata = read_safetensors(path)
    write_safetensors(path, arrays | {"conv_in.bias": np.full_like(arrays["conv_in.bias"], 1e5)}, metadata)
    with pytest.raises(UserError, match=r"conv_in\.bias"):
        ship(tmp_path / "run", tmp_path / "target")
