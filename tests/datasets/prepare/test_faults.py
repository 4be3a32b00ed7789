"""Grey, framed and repeated photos are found among drawn landscapes, and none of these are taken for one."""

import cv2
import numpy as np
import pytest

from datasets.landscape import read_image
from datasets.prepare.faults import GREY, NEAR, SIDES, bits, borders, chroma, duplicates, print_of


@pytest.fixture(scope="module")
def photos(data) -> list[np.ndarray]:
    return [cv2.resize(read_image(path), (256, 192)) for path in sorted((data / "train_resized" / "imgs").iterdir())]


def compressed(photo, quality=50):
    """The photo out of a JPEG file of this quality."""
    _, content = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def grey(photo):
    return np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def framed(photo, color, top=0, bottom=0, left=0, right=0):
    photo = photo.copy()
    height, width = photo.shape[:2]
    photo[:top], photo[height - bottom :], photo[:, :left], photo[:, width - right :] = (color,) * 4
    return photo


def test_drawn_landscapes_have_none_of_it(photos):
    assert all(chroma(photo) > GREY and not borders(photo) for photo in photos)
    assert duplicates([print_of(photo) for photo in photos]) == []


def test_grey_photos_are_found_though_compressed_and_marked_in_colour(photos):
    for photo in photos:
        marked = compressed(grey(photo))
        marked[5:20, 5:40] = 255, 0, 0
        assert chroma(marked) < GREY / 4
    faded = np.uint8(0.5 * photos[0] + 0.5 * grey(photos[0]))
    assert chroma(faded) > GREY


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (240, 232, 215)])
@pytest.mark.parametrize("widths", [
    {"top": 6, "bottom": 6, "left": 6, "right": 6}, {"top": 10, "bottom": 10}, {"left": 3, "right": 4},
    {"top": 5, "bottom": 40, "left": 5, "right": 5},
])  # fmt: skip
def test_frames_are_found_with_their_widths(photos, color, widths):
    for photo in photos[:4]:
        found = borders(compressed(framed(photo, color, **widths), 80))
        assert found.keys() == widths.keys()
        assert all(abs(found[side] - widths[side]) <= 1 for side in widths)


@pytest.mark.parametrize("side", SIDES)
def test_a_border_at_one_side_must_be_black_or_white(photos, side):
    for photo in photos[:4]:
        assert borders(framed(photo, (0, 0, 0), **{side: 4})).keys() == {side}
        assert not borders(framed(photo, (90, 140, 200), **{side: 20}))  # a clear sky above the sea is such a one
        assert not borders(framed(photo, (255, 255, 255), **{side: 40}))  # an overcast one


def test_borders_of_a_large_photo_are_those_of_a_small_one(photos):
    large = cv2.resize(photos[0], (2048, 1536))
    found = borders(framed(large, (0, 0, 0), left=32, right=32))
    assert found.keys() == {"left", "right"} and all(abs(width - 8) <= 1 for width in found.values())


def test_duplicates_are_found_however_they_were_made(photos):
    height, width = photos[0].shape[:2]
    brighter = np.uint8(np.clip(photos[0] * 1.15, 0, 255))
    changed = [
        compressed(cv2.resize(brighter, (160, 120)), 40),
        photos[1][:, ::-1],
        cv2.resize(photos[2][6 : height - 4, 3 : width - 10], (width, height)),
        grey(photos[3]),
    ]
    found = duplicates([print_of(photo) for photo in [*photos, *changed]])
    n = len(photos)
    assert found == [(0, n, False), (1, n + 1, True), (2, n + 2, False), (3, n + 3, False)]


def test_photos_without_detail_are_no_duplicates():
    flat = [np.full((96, 128, 3), level, np.uint8) for level in (0, 0, 255)]
    assert duplicates([print_of(photo) for photo in flat]) == [] and duplicates([]) == []


def test_photos_alike_from_afar_alone_are_no_duplicates(photos):
    """The same hash is not enough: sky above sea looks like sky above sea."""

    def blurred(photo):
        return cv2.GaussianBlur(photo.astype(np.float32), (0, 0), 16)

    other = np.uint8(np.clip(blurred(photos[0]) + photos[1] - blurred(photos[1]), 0, 255))
    one, two = print_of(photos[0]), print_of(other)
    assert (bits(one.waves[None]) != bits(two.waves[None])).sum() <= NEAR
    assert duplicates([one, two]) == []
