import shlex

import numpy as np
import pytest
from PIL import Image

from datasets.landscape import read_image
from datasets.prepare import super_resolution
from datasets.prepare.clean import write_report
from datasets.prepare.super_resolution import write_resolutions
from tests.datasets.files import save_picture
from utils.errors import UserError


@pytest.fixture
def photos(tmp_path):
    for i, size in enumerate(((64, 48), (65, 49), (20, 30))):
        save_picture(tmp_path / "photos" / f"{i}.jpg", size=size, seed=i)
    return tmp_path / "photos"


def test_pairs_in_the_published_layout(photos, tmp_path, capsys):
    write_resolutions(photos, tmp_path / "sr")
    assert capsys.readouterr().out == f"3 pairs in {tmp_path / 'sr'}, of which 0 were there.\n"
    files = sorted(str(path.relative_to(tmp_path / "sr")) for path in (tmp_path / "sr").rglob("*") if path.is_file())
    assert files == ["HR/0.png", "HR/1.png", "HR/2.png", *(f"LR_bicubic/X2/{i}x2.png" for i in range(3))]
    for i in range(3):
        high, low = Image.open(tmp_path / "sr" / "HR" / f"{i}.png"), Image.open(tmp_path / "sr" / "LR_bicubic" / "X2" / f"{i}x2.png")
        photo = read_image(photos / f"{i}.jpg")
        height, width = photo.shape[0] // 2 * 2, photo.shape[1] // 2 * 2
        assert np.array_equal(np.array(high), photo[:height, :width])
        assert np.array_equal(np.array(low), np.array(high.resize((width // 2, height // 2), Image.Resampling.BICUBIC)))


def test_what_is_there_is_kept_and_the_rest_written(photos, tmp_path, monkeypatch, capsys):
    write_resolutions(photos, tmp_path / "sr")
    whole = {path: path.read_bytes() for path in (tmp_path / "sr").rglob("*.png")}
    (tmp_path / "sr" / "LR_bicubic" / "X2" / "1x2.png").unlink()
    (tmp_path / "sr" / "HR" / ".2.png.elsewhere.1.tmp").write_bytes(b"left by a kill")
    read = []
    monkeypatch.setattr(super_resolution, "read_image", lambda path: read.append(path.name) or read_image(path))
    write_resolutions(photos, tmp_path / "sr")
    assert read == ["1.jpg"] and "of which 2 were there" in capsys.readouterr().out
    assert whole == {path: path.read_bytes() for path in (tmp_path / "sr").rglob("*.png")}


def test_photos_at_fault_are_all_named_and_the_others_written(photos, tmp_path):
    (photos / "0.jpg").write_bytes(b"no picture")
    save_picture(photos / "1.png")
    with pytest.raises(UserError, match=r"(?s)2 faults.*cannot be decoded: 1.*0\.jpg.*second file.*1\.png.*All other photos"):
        write_resolutions(photos, tmp_path / "sr")
    assert {path.name for path in (tmp_path / "sr" / "HR").iterdir()} == {"1.png", "2.png"}


def test_a_photo_that_has_no_half_is_named(photos, tmp_path):
    save_picture(photos / "line.png", size=(40, 1))
    with pytest.raises(UserError, match=r"(?s)1 faults.*too small to be halved: 1.*line\.png \(40x1\).*All other photos"):
        write_resolutions(photos, tmp_path / "sr")
    assert {path.name for path in (tmp_path / "sr" / "HR").iterdir()} == {"0.png", "1.png", "2.png"}


def test_the_list_of_clean_is_taken_whatever_it_names(root, imgs, masks, tmp_path, capsys):
    (imgs / "a.jpg").unlink()
    (masks / "b.png").unlink()
    save_picture(imgs / "c.png")
    write_report(root, tmp_path / "the clean ones")
    *_, command = capsys.readouterr().out.splitlines()
    listing = tmp_path / "the clean ones" / "leave_out.txt"
    assert shlex.split(command) == ["python3", "MainTrain.py", "--input_path", str(root), "--leave_out", str(listing)]
    write_resolutions(root, tmp_path / "sr", leave_out=listing)
    assert [path.name for path in (tmp_path / "sr" / "HR").iterdir()] == ["d.png"]


def test_left_out_photos_and_folders_of_others(photos, tmp_path):
    (tmp_path / "list.txt").write_text("0\n")
    write_resolutions(photos, tmp_path / "sr", leave_out=tmp_path / "list.txt")
    assert {path.name for path in (tmp_path / "sr" / "HR").iterdir()} == {"1.png", "2.png"}
    (photos / "2.jpg").rename(photos / "3.jpg")
    with pytest.raises(UserError, match=r"HR holds other things \(2\.png\)"):
        write_resolutions(photos, tmp_path / "sr")
    with pytest.raises(UserError, match="photos holds other things"):
        write_resolutions(photos, photos)
