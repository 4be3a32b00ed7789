"""Captions and prompts: in every form, and every fault of them in the one report."""

import json

import pytest

from datasets.captions import LONGEST, read_prompts
from datasets.pairs import check_training_pairs
from datasets.prepare.split import write_split
from tests.datasets.files import assert_reported, stems, truncate
from utils.errors import UserError


def write(path, captions):
    path.write_text(captions if isinstance(captions, str) else json.dumps(captions))
    return path


def captions_of(pairs):
    return {pair.stem: pair.captions for pair in pairs}


@pytest.mark.parametrize("place", ["captions.json", "imgs/captions.json"])
def test_one_caption_or_several_by_any_name(root, imgs, place, capsys):
    write(root / "train_resized" / place, {"a.jpg": "  a lake\n at dusk ", "b": ["hills", "green hills"], "d.png": "西湖"})
    expected = {"a": ("a lake at dusk",), "b": ("hills", "green hills"), "c": (), "d": ("西湖",)}
    assert captions_of(check_training_pairs(root)) == expected
    assert capsys.readouterr().err == ""


def test_captions_are_read_again_where_the_pairs_are_remembered(root, tmp_path):
    check_training_pairs(root, cache=tmp_path / "cache.json")
    before = (tmp_path / "cache.json").read_bytes()
    write(root / "train_resized" / "captions.json", {"a": "a lake"})
    assert check_training_pairs(root, cache=tmp_path / "cache.json")[0].captions == ("a lake",)
    assert (tmp_path / "cache.json").read_bytes() == before


FAULTS = '{"a": 3, "b": ["good", "", null], "c": "CC", "c.jpg": "twice", "z": "lost", "d": "\\udcce\\udcf7"}'.replace(
    "CC", "c" * (LONGEST + 1)
)
REPORT = {
    "caption that is no text: 2": ["  imgs/a.jpg", "  imgs/b.jpg"],
    f"caption of more than {LONGEST} characters: 1": [f"  imgs/c.jpg ({LONGEST + 1})"],
    "caption that is not UTF-8: 1": ["  imgs/d.jpg"],
    "empty caption: 1": ["  imgs/b.jpg"],
    "named in captions.json, but there is no such picture: 1": ["  captions.json/z"],
    "named twice in captions.json: 1": ["  imgs/c.jpg"],
}


def test_one_report_names_every_fault_and_skip_bad_leaves_those_pairs_out(root, imgs, capsys):
    path = write(root / "train_resized" / "captions.json", FAULTS)
    truncate(imgs / "b.jpg")
    with pytest.raises(UserError) as caught:
        check_training_pairs(root)
    assert_reported(str(caught.value), REPORT | {"cannot be decoded: 1": ["  imgs/b.jpg"]})
    assert str(caught.value).startswith(f"{root / 'train_resized'}: 8 faults.")
    write(path, FAULTS.replace('"d":', '"z2":'))
    assert stems(check_training_pairs(root, skip_bad=True)) == ["d"]
    assert "Left out as asked; 1 pairs remain." in capsys.readouterr().err
    write(path, {"d.2": "lost"})  # whose stem, were it a file, would be d
    assert stems(check_training_pairs(root, skip_bad=True)) == ["a", "c", "d"]


@pytest.mark.parametrize("content", ["{damaged", '["a"]', "3", "[" * 100000])
def test_a_file_that_is_no_json_object_is_a_fault(root, content, capsys):
    write(root / "train_resized" / "captions.json", content)
    with pytest.raises(UserError, match=r"1 faults(.|\n)*JSON|object(.|\n)*train_resized/captions.json"):
        check_training_pairs(root)
    assert captions_of(check_training_pairs(root, skip_bad=True)) == dict.fromkeys("abcd", ())
    assert "train_resized/captions.json" in capsys.readouterr().err


def test_two_files_of_captions_are_a_fault(root, imgs):
    write(root / "train_resized" / "captions.json", {})
    write(imgs / "captions.json", {"a": "a lake"})
    with pytest.raises(UserError, match=r"second captions\.json: 1"):
        check_training_pairs(root)


def test_pictures_left_out_may_have_captions(root, tmp_path):
    write(root / "train_resized" / "captions.json", {"a": "a lake", "b": "hills"})
    write(tmp_path / "list.txt", "a\n")
    assert captions_of(check_training_pairs(root, leave_out=tmp_path / "list.txt")) == {"b": ("hills",), "c": (), "d": ()}


def test_both_parts_of_a_split_have_their_captions(root, tmp_path):
    write(root / "train_resized" / "captions.json", {"a": "a lake", "b": ["hills", "green hills"], "c": "西湖"})
    write_split(root, tmp_path / "out", count=2)
    parts = [captions_of(check_training_pairs(tmp_path / "out" / name)) for name in (".", "val")]
    assert len(parts[0]) == len(parts[1]) == 2 and parts[0] | parts[1] == captions_of(check_training_pairs(root))


def test_prompts_name_each_mask(tmp_path):
    path = write(tmp_path / "prompts.json", {"m.png": "a lake", "n.1": " two\nlakes "})
    assert read_prompts(path, {"m", "n.1"}) == {"m": "a lake", "n.1": "two lakes"}


def test_one_report_names_every_fault_of_prompts(tmp_path):
    path = write(tmp_path / "prompts.json", '{"m": "", "m.png": "twice", "x": "lost", "n": ["a list"]}')
    with pytest.raises(UserError) as caught:
        read_prompts(path, {"m", "n", "o"})
    expected = {
        "caption that is no text: 1": ["  prompts.json/n"],
        "empty caption: 1": ["  prompts.json/m"],
        "named in the prompts, but there is no such mask: 1": ["  prompts.json/x"],
        "named twice in the prompts: 1": ["  prompts.json/m.png"],
        "not named in the prompts: 1": ["  prompts.json/o"],
    }
    assert_reported(str(caught.value), expected)
    assert str(caught.value).startswith(f"{path}: 5 faults.")
    with pytest.raises(UserError, match=r"1 faults\.\ncannot be read: 1"):
        read_prompts(tmp_path / "none.json", {"m"})
