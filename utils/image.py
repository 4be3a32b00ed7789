"""Pictures as uint8 RGB arrays [H, W, 3]: showing masks, contact sheets, resizing, colour matching, safe writing.

Sizes are given as (width, height), in pixels.
"""

import io

import cv2
import numpy as np
from PIL import Image

from utils.files import atomic_write

# One natural colour a class, in the order of datasets.landscape.CLASSES; the contest has no official palette.
PALETTE = np.array(
    [
        [112, 108, 128],  # mountain
        [160, 208, 245],  # sky
        [64, 150, 200],  # water
        [20, 80, 150],  # sea
        [150, 140, 130],  # rock
        [30, 95, 40],  # tree
        [120, 80, 45],  # earth
        [140, 160, 90],  # hill
        [70, 180, 215],  # river
        [235, 215, 160],  # sand
        [175, 130, 85],  # land
        [185, 90, 80],  # building
        [110, 190, 70],  # grass
        [60, 140, 60],  # plant
        [240, 60, 90],  # person
        [250, 140, 30],  # boat
        [215, 240, 250],  # waterfall
        [165, 85, 130],  # wall
        [95, 60, 70],  # pier
        [205, 180, 140],  # path
        [45, 120, 165],  # lake
        [200, 40, 40],  # bridge
        [210, 205, 80],  # field
        [85, 85, 90],  # road
        [200, 150, 200],  # railing
        [130, 70, 170],  # fence
        [250, 200, 60],  # ship
        [225, 130, 115],  # house
        [20, 20, 20],  # other
    ],
    np.uint8,
)


def colorize_mask(mask):
    """Labels 0..28, uint8 [H, W] -> their colours in PALETTE, uint8 [H, W, 3]."""
    return PALETTE[mask]


def resize(image, size):
    """Picture uint8 [H, W, 3] stretched to `size` by a Lanczos filter, which is widened (antialiased) to shrink."""
    if image.shape[1::-1] == tuple(size):
        return image
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def resize_mask(mask, size):
    """Labels [H, W] at `size`: each pixel takes that of the nearest (centre-aligned)."""
    return np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def contact_sheet(rows, titles=None, captions=None, size=None, gap=4):
    """Pictures in a grid on white, for a look at many at once.

    rows: list of rows, each a list of pictures uint8 [H, W, 3]; a shorter row leaves its end white.
    titles: a heading for each column of the longest row. captions: a line of text (ASCII) below each row.
    size: (width, height) every picture is resized to; by default that of the first. gap: pixels between pictures.
    Returns one picture, uint8 [H, W, 3].
    """
    width, height = size or rows[0][0].shape[1::-1]
    columns = max(map(len, rows))
    blank = np.full((height, width, 3), 255, np.uint8)

    def side_by_side(cells):
        return np.hstack([np.pad(cell, ((0, 0), (gap, 0), (0, 0)), constant_values=255) for cell in cells])

    strips = []
    if titles:
        strips.append(side_by_side([_text_line(title, width) for title in titles]))
    for number, row in enumerate(rows):
        cells = [resize(picture, (width, height)) for picture in row] + (columns - len(row)) * [blank]
        strips.append(side_by_side(cells))
        if captions:
            strips.append(_text_line(captions[number], strips[-1].shape[1]))
    sheet = np.vstack([np.pad(strip, ((gap, 0), (0, 0), (0, 0)), constant_values=255) for strip in strips])
    return np.pad(sheet, ((0, gap), (0, gap), (0, 0)), constant_values=255)


