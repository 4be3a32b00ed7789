"""From pairs of mask and reference to files: what is the same for every painter.

A painter is a class with

    Options                                   a dataclass of its options, with `faults()`; shown by MainTest.py
    marker                                    a network: a run can be painted with once it has that
    color_match                               the key of COLOR_MATCHES that its pictures are given where none is asked for
    find_pairs(input_path, img_path, pairs, prompt="", prompts="")   what is to be painted, a list of TestPair
    load(run, weights)                        the painter, from a run's networks or its best ones
    size                                      (width, height) of the masks and references it takes
    paint(masks, references, captions, seeds, options)   pictures uint8 [B, H, W, 3]
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from datasets.landscape import read_image, read_mask
from datasets.pairs import Pair
from datasets.test_pairs import TestPair, check_results
from utils.checkpoint import write_json
from utils.errors import UserError
from utils.files import atomic_write, remove_leftovers
from utils.image import color_match, colorize_mask, resize

SIZE = (512, 384)  # of the competition's results: width, height


def picture_seed(seed: int, stem: str, candidate: int) -> int:
    """A picture's own seed, from the run's and the file's name: it does not depend on which other pictures are made."""
    return seed << 32 | zlib.crc32(stem.encode(errors="surrogateescape") + (b" %d" % candidate if candidate else b""))


def words_of(options: object) -> dict[str, str]:
    """What a painter's options say in words, by the names under which `find_test_pairs` takes it; painters that know none have no such."""
    return {name: getattr(options, name) for name in ("prompt", "prompts") if hasattr(options, name)}


def usual_color(painter, options: object) -> str:
    """The key of COLOR_MATCHES where none is asked for: the painter's; "none" where words say what light and season it is, which a match
    would take back, or where no reference is told."""
    spoken = any(words_of(options).values()) or "reference" not in getattr(options, "told", ("reference",))
    return "none" if spoken else painter.color_match


def painted(
    painter, pairs: list[TestPair], options: object, seed: int, candidate: int, color: str, resized: Callable[..., np.ndarray] = resize
) -> np.ndarray:
    """A picture for each pair, uint8 [B, 384, 512, 3], in the colours that a key of COLOR_MATCHES gives it; of words alone, [B, H, W, 3].

    Each candidate, counted from 0, has seeds of its own. resized(picture, SIZE) brings what is painted in another size to that.
    """
    masks = read_all(read_mask, [pair.mask for pair in pairs], painter.size)
    references = read_all(read_image, [pair.reference for pair in pairs], painter.size)
    seeds = [picture_seed(seed, pair.stem, candidate) for pair in pairs]
    return finished(painter.paint(masks, references, [pair.caption for pair in pairs], seeds, options), references, color, resized)


def read_all(read: Callable, paths: list[Path | None], size: tuple[int, int]) -> np.ndarray | None:
    """What the files hold, [B, …]; None where there are none."""
    return None if None in paths else np.stack([read(path, size) for path in paths])


def finished(pictures: np.ndarray, references: np.ndarray | None, color: str, resized: Callable[..., np.ndarray] = resize) -> np.ndarray:
    """What a painter has painted as it is written: at SIZE, in the colours that a key of COLOR_MATCHES gives it from its reference.
    Without references they stay as they are."""
    if references is None:
        return pictures
    # Colours come last: the score compares the histogram of the written picture, which resizing and super-resolution change a little, and
    # super-resolution has learnt from photos, not from pictures whose contrast a match has stretched, grain and all.
    return np.stack([color_match(resized(a, SIZE), b, color) for a, b in zip(pictures, references, strict=True)])


def preview_rows(painter, pairs: list[Pair], options: object) -> list[list[np.ndarray]]:
    """What a painter makes of training pairs, for a preview: rows of mask, reference, result and photo, uint8 [H, W, 3]. The reference of a
    picture is the next one's photo; its caption is its own."""
    masks = np.stack([read_mask(pair.mask, painter.size) for pair in pairs])
    photos = np.stack([read_image(pair.image, painter.size) for pair in pairs])
    references = np.roll(photos, -1, axis=0)
    results = painter.paint(masks, references, captions_of(pairs), list(range(len(pairs))), options)
    return [list(row) for row in zip(colorize_mask(masks), references, results, photos, strict=True)]


def described_rows(painter, pairs: list[Pair], options: object) -> list[list[np.ndarray]]:
    """The same of words alone: rows of result and photo."""
    photos = np.stack([read_image(pair.image, painter.size) for pair in pairs])
    results = painter.paint(None, None, captions_of(pairs), list(range(len(pairs))), options)
    return [list(row) for row in zip(results, photos, strict=True)]


def captions_of(pairs: list[Pair]) -> list[str]:
    """The one that stands for all of a pair's: the first, or the empty one where there is none."""
    return [pair.captions[0] if pair.captions else "" for pair in pairs]


def kept(pairs: list[TestPair], folder: Path) -> list[TestPair]:
    """The pairs whose picture is in the folder already. What killed processes have left half-written is removed.

    Raises UserError naming all that are empty, damaged or not of their size: such a file is not of painting, and nobody says that it may be
    lost.
    """
    for written in {folder, *((folder / pair.file).parent for pair in pairs)}:  # pictures of styles stand a folder further down
        remove_leftovers(written, "*")
    there = [pair for pair in pairs if (folder / pair.file).is_file()]
    end = "Nothing was painted: remove these files, or paint all anew with --overwrite."
    check_results(there, folder, size_of(pairs), end=end)
    return there


def note_seeds(pairs: list[TestPair], folder: Path, seed: int) -> None:
    """Writes seeds.json into the folder, where the pictures are of styles: the command's seed, and the own one of each of the pairs, which
    are to be painted. Other pictures keep the one that they were painted with."""
    if any(pair.ending == ".png" for pair in pairs):
        path, before = folder / "seeds.json", {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
            before = dict(json.loads(path.read_bytes())["pictures"])
        write_json(path, {"seed": seed, "pictures": before | {pair.file: picture_seed(seed, pair.stem, 0) for pair in pairs}})


def size_of(pairs: list[TestPair]) -> tuple[int, int] | None:
    """That of the results, SIZE; None, any, where words alone say what is painted."""
    return SIZE if all(pair.mask for pair in pairs) else None


def is_utf8(name: str) -> bool:
    return name == name.encode(errors="ignore").decode()


def pack(pairs: list[TestPair], folder: Path) -> Path:
    """Zips the pictures, flat, as the competition wants them, into <folder>.zip beside their folder; returns its path. The same pictures
    give the same bytes, whenever they were painted.

    Raises UserError naming all that are missing, damaged or not of their size, or whose names no zip can hold.
    """
    check_results(pairs, folder, size_of(pairs), end="Nothing was packed.")
    if strange := [pair.file for pair in pairs if not is_utf8(pair.file)]:
        raise UserError(f"{len(strange)} pictures have names that are not UTF-8 ({strange[0]}). Nothing was packed: rename their masks.")
    path = folder.with_name(folder.name + ".zip")
    remove_leftovers(path.parent, path.name)
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for pair in pairs:
            entry = zipfile.ZipInfo(pair.file)  # of 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (folder / pair.file).read_bytes())
    return path
