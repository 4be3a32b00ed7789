import json
import os
import shlex

import pytest

from datasets.pairs import check_training_pairs, split
from datasets.prepare.split import write_split
from datasets.test_pairs import find_test_pairs
from tests.datasets.files import save_mask, save_picture, stems
from utils.errors import DiskError, UserError


def held_out(output):
    return stems(check_training_pairs(output / "val"))


def test_both_parts_are_training_sets_and_the_one_held_out_can_be_painted(root, tmp_path):
    for i in range(8):
        save_picture(root / "train_resized" / "imgs" / f"{i}.jpeg", seed=i)
        save_mask(root / "train_resized" / "labels" / f"{i}.png")
    write_split(root, tmp_path / "out", count=7, seed=3)
    train, val = stems(check_training_pairs(tmp_path / "out")), held_out(tmp_path / "out")
    assert len(val) == 7 and sorted(train + val) == stems(check_training_pairs(root))
    pairs = find_test_pairs(tmp_path / "out" / "val", tmp_path / "out")
    assert stems(pairs) == val
    references = [pair.reference.stem for pair in pairs]
    assert set(references) == set(train)  # each of the five before any comes again
    write_split(root, tmp_path / "again", count=7, seed=3)
    listings = [(tmp_path / name / "val" / "label_to_img.json").read_bytes() for name in ("out", "again")]
    assert listings[0] == listings[1]


def test_what_is_held_out_can_be_painted_whatever_its_names(root, imgs, masks, tmp_path):
    """Where they are no UTF-8, as a GBK archive unpacks, its list could not be read."""
    names = [b"\xce\xf7\xba\xfe%d".replace(b"%d", b"%d" % i).decode(errors="surrogateescape") for i in range(3)]
    for name in names:
        save_picture(imgs / "x.jpg").rename(imgs / f"{name}.jpg")
        save_mask(masks / "x.png").rename(masks / f"{name}.png")
    write_split(root, tmp_path / "out", count=6)
    pairs = find_test_pairs(tmp_path / "out" / "val", tmp_path / "out")
    assert stems(pairs) == held_out(tmp_path / "out") and len({*names} & {*stems(pairs)}) > 1


def test_a_share_is_that_of_training_and_a_count_grows_by_one(root, tmp_path):
    for i in range(20):
        save_picture(root / "train_resized" / "imgs" / f"{i}.jpg")
        save_mask(root / "train_resized" / "labels" / f"{i}.png")
    write_split(root, tmp_path / "share", share=0.3, seed=1)
    assert held_out(tmp_path / "share") == stems(split(check_training_pairs(root), 0.3, 1)[1])
    parts = []
    for count in (3, 4):
        write_split(root, tmp_path / str(count), count=count, seed=1)
        parts.append(set(held_out(tmp_path / str(count))))
    assert len(parts[0]) == 3 and len(parts[1]) == 4 and parts[0] < parts[1]


def test_files_are_linked_or_copied(root, imgs, masks, tmp_path, monkeypatch):
    (imgs / "real.jpg").write_bytes((imgs / "a.jpg").read_bytes())
    (imgs / "a.jpg").unlink()
    (imgs / "real.jpg").rename(root / "real.jpg")
    (imgs / "a.jpg").symlink_to("../../real.jpg")  # which from elsewhere leads nowhere

    def originals(output):
        copies = [path for path in output.rglob("*") if path.suffix in (".jpg", ".png")]
        assert len(copies) == 8 and not any(path.is_symlink() for path in copies)
        return {copy.name for copy in copies if any(copy.samefile(path) for path in (*imgs.iterdir(), *masks.iterdir()))}

    write_split(root, tmp_path / "linked", count=2)
    assert len(originals(tmp_path / "linked")) == 8
    write_split(root, tmp_path / "copied", count=2, copy=True)
    assert not originals(tmp_path / "copied")

    def no_links(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    write_split(root, tmp_path / "elsewhere", count=2)
    assert not originals(tmp_path / "elsewhere") and stems(check_training_pairs(tmp_path / "elsewhere"))


def test_the_commands_that_are_printed_can_be_copied(root, tmp_path, capsys):
    output = tmp_path / "held out"
    write_split(root, output, count=2)
    train, test = (shlex.split(line) for line in capsys.readouterr().out.splitlines()[-2:])
    assert train == ["python3", "MainTrain.py", "--input_path", str(output), "--val_path", str(output / "val")]
    assert test[1:4] == ["MainTest.py", "--input_path", str(output / "val")] and test[-2:] == ["--truth_path", str(output / "val" / "imgs")]


def test_what_cannot_be_split_is_said_and_nothing_is_left(root, imgs, tmp_path):
    for count in (0, 4):
        with pytest.raises(UserError, match=f"{count} of 4 pairs cannot be held out"):
            write_split(root, tmp_path / "out", count=count)
    (imgs / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b\.jpg"):
        write_split(root, tmp_path / "out", count=2)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    (tmp_path / "list.txt").write_text("b\n")
    write_split(root, tmp_path / "out", count=2, leave_out=tmp_path / "list.txt")
    before = (tmp_path / "out" / "val" / "label_to_img.json").read_text()
    with pytest.raises(UserError, match="out exists already"):
        write_split(root, tmp_path / "out", count=1, leave_out=tmp_path / "list.txt")
    assert (tmp_path / "out" / "val" / "label_to_img.json").read_text() == before and len(json.loads(before)) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file/out"):
        write_split(root, tmp_path / "file" / "out", count=2, skip_bad=True)
