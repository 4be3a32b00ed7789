"""Words in whole commands: beside mask and reference, and alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.synthetic.render import draw
from tests.small import arguments
from tests.test_commands import one_sentence, run
from utils.image import write_jpeg

TOWER = ("--unet_text_channels", 16, "--unet_text_layers", 1, "--unet_text_vocabulary", 300)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "words"
    words = ["--input_path", data, "--run", folder, "--val_fraction", 0.3, "--unet_words", 1, *TOWER, *arguments()]
    result = run("MainTrain.py", *words)
    assert result.returncode == 0, result.stderr
    assert re.search(r"(\d+) of \1 pictures have captions, read by a text encoder of 1 layers that is trained", result.stdout)
    return folder


def paint(data: Path, folder: Path, output: Path, *words):
    return run(
        "MainTest.py", "--input_path", data, "--img_path", data, "--checkpoint", folder, "--output_path", output, "--steps", 2, *words
    )


def test_each_picture_is_painted_by_its_words(data, trained, tmp_path):
    assert {"text_encoder", "tokenizer.json"} <= {path.name for path in trained.iterdir()}
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert any("val_loss_other_words" in line and "val_loss_no_reference" in line for line in log)
    stems = sorted(path.stem for path in (data / "val_A_labels_resized").iterdir())
    prompts = dict.fromkeys(stems, "a lake at dusk") | {stems[0]: "snow on the hills"}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    for name, words in {"one": ["--prompt", "a lake at dusk"], "each": ["--prompts", tmp_path / "prompts.json"]}.items():
        result = paint(data, trained, tmp_path / name, *words)
        assert result.returncode == 0, result.stderr
    one, each = ([(tmp_path / name / f"{stem}.jpg").read_bytes() for stem in stems] for name in ("one", "each"))
    assert [a == b for a, b in zip(one, each, strict=True)] == [False] + [True] * (len(stems) - 1)
    (tmp_path / "prompts.json").write_text(json.dumps({stems[0]: ""}))
    one_sentence(
        paint(data, trained, tmp_path / "x", "--prompts", tmp_path / "prompts.json"), "empty caption: 1", "not named in the prompts: 4"
    )


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> Path:
    """Two hundred drawn pictures with captions and without masks, and what is to be painted."""
    root, info = tmp_path_factory.mktemp("described"), {}
    for i in range(200):
        image, _, captions = draw((5, i), (6, i), (96, 64))
        write_jpeg(root / "train" / f"{i // 2:03}_{i % 2}.jpg", image)
        info[f"{i // 2:03}"] = {"description": captions[0], "action": "nobody is there"}
    (root / "train_info.json").write_text(json.dumps(info))
    (root / "test.json").write_text(json.dumps({"a": "a lake at dusk", "b": "hills in the snow"}))
    return root


def test_pictures_of_words_alone(described, tmp_path):
    folder = tmp_path / "text"
    words = ["--system", "text", "--input_path", described, "--run", folder, *TOWER, *arguments("vae", "unet")]
    result = run("MainTrain.py", *words)
    assert result.returncode == 0, result.stderr
    assert Image.open(folder / "previews" / "unet-00000004.png").width > 96

    def paint(output, *words):
        return run("MainTest.py", "--checkpoint", folder, "--output_path", tmp_path / output, "--steps", 2, *words)

    for name, words in {"listed": ["--score", "--weights", tmp_path], "one": ["--prompt", "a lake"]}.items():
        result = paint(name, *words)
        assert result.returncode == 0, result.stderr
    found = {name: sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("listed", "one")}
    assert found == {"listed": ["a.jpg", "b.jpg"], "one": ["prompt.jpg"]}
    assert np.asarray(Image.open(tmp_path / "listed" / "a.jpg")).shape == (64, 96, 3)
    one_sentence(paint("x", "--best_of", 2, "--guidance", 2), "neither masks nor references", "--guidance")
    one_sentence(paint("x", "--use_sr"), "--use_sr", "neither masks nor references")
    table = {row["name"]: row for row in json.loads((tmp_path / "listed-score" / "score.json").read_text())["table"]}
    assert table["KID (EfficientNet-lite0)"]["value"] > 0 and "200 photos" in table["KID (EfficientNet-lite0)"]["note"]
    assert "needs" in table["CLIP-T"] and not {"total", "mask accuracy", "style", "CLIP-I"} & table.keys()
