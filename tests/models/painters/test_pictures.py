"""Pictures that are there: kept where they are sound, packed when they have been looked at."""

import json
import os
import zipfile

import numpy as np
import pytest

from datasets.test_pairs import TestPair as Wanted
from models.painters.pictures import SIZE, kept, note_seeds, pack, picture_seed
from utils.errors import UserError
from utils.files import short_node_name
from utils.image import write_jpeg

PAIRS = [Wanted(stem, None, None) for stem in "abc"]


@pytest.fixture
def results(tmp_path):
    for pair in PAIRS:
        write_jpeg(tmp_path / "results" / f"{pair.stem}.jpg", np.full((*SIZE[::-1], 3), 100, np.uint8))
    return tmp_path / "results"


def spoil(path, how):
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut off": content[:-40], "another file": b"mine"}[how])


@pytest.mark.parametrize("how", ["empty", "cut off", "another file"])
def test_what_is_no_picture_is_named_and_neither_kept_nor_packed(results, how):
    spoil(results / "b.jpg", how)
    before = (results / "b.jpg").read_bytes()
    with pytest.raises(UserError, match=r"b\.jpg(.|\n)*Nothing was painted: remove these files"):
        kept(PAIRS, results)
    with pytest.raises(UserError, match=r"b\.jpg(.|\n)*Nothing was packed"):
        pack(PAIRS, results)
    assert (results / "b.jpg").read_bytes() == before and not results.with_name("results.zip").exists()


def test_what_is_missing_is_not_packed_and_to_be_painted(results):
    (results / "c.jpg").unlink()
    assert [pair.stem for pair in kept(PAIRS, results)] == ["a", "b"]
    with pytest.raises(UserError, match=r"missing: 1\n.*c\.jpg"):
        pack(PAIRS, results)


def test_what_a_killed_painting_has_left_is_removed(results):
    dead, living = (results / f".b.jpg.{short_node_name()}.{number}.tmp" for number in (2**22 + 1, os.getpid()))
    for path in (dead, living):
        path.write_bytes(b"half a picture")
    assert len(kept(PAIRS, results)) == 3
    assert not dead.exists() and living.exists()
    of_style = results / "01" / dead.name
    of_style.parent.mkdir()
    of_style.write_bytes(b"half a picture")
    assert not kept([Wanted("01/a", None, None, ending=".png")], results) and not of_style.exists()


def test_the_pictures_are_packed_flat(results):
    with zipfile.ZipFile(pack(PAIRS, results)) as archive:
        assert archive.namelist() == ["a.jpg", "b.jpg", "c.jpg"] and archive.testzip() is None


def test_names_that_are_no_utf8_are_not_packed(results):
    name = b"\xce\xf7".decode(errors="surrogateescape")  # as a GBK archive unpacks
    (results / "b.jpg").rename(results / f"{name}.jpg")
    with pytest.raises(UserError, match=r"1 pictures have names that are not UTF-8 .*rename"):
        pack([*PAIRS[:1], Wanted(name, None, None)], results)
    assert not results.with_name("results.zip").exists()


def test_the_same_pictures_give_the_same_bytes_whenever_they_were_painted(results):
    before = pack(PAIRS, results).read_bytes()
    for path in results.iterdir():
        os.utime(path, (10**9, 10**9))
    assert pack(PAIRS, results).read_bytes() == before


def test_pictures_of_styles_keep_the_seeds_that_they_were_painted_with(tmp_path):
    pairs = [Wanted(f"01/{stem}", None, None, ending=".png") for stem in "ab"]
    note_seeds(pairs, tmp_path, 3)
    note_seeds(pairs[1:], tmp_path, 4)  # the first is there
    seeds = {"01/a.png": picture_seed(3, "01/a", 0), "01/b.png": picture_seed(4, "01/b", 0)}
    assert json.loads((tmp_path / "seeds.json").read_text()) == {"seed": 4, "pictures": seeds}
    (tmp_path / "seeds.json").write_text("[1]")
    note_seeds(pairs, tmp_path, 3)
    assert len(json.loads((tmp_path / "seeds.json").read_text())["pictures"]) == 2
    note_seeds(PAIRS, tmp_path / "other", 3)
    assert not (tmp_path / "other").exists()
