"""Pictures and masks of noise, sound and damaged, for the tests of what reads them."""

import numpy as np
from PIL import Image

SIZE = (64, 48)


def save_picture(path, mode="RGB", size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def labels(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 29, (size[1], size[0]), np.uint8)


def save_mask(path, array=None, depth=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((labels() if array is None else array).astype(depth)).save(path)
    return path


def truncate(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def damage_exif(path):
    """Puts a photo in the place of `path` whose EXIF says "turn me" and has a tag that Pillow cannot write again."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    Image.new("RGB", SIZE).save(path, exif=exif.tobytes().replace(b"\x01\x0f", b"\x01\x00", 1))  # a width made of text


def save_postscript(path):
    """A PostScript program of the form that Pillow would hand to Ghostscript, under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n{} loop\n")
    return path


def stems(pairs):
    return [pair.stem for pair in pairs]


def assert_reported(report, expected):
    lines = report.splitlines()
    for kind, offenders in expected.items():
        start = lines.index(kind) + 1
        for line, offender in zip(lines[start:], offenders, strict=False):
            assert line.startswith(offender)
