"""Pictures that come from outside: read as all others are, after their size is known to be reasonable."""

import io
import threading

import numpy as np
from PIL import Image

from datasets.landscape import MASK_FORMATS, PICTURE_FORMATS, BadFile, read_image, read_mask
from utils.web import Refused

MOST_BYTES = 16 * 2**20
MOST_PIXELS = 50_000_000  # decoded, a picture takes 3 bytes a pixel, and twice that while it is turned upright
one_at_a_time = threading.Lock()  # so that many at once take the memory of one


class Upload(io.BytesIO):
    """What was sent, as an open file. Its name is what messages call it."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def uploaded_photo(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB [H, W, 3] at `size` = (width, height), as `read_image` gives it. Raises Refused."""
    return _read(content, "the photo", PICTURE_FORMATS, lambda file: read_image(file, size))


def uploaded_mask(content: bytes, size: tuple[int, int]) -> np.ndarray:
    """Labels 0..28, uint8 [H, W], at `size`, as `read_mask` gives them. Raises Refused."""
    return _read(content, "the mask", MASK_FORMATS, lambda file: read_mask(file, size))


def _read(content, name, formats, read):
    file = Upload(content, name)
    with one_at_a_time:
        try:
            with Image.open(file, formats=formats) as image:  # which reads no more than the header
                pixels = image.width * image.height
        except Exception as error:  # whatever the damage provokes
            reason = f"{name} cannot be read: it is no sound {' or '.join(formats)} file"
            raise Refused(422, reason, "cannot be decoded") from error
        if pixels > MOST_PIXELS:
            reason = f"{name} has {pixels / 1e6:.0f} million pixels; at most {MOST_PIXELS / 1e6:.0f} million are taken"
            raise Refused(422, reason, "too many pixels")
        file.seek(0)
        try:
            return read(file)
        except BadFile as fault:
            raise Refused(422, str(fault), fault.fault) from fault
