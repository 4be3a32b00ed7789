"""Reading one picture or one mask."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import landscape
from datasets.landscape import CLASSES, read_image, read_mask
from tests.datasets.files import SIZE, labels, save_mask, save_picture, save_postscript, truncate
from utils.errors import UserError


def test_classes():
    assert len(CLASSES) == landscape.NUM_CLASSES == len(set(CLASSES)) == 29
    known = {0: "mountain", 1: "sky", 3: "sea", 14: "person", 18: "pier", 21: "bridge", 24: "railing", 28: "other"}
    assert {index: CLASSES[index] for index in known} == known


def test_the_readme_names_the_classes():
    readme = Path(landscape.__file__).with_name("README.md").read_text()
    table = re.findall(r"\| (\d+) (\w+)(?= \|)", readme)
    assert table == [(str(index), name) for index, name in enumerate(CLASSES)]


@pytest.mark.parametrize("depth, mode", [(np.uint8, "L"), (np.uint16, "I;16")])
def test_read_mask_of_8_and_16_bits(tmp_path, depth, mode):
    path = tmp_path / "m.png"
    image = Image.fromarray(labels().astype(depth))
    assert image.mode == mode
    image.save(path)
    mask = read_mask(path)
    assert mask.dtype == np.uint8 and mask.shape == (48, 64)
    np.testing.assert_array_equal(mask, labels())


def test_read_mask_as_older_pillow_opens_16_bits(tmp_path, monkeypatch):
    image = Image.fromarray(labels().astype(np.int32))
    image.format = "PNG"
    monkeypatch.setattr(landscape, "_decode", lambda path, formats: (image, "I;16B"))
    assert image.mode == "I"
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels())


def test_read_mask_of_palette_gives_the_indices(tmp_path):
    image = Image.fromarray(labels()).convert("L")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    assert image.mode == "P"
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels())


def test_read_mask_of_one_bit(tmp_path):
    Image.fromarray(labels() > 10).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels() > 10)


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("bits", [2, 4])
def test_read_mask_of_few_bits(tmp_path, mode, bits):
    few = labels() % 2**bits
    image = Image.fromarray(few)
    if mode == "P":
        image.putpalette([*range(3 * 2**bits)])
    image.save(tmp_path / "m.png", bits=bits)
    assert Image.open(tmp_path / "m.png").tile[0].args == f"{mode};{bits}"
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, few)


def test_read_mask_resizes_by_the_nearest_pixel_centre(tmp_path):
    mask = labels(size=(12, 9))
    path = save_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(path, (36, 27)), mask.repeat(3, 0).repeat(3, 1))
    np.testing.assert_array_equal(read_mask(path, (4, 3)), mask[1::3, 1::3])  # the middle of each 3x3


@pytest.mark.parametrize("depth, highest", [(np.uint8, 29), (np.uint8, 255), (np.uint16, 300)])
def test_read_mask_refuses_labels_over_28(tmp_path, depth, highest):
    mask = labels().astype(depth)
    mask[5, 5] = highest
    with pytest.raises(UserError, match=rf"m\.png: label over 28 \(highest is {highest}\)"):
        read_mask(save_mask(tmp_path / "m.png", mask, depth))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_read_mask_refuses_several_channels(tmp_path, mode):
    with pytest.raises(UserError, match=f"not a mask.*{mode}"):
        read_mask(save_picture(tmp_path / "m.png", mode))


def test_read_mask_refuses_a_jpeg_in_disguise(tmp_path):
    Image.fromarray(labels()).save(tmp_path / "m.png", "JPEG")
    with pytest.raises(UserError, match=r"m\.png: cannot be decoded \(not a PNG file\)"):
        read_mask(tmp_path / "m.png")


def test_read_image(tmp_path):
    path = save_picture(tmp_path / "a.png")
    image = read_image(path)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.array(Image.open(path)))
    image[0] = 0  # it is one's own, not read-only


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("LA", "png")])
def test_read_image_converts_harmless_modes(tmp_path, mode, suffix):
    path = save_picture(tmp_path / f"a.{suffix}", mode)
    expected = np.array(Image.open(path).convert("RGB"))
    assert Image.open(path).mode == mode and np.ptp(expected) > 100
    np.testing.assert_array_equal(read_image(path), expected)


def test_read_image_shrinks_without_aliasing(tmp_path):
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png", (16, 12))
    assert small.shape == (12, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() < 30


def test_read_image_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise by 90 degrees
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :8] = 255  # white at the left becomes white at the top
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (64, 48, 3)
    assert image[:6].min() > 200 and image[20:].max() < 50


def test_read_image_survives_exif_that_is_none(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage")
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("damage", [b"\x01\x0f\x00\x02", b"MM\x00*"], ids=["a tag of another type", "no header"])
def test_exif_by_which_a_picture_cannot_be_turned_upright_is_told(tmp_path, damage):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    damaged = exif.tobytes().replace(damage, b"\x01\x00\x00\x02", 1)
    Image.new("RGB", SIZE).save(tmp_path / "a.png", exif=damaged)
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded \(EXIF: "):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP"])
def test_photos_of_other_formats_under_the_name_of_a_jpeg(tmp_path, file_format):
    Image.new("RGB", SIZE, (200, 100, 50)).save(tmp_path / "a.jpg", file_format)
    assert np.abs(read_image(tmp_path / "a.jpg") - np.array([200.0, 100, 50])).max() < 10


@pytest.mark.parametrize("read, name", [(read_image, "a.jpg"), (read_image, "a.png"), (read_mask, "a.png")])
def test_postscript_is_not_run(tmp_path, ghostscript, read, name):
    with pytest.raises(UserError) as caught:
        read(save_postscript(tmp_path / name))
    assert not ghostscript.exists()
    assert f"{name}: cannot be decoded (not a " in str(caught.value)


@pytest.mark.parametrize("read, name", [(read_image, "a.jpg"), (read_image, "a.png"), (read_mask, "a.png")])
def test_damaged_files_are_named(tmp_path, read, name):
    path = tmp_path / name
    with pytest.raises(UserError, match=f"{name}: cannot be decoded"):
        read(path)  # not there
    for content in (b"", b"this is text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be decoded .not a .*PNG.* file"):
            read(path)
    save_mask(path) if read is read_mask else save_picture(path)
    truncate(path)
    with pytest.raises(UserError, match=f"{name}: cannot be decoded .*truncated"):
        read(path)
