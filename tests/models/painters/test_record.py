"""What painted pictures: noted beside them, told of those that are kept, and of no others."""

from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest

from models.painters.latent_diffusion import PaintingOptions
from models.painters.record import note_way, otherwise, record_of, way_of
from tests.models.painters.test_pictures import PAIRS
from utils.checkpoint import write_safetensors

WAY = {"checkpoint": "/runs/demo [unet 4]", "steps": "25", "seed": "0"}


@pytest.fixture
def results(tmp_path):
    for pair in PAIRS:
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / pair.file).write_bytes(pair.stem.encode())
    return tmp_path / "results"


def test_what_was_painted_otherwise_is_told(results):
    note_way(PAIRS[:2], results, WAY)
    assert otherwise(PAIRS, results, WAY) == ""
    assert otherwise(PAIRS, results, WAY | {"steps": "20", "younger than the note": "1"}) == (
        ", 2 of them painted otherwise (steps 25, now 20)"
    )
    note_way(PAIRS[1:], results, WAY | {"checkpoint": "/runs/own [unet 8]", "seed": "3"})  # that of b again
    assert otherwise(PAIRS, results, WAY | {"seed": "1"}) == (
        ", 3 of them painted otherwise (checkpoint /runs/own [unet 8], now /runs/demo [unet 4]; seed 0 or 3, now 1)"
    )
    assert otherwise(PAIRS, results, {}) == ""  # no run is there to paint with
    assert {path.name for path in results.iterdir()} == {pair.file for pair in PAIRS}


def test_nothing_is_told_of_pictures_that_are_not_what_was_painted(results):
    other = WAY | {"seed": "1"}
    assert otherwise(PAIRS, results, other) == ""  # painted before there were notes
    note_way(PAIRS, results, WAY)
    (results / "b.jpg").write_bytes(b"mine")
    assert otherwise(PAIRS, results, other) == ", 2 of them painted otherwise (seed 0, now 1)"


def test_a_note_that_is_damaged_counts_for_nothing_and_the_others_for_all(results):
    note_way(PAIRS[:1], results, WAY)
    with open(record_of(results), "ab") as file:
        file.write(b'{"pictures": {"b.jpg"\n[]\n{"pictures": 3}\n{"pictures": {"b.jpg": []}}\n\xff\n' + b"[" * 10**5)
        file.write(b'\n{}\n{"pictures": {"a.jpg": 1')
    note_way(PAIRS[2:], results, WAY)
    assert otherwise(PAIRS, results, WAY | {"seed": "1"}) == ", 2 of them painted otherwise (seed 0, now 1)"


def test_where_no_note_can_be_written_there_is_none(results):
    record_of(results).mkdir()
    note_way(PAIRS, results, WAY)
    assert otherwise(PAIRS, results, WAY | {"seed": "1"}) == ""


def test_a_way_is_the_run_as_it_is_trained_and_what_decides_how_pictures_look(tmp_path):
    @dataclass
    class Options:
        steps: int = 25
        told: tuple[str, ...] = ("mask", "words")
        prompt: str = ""

    @dataclass
    class Said(Options):
        prompts: str = ""

    said = {"color_match": "lab", "amp": "float32", "seed": 0, "use_sr": False, "best_of": 1, "batch_size": 8}
    args = Namespace(checkpoint=tmp_path / "run", options=Options(), **said, sr_checkpoint=None, sr_tile=0)
    for name, step in (("unet", 40), ("vae", 20), ("best/unet", 30)):
        write_safetensors(tmp_path / "run" / name / "diffusion_pytorch_model.safetensors", {"a": np.zeros(1)}, {"step": str(step)})
    shown = {"steps": "25", "told": "mask words", "prompt": "none", "color_match": "lab", "amp": "float32", "seed": "0"}
    way = {"checkpoint": f"{tmp_path}/run [unet 40, vae 20]", **shown, "use_sr": "False", "best_of": "1"}
    assert way_of(args) == way
    assert way_of(Namespace(**vars(args) | {"use_sr": True})) == way | {"use_sr": "True", "sr_checkpoint": "newest", "sr_tile": "0"}
    best = way_of(Namespace(**vars(args) | {"checkpoint": tmp_path / "run" / "best"}))  # whose decoder is the run's
    assert best == way | {"checkpoint": f"{tmp_path}/run/best [best/unet 30, unet 40, vae 20]"}
    prompts, ways = tmp_path / "prompts.json", []
    for text in ("{}", '{"a": "dusk"}'):
        prompts.write_text(text)
        ways.append(way_of(Namespace(**vars(args) | {"options": Said(prompts=str(prompts))}))["prompts"])
    assert ways[0] != ways[1] and all(str(prompts) in each for each in ways)
    adapters, file = [], tmp_path / "adapter" / "diffusion_pytorch_model.safetensors"
    file.parent.mkdir()
    for content in (b"of 100 steps", b"of 200 steps"):
        file.write_bytes(content)
        options = PaintingOptions(lora=(f"{file}:0.5", str(file.parent)))
        adapters.append(way_of(Namespace(**vars(args) | {"options": options}))["lora"])
    assert adapters[0] != adapters[1] and all(each.startswith(f"{file}:0.5 [") and f" {file.parent} [" in each for each in adapters)
    for missing in ("x" * 300, " ", str(tmp_path), "\0"):
        assert way_of(Namespace(**vars(args) | {"options": Said(prompts=missing)}))["prompts"] == missing
    assert way_of(Namespace(checkpoint=None)) == {}
