"""Photos with captions and without masks: as published, and every fault of them in one report."""

import json

import numpy as np
import pytest

from datasets import landscape
from datasets.captions import LONGEST
from datasets.pairs import split
from datasets.synthetic.render import draw
from datasets.text_pairs import check_described_pairs, check_text_pairs, find_prompts, read_lone_prompts
from tests.datasets.files import SIZE, assert_reported, save_picture, stems, truncate
from utils.errors import UserError
from utils.image import write_jpeg


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def root(tmp_path):
    """Three photos, two of them of one id."""
    for stem in ("lake_1", "lake_2", "hills.x-1"):
        save_picture(tmp_path / "train" / f"{stem}.jpg")
    write(tmp_path / "train_info.json", {"lake": {"description": "a lake ", "action": " it rains"}, "hills.x": "green hills"})
    return tmp_path


def test_captions_by_the_stem_less_its_last_suffix(root, capsys):
    pairs = check_text_pairs(root)
    assert [(pair.stem, pair.mask, pair.captions) for pair in pairs] == [
        ("hills.x-1", None, ("green hills",)),
        ("lake_1", None, ("a lake it rains",)),
        ("lake_2", None, ("a lake it rains",)),
    ]
    assert pairs[0].image == root / "train" / "hills.x-1.jpg" and capsys.readouterr().err == ""
    save_picture(root / "train" / "a_b.png")
    write(root / "train_info.json", {"lake": {"description": "a lake"}, "hills.x": "green hills", "a_b": {"action": "rain", "by": "me"}})
    assert {pair.captions for pair in check_text_pairs(root)} == {("a lake",), ("green hills",), ("rain",)}


