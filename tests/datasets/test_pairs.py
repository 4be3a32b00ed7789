"""Training pairs: every fault is named in one report, and the split stays as it is when pictures are added."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets import landscape
from datasets.pairs import Pair, check_training_pairs, find_training_folder, split
from tests.datasets.files import assert_reported, damage_exif, labels, save_mask, save_picture, save_postscript, stems, truncate
from utils.errors import UserError


@pytest.mark.parametrize("layout", ["train_resized", "train", "."])
def test_find_training_folder(tmp_path, layout):
    (tmp_path / layout / "imgs").mkdir(parents=True)
    (tmp_path / layout / "labels").mkdir()
    assert find_training_folder(tmp_path) == tmp_path / layout
    assert find_training_folder(str(tmp_path / layout)) == tmp_path / layout


def test_find_training_folder_says_what_it_looked_for(tmp_path):
    (tmp_path / "train" / "imgs").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        find_training_folder(tmp_path)
    for folder in ("train_resized", "train", "."):
        assert f"{tmp_path / folder / 'imgs'} and {tmp_path / folder / 'labels'}" in str(caught.value)
    with pytest.raises(UserError, match="missing does not exist"):
        find_training_folder(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        find_training_folder(tmp_path / "file")


def test_sound_pairs_in_order_and_in_silence(root, imgs, masks, capsys):
    save_picture(imgs / "B2.JPEG")
    save_mask(masks / "B2.PNG")
    save_picture(imgs / "c.1.png")
    save_mask(masks / "c.1.png", depth=np.uint8)
    (imgs / ".DS_Store").write_text("")
    pairs = check_training_pairs(root)
    assert stems(pairs) == ["B2", "a", "b", "c", "c.1", "d"]
    assert pairs[1] == Pair("a", imgs / "a.jpg", masks / "a.png")
    assert capsys.readouterr().err == ""


def damage(imgs, masks):
    """One pair of every fault -> the line each must have in the report, after its kind."""
    for stem in ("cut", "cutmask", "text", "range", "rgb", "gray16", "size", "lone", "twice", "exif", "postscript"):
        save_picture(imgs / f"{stem}.jpg")
        save_mask(masks / f"{stem}.png")
    truncate(imgs / "cut.jpg")
    truncate(masks / "cutmask.png")
    (imgs / "text.jpg").write_text("no picture")
    save_mask(masks / "range.png", labels() * 9)
    save_picture(masks / "rgb.png", "RGB")
    damage_exif(imgs / "exif.jpg")
    save_postscript(imgs / "postscript.jpg")
    (imgs / "gray16.jpg").unlink()
    save_mask(imgs / "gray16.png")
    save_mask(masks / "size.png", labels((32, 24)))
    (masks / "lone.png").unlink()
    save_mask(masks / "lonemask.png")
    save_picture(imgs / "twice.png")
    return {
        "cannot be decoded: 5": [
            "  imgs/cut.jpg (",
            "  imgs/exif.jpg (EXIF: ",
            "  imgs/postscript.jpg (not a JPEG or PNG or WEBP or GIF or BMP file)",
            "  imgs/text.jpg (not a ",
            "  labels/cutmask.png (",
        ],
        "label over 28: 1": ["  labels/range.png (highest is 252)"],
        "not a mask: 1": ["  labels/rgb.png (RGB picture; a mask has one channel)"],
        "not a photograph: 1": ["  imgs/gray16.png ("],
        "mask of another size: 1": ["  imgs/size.jpg (picture 64x48, mask 32x24)"],
        "no mask of this name: 1": ["  imgs/lone.jpg"],
        "no picture of this name: 1": ["  labels/lonemask.png"],
        "second file of this name: 1": ["  imgs/twice.png (beside twice.jpg)"],
    }


def test_one_report_names_every_fault(root, imgs, masks, capsys, ghostscript):
    expected = damage(imgs, masks)
    with pytest.raises(UserError) as caught:
        check_training_pairs(root)
    report = str(caught.value)
    assert_reported(report, expected)
    assert report.startswith(f"{root / 'train_resized'}: 12 faults.")
    assert report.endswith("train on the 4 sound pairs with --skip_bad.")
    assert len(report.splitlines()) == 1 + len(expected) + 12 + 1  # and nothing else
    assert capsys.readouterr().err == ""
    assert not ghostscript.exists()


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (48, 64)])
def test_a_mask_that_is_not_as_large_as_its_photo_is_named(root, masks, size):
    save_mask(masks / "a.png", labels(size))
    with pytest.raises(UserError, match="picture 64x48, mask {}x{}".format(*size)):
        check_training_pairs(root)


def test_skip_bad_leaves_them_out_and_says_so(root, imgs, masks, capsys):
    expected = damage(imgs, masks)
    assert stems(check_training_pairs(root, skip_bad=True, workers=2)) == ["a", "b", "c", "d"]
    report = capsys.readouterr().err
    assert_reported(report, expected)
    assert "Left out as asked; 4 pairs remain." in report


def test_skip_bad_with_nothing_left_is_an_error(root, imgs, masks):
    for path in imgs.iterdir():
        truncate(path)
    with pytest.raises(UserError, match=r"(?s)4 faults.*cannot be decoded: 4.*No sound pair is left"):
        check_training_pairs(root, skip_bad=True)


def test_convertible_pictures_and_strange_files_are_only_mentioned(root, imgs, masks, capsys):
    for number, mode in enumerate(("L", "CMYK")):
        save_picture(imgs / f"x{number}.jpg", mode)
        save_mask(masks / f"x{number}.png")
    save_picture(imgs / "x2.png", "RGBA")
    save_mask(masks / "x2.png")
    (imgs / "notes.txt").write_text("hello")
    (masks / "old").mkdir()
    for _ in range(2):  # each time, also with a cache
        assert len(check_training_pairs(root, cache=root / "cache.json")) == 7
        said = capsys.readouterr().err
        assert "3 read as RGB: x0.jpg L, x1.jpg CMYK, x2.png RGBA\n" in said
        assert "2 neither picture nor mask, ignored: imgs/notes.txt, labels/old\n" in said


@pytest.mark.parametrize("folder", ["imgs", "labels"])
def test_an_empty_folder_is_said_to_be_empty(root, folder):
    shutil.rmtree(root / "train_resized" / folder)
    (root / "train_resized" / folder).mkdir()
    (root / "train_resized" / folder / "readme.txt").write_text("")
    with pytest.raises(UserError, match=f"{folder} is empty"):
        check_training_pairs(root)


def test_many_offenders_go_to_the_report_file(root, imgs, masks, tmp_path):
    for number in range(30):
        save_picture(imgs / f"lone{number:02}.jpg")
    truncate(imgs / "a.jpg")
    report_path = tmp_path / "run" / "bad.txt"
    with pytest.raises(UserError) as caught:
        check_training_pairs(root, report_path=report_path)
    message, report = str(caught.value), report_path.read_text()
    assert all(f"  imgs/lone{number:02}.jpg\n" in report for number in range(30))
    assert "no mask of this name: 30" in message and message.count("imgs/lone") == 10
    assert "imgs/a.jpg" in message  # a rare fault is not crowded out
    assert f"The full list is in {report_path}" in message
    with pytest.raises(UserError) as caught:
        check_training_pairs(root)  # without a report file nothing may be left out
    assert str(caught.value) + "\n" == report


def test_names_that_are_no_utf8(root, imgs, masks, tmp_path):
    name = b"\xce\xf7\xba\xfe".decode(errors="surrogateescape")  # as a GBK archive unpacks
    save_picture(imgs / "x.jpg").rename(imgs / f"{name}.jpg")
    save_mask(masks / "x.png").rename(masks / f"{name}.png")
    pairs = check_training_pairs(root, cache=tmp_path / "cache.json")
    assert name in stems(pairs) and len(split(pairs, 0.5, seed=0)[0]) > 0
    (masks / f"{name}.png").unlink()
    check_training_pairs(root, skip_bad=True, report_path=tmp_path / "bad.txt")
    assert "no mask of this name: 1" in (tmp_path / "bad.txt").read_text()


def test_cache_remembers_sound_pairs_only(root, imgs, masks, tmp_path, monkeypatch):
    cache = tmp_path / "cache.json"
    truncate(imgs / "a.jpg")
    assert stems(check_training_pairs(root, skip_bad=True, cache=cache)) == ["b", "c", "d"]

    decoded = []
    decode = landscape._decode
    monkeypatch.setattr(landscape, "_decode", lambda path, formats: decoded.append(path.name) or decode(path, formats))
    assert stems(check_training_pairs(root, skip_bad=True, cache=cache)) == ["b", "c", "d"]
    assert sorted(decoded) == ["a.jpg", "a.png"]  # what was at fault is looked at again

    truncate(masks / "c.png")
    with pytest.raises(UserError, match=r"labels/c\.png"):
        check_training_pairs(root, cache=cache)
    save_picture(imgs / "a.jpg")
    save_mask(masks / "c.png")
    cache.write_text("{damaged")
    assert len(check_training_pairs(root, cache=cache)) == 4

    before = (imgs / "d.jpg").stat()
    (imgs / "d.jpg").write_bytes(bytes(before.st_size))
    os.utime(imgs / "d.jpg", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(UserError, match=r"imgs/d\.jpg"):  # as large as it was, and of another time
        check_training_pairs(root, cache=cache)


def test_a_report_goes_when_its_faults_have_been_mended(root, imgs, tmp_path):
    truncate(imgs / "a.jpg")
    for _ in range(2):
        with pytest.raises(UserError):
            check_training_pairs(root, report_path=tmp_path / "bad.txt")
        assert "a.jpg" in (tmp_path / "bad.txt").read_text()
    save_picture(imgs / "a.jpg")
    check_training_pairs(root, report_path=tmp_path / "bad.txt")
    assert not (tmp_path / "bad.txt").exists()


# Splitting


def named(count):
    return [Pair(f"picture{number}", Path("x"), Path("y")) for number in range(count)]


def test_split_parts_all_pairs_by_share():
    train, val = split(named(2000), 0.1, seed=0)
    assert 150 < len(val) < 250
    assert sorted(stems(train + val)) == sorted(stems(named(2000)))
    assert (train, val) == split(named(2000), 0.1, seed=0)
    assert stems(val) != stems(split(named(2000), 0.1, seed=1)[1])


def test_split_moves_no_picture_when_others_are_added():
    _, val = split(named(500), 0.2, seed=3)
    train_more, val_more = split(named(700)[::-1], 0.2, seed=3)
    assert set(stems(val)) <= set(stems(val_more)) and not set(stems(val)) & set(stems(train_more))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_split_leaves_neither_part_empty(fraction, seed):
    for count in (2, 3):
        train, val = split(named(count), fraction, seed)
        assert train and val and len(train) + len(val) == count


def test_split_without_validation_and_errors():
    assert split(named(3), 0, seed=0) == (named(3), [])
    for fraction in (-0.1, 1, 1.5):
        with pytest.raises(UserError, match="share"):
            split(named(3), fraction, seed=0)
    with pytest.raises(UserError, match="at least 2"):
        split(named(1), 0.1, seed=0)
