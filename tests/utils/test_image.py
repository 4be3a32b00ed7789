import errno
import os
import resource

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.landscape import CLASSES
from utils import image as images
from utils.errors import DiskError, UserError


def picture(seed=0, mean=(90, 120, 150), spread=25, size=(64, 48)):
    """A picture of soft blobs around a colour."""
    width, height = size
    coarse = np.random.default_rng(seed).normal(mean, spread, (6, 8, 3)).clip(0, 255).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def lab(rgb):
    return cv2.cvtColor(np.float32(rgb) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)


# Masks and sheets


def test_every_class_has_its_own_colour():
    assert images.PALETTE.shape == (len(CLASSES), 3) and images.PALETTE.dtype == np.uint8
    colours = np.float32(images.PALETTE)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1000 * np.eye(len(CLASSES))
    assert distances.min() >= 20
    red, green, blue = images.PALETTE[CLASSES.index("sky")].astype(int)
    assert blue > green > red > 128
    red, green, blue = images.PALETTE[CLASSES.index("tree")].astype(int)
    assert green > red and green > blue


def test_colorize_mask():
    mask = np.array([[0, 1, 28], [5, 5, 2]], np.uint8)
    colours = images.colorize_mask(mask)
    assert colours.shape == (2, 3, 3) and colours.dtype == np.uint8
    assert (colours[1, 1] == images.PALETTE[5]).all() and (colours[0, 2] == images.PALETTE[28]).all()