def _text_line(text, width, height=20):
    """A line of black text on white, uint8 [height, width, 3], in smaller letters where it would not fit."""
    line = np.full((height, width, 3), 255, np.uint8)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.45
    (length, _), _ = cv2.getTextSize(text, font, scale, 1)
    scale *= min(1, (width - 8) / max(length, 1))
    cv2.putText(line, text, (4, height - 6), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return line


# ---------------------------------------------------------------------------------------------------------------------
# Colour matching: give a result the tone of its reference, leaving its layout alone.

MAX_GAIN = 3.0  # a nearly flat channel is stretched no further: that would only blow up its noise
COLOR_REACH = 0.06  # of the width: over so much a change of colour is smoothed


def match_lab(image, reference):
    """Mean and standard deviation of each LAB channel moved to the reference's.

    Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, eq. 10-11, in CIELAB instead of l-alpha-beta.
    """
    lab, target = to_lab(image), to_lab(reference)
    gain = np.minimum(target.std((0, 1)) / np.maximum(lab.std((0, 1)), 1e-3), MAX_GAIN)
    return from_lab(np.float32((lab - lab.mean((0, 1))) * gain + target.mean((0, 1))))


def match_histogram(image, reference):
    """Each RGB channel brought to the reference's histogram; of that the brightness is taken as it is, the change of colour smoothed.

    Histogram specification: Gonzalez and Woods, "Digital Image Processing", section 3.3, s = T(r), z = G^-1(s). Its steep parts would make
    coloured grain of what hardly shows, and the eye sees colour coarsely: brightness alone carries detail.
    """
    matched = np.empty_like(image)
    for channel in range(3):
        ours, theirs = (np.bincount(x[..., channel].ravel(), minlength=256) for x in (image, reference))
        present = theirs > 0  # elsewhere the reference's distribution is flat and has no inverse
        table = np.interp(ours.cumsum() / ours.sum(), (theirs.cumsum() / theirs.sum())[present], np.arange(256)[present])
        matched[..., channel] = np.uint8(table.round())[image[..., channel]]
    lab, target = to_lab(image), to_lab(matched)
    lab[..., 1:] += cv2.GaussianBlur(target[..., 1:] - lab[..., 1:], (0, 0), COLOR_REACH * image.shape[1])
    lab[..., 0] = target[..., 0]
    return from_lab(lab)


def to_lab(image):
    """A picture uint8 RGB [H, W, 3] in CIELAB, float32."""
    return cv2.cvtColor(np.float32(image) / 255, cv2.COLOR_RGB2LAB)


def from_lab(lab):
    """CIELAB float32 [H, W, 3], with colours that may be outside the gamut, as uint8 RGB."""
    return np.uint8(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255, 0, 255).round())


COLOR_MATCHES = {
    "none": lambda image, reference: image,
    "lab": match_lab,
    "histogram": match_histogram,
}


def color_match(image, reference, mode):
    """`image` in the tone of `reference` (uint8 [H, W, 3] both, sizes may differ); `mode` is a key of COLOR_MATCHES."""
    return COLOR_MATCHES[mode](image, reference)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_jpeg(path, image, quality=95):
    """Writes the picture uint8 [H, W, 3] as JPEG, colour at full resolution. Raises as `atomic_write` does."""
    _write(path, jpeg(image, quality))


def write_picture(path, image):
    """Writes the picture uint8 [H, W, 3] as PNG where its name ends so, else as JPEG."""
    (write_png if path.suffix == ".png" else write_jpeg)(path, image)


def jpeg(image, quality=95):
    """What `write_jpeg` writes, as bytes."""
    return encode(image, "JPEG", quality=quality, subsampling=0)


def write_png(path, image):
    """Writes a picture uint8 [H, W, 3], or a mask uint8 or uint16 [H, W], as PNG. Raises as `atomic_write` does."""
    _write(path, encode(image, "PNG"))


def encode(image, file_format, **options):
    """What a file of this format ("JPEG" or "PNG") has in it, as bytes. options: as in Pillow's `Image.save`."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, file_format, **options)
    return encoded.getvalue()


def _write(path, content):
    # Encoded before: into a file, Pillow writes past Python and does not see when a full disk has taken only a part.
    with atomic_write(path) as file:
        file.write(content)
