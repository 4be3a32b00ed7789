"""What makes a photo a bad example: that it is grey, has a border around it, or is there already.

The limits were set on 1339 photos of three public sets, with faults planted among them (datasets/README.md has the numbers).
"""

from dataclasses import dataclass

import cv2
import numpy as np

LARGEST = 512  # photos are looked at with no side longer than this, in pixels

# ---------------------------------------------------------------------------------------------------------------- grey

GREY = 4.0  # CIELAB units of chroma; a difference of 2.3 can just be seen. Photos in dull weather have 6 and more, grey JPEGs 0.1
MOST = 95  # percent of the pixels: a coloured mark in a corner makes no colour photo


def chroma(photo):
    """How far from grey its pixels are, in units of CIELAB, but for the 5 % that are farthest: float of uint8 [H, W, 3]."""
    lab = cv2.cvtColor(np.float32(fitted(photo, LARGEST // 2)) / 255, cv2.COLOR_RGB2LAB)
    return float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), MOST))


# ------------------------------------------------------------------------------------------------------------- borders

SIDES = ("top", "bottom", "left", "right")
ALIKE = 20  # levels of 255 by which a pixel of a border may differ from the border's colour: JPEG leaves that much
STRAY = 0.05  # share of pixels in a line of a border that may be of another colour, as those of a caption are
THINNEST, WIDEST = 0.005, 0.25  # of the photo's height or width
WIDEST_ALONE = 0.1  # the same for a border without one opposite
ENDS, ENDS_ALONE = (
    (0.15, 0.5),
    0.6,
)  # share of its length at which a border ends in a step: both of two opposite ones, one of them; one alone
BLURRED = 3  # lines beyond a border that belong to neither, where the photo was once resized or compressed
BLACK, WHITE = 30, 235  # levels: darker, or lighter, in all three channels


@dataclass
class Border:
    width: int  # pixels
    color: np.ndarray  # float [3]
    end: float  # share of its length at which it ends in a step


def borders(photo):
    """{side: width} of the uniform borders of a photo uint8 [H, W, 3], in pixels once no side is longer than LARGEST. {} where it has none.

    A border has one colour and ends in a straight line. Skies may do so too, above the sea. So it must be one of two opposite ones of the
    same colour, or be black or white, narrow, and end in a clearer step.
    """
    photo = fitted(photo, LARGEST)
    turned = (photo, photo[::-1], photo.swapaxes(0, 1), photo.swapaxes(0, 1)[::-1])  # each side in turn is the first row
    found = {side: border(view) for side, view in zip(SIDES, turned, strict=True)}
    length = {side: len(view) for side, view in zip(SIDES, turned, strict=True)}

    def is_pair(a, b):
        one, other = found[a], found[b]
        fits = all(max(2, THINNEST * length[a]) <= each.width <= WIDEST * length[a] for each in (one, other))
        ends = min(one.end, other.end), max(one.end, other.end)
        return fits and np.abs(one.color - other.color).max() <= ALIKE and ends[0] >= ENDS[0] and ends[1] >= ENDS[1]

    def is_alone(side):
        each = found[side]
        plain = (each.color <= BLACK).all() or (each.color >= WHITE).all()
        return plain and max(2, THINNEST * length[side]) <= each.width <= WIDEST_ALONE * length[side] and each.end >= ENDS_ALONE

    named = {side for side in SIDES if is_alone(side)}
    for pair in (SIDES[:2], SIDES[2:]):
        named |= set(pair) if is_pair(*pair) else set()
    return {side: found[side].width for side in SIDES if side in named}


def border(photo):
    """What may be a border at the photo's first row."""
    color = np.median(photo[:2].reshape(-1, 3), axis=0)
    rows = photo[: round(WIDEST * len(photo)) + 1 + BLURRED].astype(np.int16)
    other = (np.abs(rows - np.int16(color)).max(axis=-1) > ALIKE).mean(axis=1)  # share of each row that has another colour
    ends = np.flatnonzero(other > STRAY)
    width = int(ends[0]) if len(ends) else len(rows)
    return Border(width, color, float(other[min(width + BLURRED, len(rows) - 1)]))


# ---------------------------------------------------------------------------------------------------------- duplicates

WAVES = 9  # a hash compares the 9x9 slowest waves of the picture, the mean aside: 80 bits
NEAR = 24  # bits of 80: pairs of photos that differ by more are not looked at more closely. Of chance pairs 0.1 % come so near
DETAIL, SMOOTH = 48, 4  # side of the thumbnail that is compared then, and the width of the blur that is taken out of it, in its pixels
SAME = 0.75  # correlation of the details. Of 700,000 pairs of photos no two different ones that came near had more than 0.68
FLAT = 0.5  # levels of 255: a thumbnail with less detail has nothing to be known by


@dataclass
class Print:
    """What a photo is known by when it has been compressed again, resized, brightened, mirrored or cropped a little."""

    waves: np.ndarray  # float32 [9, 9]
    details: np.ndarray  # float32 [48, 48]


def print_of(photo):
    """The Print of a photo uint8 [H, W, 3]."""
    grey = cv2.cvtColor(fitted(photo, LARGEST), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    thumbnail = cv2.resize(grey, (DETAIL, DETAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Print(cv2.dct(small)[:WAVES, :WAVES], thumbnail - cv2.GaussianBlur(thumbnail, (0, 0), SMOOTH))


def bits(waves):
    """Perceptual hashes ±1, float32 [N, 80], of waves [N, 9, 9]: which of its waves are above their median."""
    flat = waves.reshape(len(waves), -1)[:, 1:]
    return np.where(flat > np.median(flat, axis=1, keepdims=True), np.float32(1), np.float32(-1))


def duplicates(prints):
    """(i, j, mirrored) of all pairs i < j of Prints that are of the same photo."""
    if not prints:
        return []
    waves = np.stack([each.waves for each in prints])
    plain, mirrored = bits(waves), bits(waves * (-1.0) ** np.arange(WAVES))  # mirroring turns the odd waves of a row round
    found = {}
    for first in range(0, len(prints), 1024):  # a block of rows at a time: ten thousand photos make a hundred million pairs
        for hashes, is_mirrored in ((plain, False), (mirrored, True)):
            distance = (plain.shape[1] - hashes[first : first + 1024] @ plain.T) / 2
            for row, j in np.argwhere(distance <= NEAR):
                i = first + row
                if i < j and (i, j) not in found and same_details(prints[i].details, prints[j].details, is_mirrored):
                    found[i, j] = is_mirrored
    return [(int(i), int(j), is_mirrored) for (i, j), is_mirrored in sorted(found.items())]


def same_details(one, other, mirrored):
    """Whether the middle of one thumbnail is found again in the other, or in its mirror image."""
    if min(one.std(), other.std()) < FLAT:
        return False
    other = np.ascontiguousarray(other[:, ::-1]) if mirrored else other
    edge = DETAIL // 8
    parts = ((one, other[edge:-edge, edge:-edge]), (other, one[edge:-edge, edge:-edge]))
    return max(cv2.matchTemplate(whole, middle, cv2.TM_CCOEFF_NORMED).max() for whole, middle in parts) >= SAME


def fitted(photo, side):
    """The photo, made smaller where a side is longer than so many pixels."""
    scale = side / max(photo.shape[:2])
    if scale >= 1:
        return photo
    size = tuple(max(1, round(length * scale)) for length in photo.shape[1::-1])
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