def test_contact_sheet_places_every_picture():
    red, green, blue = (np.full((30, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    sheet = images.contact_sheet([[red, green], [blue]], gap=4)
    assert sheet.shape == (2 * 34 + 4, 2 * 44 + 4, 3) and sheet.dtype == np.uint8
    assert (sheet[4:34, 4:44] == (255, 0, 0)).all()
    assert (sheet[4:34, 48:88] == (0, 255, 0)).all()
    assert (sheet[38:68, 4:44] == (0, 0, 255)).all()
    assert (sheet[38:68, 48:88] == 255).all()  # nothing there: white
    assert (sheet[:4] == 255).all() and (sheet[:, -4:] == 255).all()


def test_contact_sheet_writes_text_and_resizes():
    row = [picture(size=(128, 96)), picture(1, size=(64, 48))]
    plain = images.contact_sheet([row, row], size=(80, 60))
    sheet = images.contact_sheet([row, row], ["mask", "a title much longer than its column"], ["one", "two"], (80, 60))
    assert sheet.shape == (plain.shape[0] + 3 * 24, plain.shape[1], 3)
    heading, gutter = sheet[4:24], slice(84, 88)
    assert (heading[:, 4:84] < 128).any() and (heading[:, 88:168] < 128).any()
    assert (heading[:, gutter] == 255).all() and (heading[:, 165:] == 255).all()  # the long title was made to fit
    np.testing.assert_array_equal(sheet[28:88], plain[4:64])


# Resizing


def test_resize_is_antialiased():
    fine = np.zeros((96, 128, 3), np.uint8)
    fine[:, ::2] = 255  # one-pixel stripes become gray, not black or white or a pattern
    small = images.resize(fine, (32, 24))
    assert small.shape == (24, 32, 3) and small.dtype == np.uint8
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 20


def test_resize_to_the_contest_size_and_not_at_all():
    assert images.resize(picture(), (512, 384)).shape == (384, 512, 3)
    same = picture()
    np.testing.assert_array_equal(images.resize(same, (64, 48)), same)


# Colour matching


def test_lab_moves_mean_and_spread_to_the_reference():
    image, reference = picture(0), picture(1, mean=(150, 120, 90), spread=15, size=(80, 60))
    result = images.color_match(image, reference, "lab")
    assert result.shape == image.shape and result.dtype == np.uint8
    np.testing.assert_allclose(lab(result).mean(0), lab(reference).mean(0), atol=0.5)
    np.testing.assert_allclose(lab(result).std(0), lab(reference).std(0), atol=0.5)
    assert np.abs(lab(image).mean(0) - lab(reference).mean(0)).max() > 10


def test_histogram_takes_brightness_as_it_is_and_colour_smoothly():
    image, reference = picture(0), picture(1, mean=(200, 170, 140), spread=15, size=(80, 60))
    result = images.color_match(image, reference, "histogram")
    assert result.shape == image.shape and result.dtype == np.uint8
    ours, theirs, before = (np.percentile(lab(x)[:, 0], [5, 25, 50, 75, 95]) for x in (result, reference, image))
    np.testing.assert_allclose(ours, theirs, atol=1.5)
    assert np.abs(before - theirs).max() > 10
    np.testing.assert_allclose(lab(result).mean(0), lab(reference).mean(0), atol=1)  # of colour too, as a mean


def test_histogram_makes_no_coloured_grain():
    """Of a grey picture with a grain of one level, which the reference's histogram alone would make colours of."""
    rng = np.random.default_rng(0)
    grey = np.uint8(120 + rng.integers(0, 2, (48, 64, 3)))
    colorful = np.uint8(rng.choice([40, 200], (48, 64, 3)))
    assert lab(colorful)[:, 1:].std() > 40
    assert lab(images.color_match(grey, colorful, "histogram"))[:, 1:].std() < 10


@pytest.mark.parametrize("mode", list(images.COLOR_MATCHES))
def test_matching_a_picture_with_itself_changes_nothing(mode):
    image = picture(3)
    assert np.abs(images.color_match(image, image, mode).astype(int) - image).max() <= 1


@pytest.mark.parametrize("mode", ["lab", "histogram"])
def test_matching_keeps_edges(mode):
    image = np.full((48, 64, 3), (60, 110, 90), np.uint8)
    image[:, 32:] = (140, 160, 200)
    brightness = lab(images.color_match(image, picture(1, mean=(170, 120, 90)), mode)).reshape(image.shape)[..., 0]
    assert np.abs(np.diff(brightness, axis=1)[:, 31]).min() > 8
    assert np.abs(np.diff(brightness, axis=1)[:, :31]).max() < 1  # and makes no others


def test_a_flat_picture_does_not_blow_up():
    flat = np.full((48, 64, 3), 100, np.uint8)
    flat[::2, ::2] += 1
    result = images.color_match(flat, picture(1, spread=60), "lab")
    assert np.ptp(result.reshape(-1, 3).astype(int), axis=0).max() <= 8


# Writing


def test_jpeg_and_png_come_back(tmp_path):
    image = picture()
    images.write_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "new" / "a.png")), image)
    images.write_jpeg(tmp_path / "a.jpg", image)
    back = Image.open(tmp_path / "a.jpg")
    assert back.format == "JPEG" and back.mode == "RGB"
    assert np.abs(np.array(back).astype(int) - image).mean() < 2
    images.write_jpeg(tmp_path / "b.jpg", image, quality=30)
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "new"]


def test_masks_of_16_bits_can_be_written(tmp_path):
    mask = np.arange(29, dtype=np.uint16).reshape(1, 29)
    images.write_png(tmp_path / "mask.png", mask)
    back = Image.open(tmp_path / "mask.png")
    assert back.mode.startswith("I")
    np.testing.assert_array_equal(np.array(back), mask)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code, error, status", [(errno.ENOSPC, DiskError, 1), (errno.EACCES, UserError, 2)])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call, code, error, status):
    path = tmp_path / "a.png"
    images.write_png(path, picture(0))
    before = path.read_bytes()

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(error, match=r"a\.png") as caught:
        images.write_png(path, picture(1))
    assert caught.value.status == status
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [images.write_jpeg, images.write_png])
def test_a_file_that_could_be_written_in_part_only_does_not_get_its_name(tmp_path, write):
    """The end of the room for it comes within the last write, which then writes less than it was given and reports no error."""
    write(tmp_path / "whole", picture())
    size = (tmp_path / "whole").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*part"):
            write(tmp_path / "part", picture())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_place_that_is_no_folder_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        images.write_jpeg(tmp_path / "file" / "a.jpg", picture())


def test_a_very_long_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    images.write_png(path, picture())
    assert list(tmp_path.iterdir()) == [path]
