"""Landscape data: the classes of a mask, and how one picture or one mask is read.

A mask is a one-channel PNG whose pixel values are the labels 0..28, in 1 to 16 bits or as indices of a palette.
Files are given as paths, or open for reading, with a `name` to call them by. Sizes are given as (width, height), in pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.errors import UserError
from utils.image import resize, resize_mask

CLASSES = [
    *("mountain", "sky", "water", "sea", "rock", "tree", "earth", "hill", "river", "sand"),  # 0..9
    *("land", "building", "grass", "plant", "person", "boat", "waterfall", "wall", "pier", "path"),  # 10..19
    *("lake", "bridge", "field", "road", "railing", "fence", "ship", "house", "other"),  # 20..28
]
CHINESE = [  # the same classes
    *("山", "天空", "水", "海", "岩石", "树", "泥土", "丘陵", "河流", "沙"),
    *("陆地", "建筑", "草地", "植物", "人", "小船", "瀑布", "墙", "码头", "小径"),
    *("湖", "桥", "田野", "道路", "栏杆", "篱笆", "轮船", "房屋", "其他"),
]
NUM_CLASSES = len(CLASSES)

PICTURES = (".jpg", ".jpeg", ".png")
MASKS = (".png",)

# Formats by content, whatever the name says. Photos from the web that are called .jpg are sometimes WEBP, GIF or BMP. No other format is
# tried: Pillow would hand a PostScript file to Ghostscript, which runs it as a program. A mask in a lossy format would have smeared labels.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MASK_FORMATS = ("PNG",)
SPREAD = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey of 2 and of 4 bits by this, so that the highest value is white


class BadFile(UserError):
    """A file, named or open, that cannot be used: `fault` is the kind of fault, `detail` what was found."""

    def __init__(self, path, fault, detail=""):
        self.path = Path(path if isinstance(path, str | Path) else path.name)
        self.fault, self.detail = fault, f" ({detail})" if detail else ""
        super().__init__(f"{self.path}: {fault}{self.detail}")


def read_image(path, size=None):
    """Picture -> uint8 RGB [H, W, 3], turned upright by its EXIF orientation, stretched to `size` where given.

    Gray, palette, RGBA (transparency dropped) and CMYK pictures are converted; of an animation the first picture is taken.
    Raises BadFile (a UserError) when the file is of none of PICTURE_FORMATS, cannot be decoded whole, has an EXIF by which
    it cannot be turned, or has more than 8 bits of gray.
    """
    image = np.array(open_picture(path).convert("RGB"))
    return image if size is None else resize(image, size)


def read_mask(path, size=None):
    """Mask -> labels 0..28, uint8 [H, W], brought to `size` where given by the nearest pixel (centre-aligned).

    Raises BadFile (a UserError) when the file cannot be decoded whole, is no PNG, has more than one channel, or has
    labels over 28.
    """
    image, packing = _decode(path, MASK_FORMATS)
    if image.mode not in ("1", "L", "P", "I;16", "I"):  # of 16 bits: I;16, from older Pillow I
        raise BadFile(path, "not a mask", f"{image.mode} picture; a mask has one channel")
    mask = np.array(image) // SPREAD.get(packing, 1)  # of a palette image: the indices
    if mask.max() >= NUM_CLASSES:
        raise BadFile(path, f"label over {NUM_CLASSES - 1}", f"highest is {mask.max()}")
    mask = mask.astype(np.uint8)
    return mask if size is None else resize_mask(mask, size)


def open_picture(path):
    """The picture as Pillow's Image, decoded and upright, in the mode it was saved in. Raises BadFile as `read_image` does."""
    image, _ = _decode(path, PICTURE_FORMATS)
    if image.mode.startswith(("I", "F")):
        raise BadFile(path, "not a photograph", f"{image.mode} picture; more than 8 bits of gray, as masks have")
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # damage shows as SyntaxError, struct.error, TypeError, AttributeError ...
        raise BadFile(path, "cannot be decoded", f"EXIF: {error}") from error


def _decode(path, formats):
    """The file as Pillow's Image, read to its end, and how its pixels were packed, by Pillow's name: the Image no longer says so.

    Raises BadFile when it is of none of the formats, or damaged.
    """
    try:
        with Image.open(path, formats=formats) as image:
            packing = image.tile[0][3] if image.tile else None
            image.load()  # opening reads the header only
            return image, packing
    except UnidentifiedImageError as error:
        raise BadFile(path, "cannot be decoded", f"not a {' or '.join(formats)} file") from error
    except Exception as error:  # damage shows as OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise BadFile(path, "cannot be decoded", error) from error