def test_what_is_not_such_a_set(root, tmp_path):
    with pytest.raises(UserError, match=r"No photos with captions in .*train.*train_info\.json"):
        check_text_pairs(root / "train")
    for path in (root / "train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="train is empty"):
        check_text_pairs(root)


INFO = '{"lake": "a lake", "long": "LL", "": "no id", "lost": "x", "empty": {"description": " "}, "lake": "again", "list": ["a"]}'
REPORT = {
    "cannot be decoded: 1": ["  train/long_1.jpg"],
    f"caption of more than {LONGEST} characters: 1": ["  train_info.json/long (10000)"],
    "caption that is no text: 1": ["  train_info.json/list"],
    "empty caption: 1": ["  train_info.json/empty"],
    "entry without an id: 1": ["  ROOT/train_info.json"],
    "named in train_info.json, but there is no such picture: 1": ["  train_info.json/lost"],
    "named twice in train_info.json: 1": ["  train_info.json/lake"],
    "no entry in train_info.json: 1": ["  train/hills.x-1.jpg"],
    "second file of this name: 1": ["  train/lake_2.png"],
}


def test_one_report_names_every_fault_and_skip_bad_leaves_those_photos_out(root, capsys):
    for stem in ("long_1", "empty_1", "list_1"):
        save_picture(root / "train" / f"{stem}.jpg")
    save_picture(root / "train" / "lake_2.png")
    truncate(root / "train" / "long_1.jpg")
    write(root / "train_info.json", INFO.replace("LL", "l" * 10_000))
    expected = {kind: [line.replace("ROOT", root.name) for line in lines] for kind, lines in REPORT.items()}
    with pytest.raises(UserError) as caught:
        check_text_pairs(root)
    assert_reported(str(caught.value), expected)
    assert len(str(caught.value).splitlines()) == 1 + 2 * len(expected) + 1  # and nothing else
    assert stems(check_text_pairs(root, skip_bad=True)) == ["lake_1"]
    assert "Left out as asked; 1 pairs remain." in capsys.readouterr().err


def test_a_damaged_file_of_captions_is_said_once(root):
    write(root / "train_info.json", "{damaged")
    with pytest.raises(UserError, match=r"(?s)1 faults.*is not valid JSON: 1.*No sound pair is left"):
        check_text_pairs(root, skip_bad=True)
    write(root / "train_info.json", {})
    with pytest.raises(UserError, match=r"no entry in train_info\.json: 3"):
        check_text_pairs(root)


def test_leave_out_and_cache(root, tmp_path, monkeypatch):
    write(tmp_path / "list.txt", "hills.x-1\n")
    cache = tmp_path / "cache.json"
    assert stems(check_text_pairs(root, cache=cache, leave_out=tmp_path / "list.txt")) == ["lake_1", "lake_2"]
    decoded = []
    decode = landscape._decode
    monkeypatch.setattr(landscape, "_decode", lambda path, formats: decoded.append(path.name) or decode(path, formats))
    check_text_pairs(root, cache=cache)
    assert decoded == ["hills.x-1.jpg"]
    write(root / "train_info.json", {"lake": "a lake", "hills.x": ""})
    assert stems(check_text_pairs(root, leave_out=tmp_path / "list.txt")) == ["lake_1", "lake_2"]
    write(root / "train_info.json", {"lake": "", "hills.x": ""})
    with pytest.raises(UserError, match="empty caption: 1"):
        check_text_pairs(root, leave_out=tmp_path / "list.txt")


def test_prompts_in_the_files_order(tmp_path):
    path = write(tmp_path / "test.json", {"b": "a lake", "a 1": {"description": "hills", "action": "in mist"}})
    assert list(read_lone_prompts(path).items()) == [("b", "a lake"), ("a 1", "hills in mist")]


def test_one_report_names_every_fault_of_prompts(tmp_path):
    path = write(
        tmp_path / "test.json",
        '{"": "no id", "a": "", "../up": "b", ".c": "c", "DD": "d", "e": "e", "e": "E", "f": 3}'.replace("DD", "d" * 300),
    )
    with pytest.raises(UserError) as caught:
        read_lone_prompts(path)
    expected = {
        "entry without an id: 1": [],
        "empty caption: 1": [],
        "id that cannot be a file's name: 3": [],
        "named twice in test.json: 1": [],
    }
    assert_reported(str(caught.value), expected | {"caption that is no text: 1": ["  test.json/f"]})
    write(path, {})
    with pytest.raises(UserError, match="names nothing to paint: 1"):
        read_lone_prompts(path)
    with pytest.raises(UserError, match="cannot be read: 1"):
        read_lone_prompts(tmp_path / "none.json")


def test_what_to_paint_is_listed_in_the_folder_or_given(tmp_path):
    write(tmp_path / "test.json", {"b": "hills", "a": "a lake"})
    write(tmp_path / "other.json", {"c": "the sea"})

    def found(**given):
        return [(pair.stem, pair.mask, pair.reference, pair.caption) for pair in find_prompts(tmp_path, **given)]

    assert found() == [("a", None, None, "a lake"), ("b", None, None, "hills")]
    assert found(prompts=tmp_path / "other.json") == [("c", None, None, "the sea")]
    assert found(prompt="snow") == [("prompt", None, None, "snow")]
    with pytest.raises(UserError, match=r"test\.json is missing.*--prompts"):
        find_prompts(tmp_path / "nowhere")


def test_a_set_with_masks_and_captions_will_do_for_words_alone(root, data):
    assert [pair.mask for pair in check_described_pairs(root)] == [None] * 3
    assert all(pair.mask and pair.captions for pair in check_described_pairs(data))


def test_two_hundred_drawn_pictures(tmp_path):
    info = {}
    for i in range(200):
        image, _, captions = draw((5, i), (6, i), SIZE)
        write_jpeg(tmp_path / "train" / f"{i // 2:03}_{i % 2}.jpg", image)
        description, _, action = captions[0].partition(". ")
        info[f"{i // 2:03}"] = {"description": f"{description}.", "action": action}
    write(tmp_path / "train_info.json", info)
    pairs = check_text_pairs(tmp_path)
    assert len(pairs) == 200 and all(len(pair.captions) == 1 and pair.mask is None for pair in pairs)
    train, val = split(pairs, 0.1, seed=0)
    assert len(train) + len(val) == 200 and val
    assert np.mean([a.captions == b.captions for a, b in zip(pairs[::2], pairs[1::2], strict=True)]) == 1
