"""Landscape data: pairs of photograph and mask to train on, pairs of mask and reference photograph to generate from.

Layout of the contest:
    <root>/train_resized/imgs/*.jpg     <root>/train_resized/labels/*.png     same stems
    <root>/val_A_labels_resized/*.png   <root>/label_to_img.json              {"<mask>.png": "<training picture>.jpg"}
A mask is a one-channel PNG whose pixel values are the labels 0..28, in 8 or 16 bits or as indices of a palette.
Sizes are given as (width, height), in pixels.
"""

import hashlib
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from utils.errors import UserError
from utils.files import atomic_write
from utils.image import resize, resize_mask

CLASSES = [
    *("mountain", "sky", "water", "sea", "rock", "tree", "earth", "hill", "river", "sand"),  # 0..9
    *("land", "building", "grass", "plant", "person", "boat", "waterfall", "wall", "pier", "path"),  # 10..19
    *("lake", "bridge", "field", "road", "railing", "fence", "ship", "house", "other"),  # 20..28
]
NUM_CLASSES = len(CLASSES)

PICTURES = (".jpg", ".jpeg", ".png")
MASKS = (".png",)
WORKERS = min(8, os.cpu_count() or 1)
LISTED = 20  # offenders a message names when the full report goes to a file


@dataclass(frozen=True)
class Pair:
    """A training example."""

    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class TestPair:
    """A picture to make: from `mask`, in the style of `reference`, to be called `<stem>.jpg`."""

    stem: str
    mask: Path
    reference: Path


class BadFile(UserError):
    """A file that cannot be used: `fault` is the kind of fault, `detail` what was found."""

    def __init__(self, path, fault, detail=""):
        self.path, self.fault, self.detail = Path(path), fault, f" ({detail})" if detail else ""
        super().__init__(f"{path}: {fault}{self.detail}")


# ---------------------------------------------------------------------------------------------------------------------
# Reading one file


def read_image(path, size=None):
    """Picture -> uint8 RGB [H, W, 3], turned upright by its EXIF orientation, stretched to `size` where given.

    Gray, palette, RGBA (transparency dropped) and CMYK pictures are converted. Raises BadFile (a UserError) when the
    file cannot be decoded whole or has more than 8 bits of gray.
    """
    image = np.array(_open_picture(path).convert("RGB"))
    return image if size is None else resize(image, size)


def read_mask(path, size=None):
    """Mask -> labels 0..28, uint8 [H, W], brought to `size` where given by the nearest pixel (centre-aligned).

    Raises BadFile (a UserError) when the file cannot be decoded whole, is no PNG, has more than one channel, or has
    labels over 28.
    """
    image = _decode(path)
    if image.format != "PNG":  # a JPEG under another name would have smeared labels
        raise BadFile(path, "not a mask", f"{image.format} file; a mask is a PNG")
    if image.mode not in ("1", "L", "P", "I;16", "I"):  # of 16 bits: I;16, from older Pillow I
        raise BadFile(path, "not a mask", f"{image.mode} picture; a mask has one channel")
    mask = np.array(image)  # of a palette image: the indices
    if mask.max() >= NUM_CLASSES:
        raise BadFile(path, f"label over {NUM_CLASSES - 1}", f"highest is {mask.max()}")
    mask = mask.astype(np.uint8)
    return mask if size is None else resize_mask(mask, size)


def _open_picture(path):
    """The picture, decoded and upright, in the mode it was saved in."""
    image = _decode(path)
    if image.mode.startswith(("I", "F")):
        raise BadFile(path, "not a photograph", f"{image.mode} picture; more than 8 bits of gray, as masks have")
    return ImageOps.exif_transpose(image)


def _decode(path):
    try:
        with Image.open(path) as image:
            image.load()  # opening reads the header only
            return image
    except UnidentifiedImageError as error:
        raise BadFile(path, "cannot be decoded", "not an image") from error
    except Exception as error:  # damage shows as OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise BadFile(path, "cannot be decoded", error) from error


# ---------------------------------------------------------------------------------------------------------------------
# Training pairs


def find_training_folder(root):
    """The folder with imgs/ and labels/: `<root>/train_resized`, `<root>/train`, or `root` itself.

    Raises UserError when none of them has both.
    """
    root = _existing_folder(root)
    candidates = [root / "train_resized", root / "train", root]
    for folder in candidates:
        if (folder / "imgs").is_dir() and (folder / "labels").is_dir():
            return folder
    looked_for = "".join(f"\n  {folder}/imgs and {folder}/labels" for folder in candidates)
    raise UserError(f"No training set in {root}. Looked for the folders{looked_for}")


def check_training_pairs(root, skip_bad=False, workers=WORKERS, report_path=None, cache=None):
    """Decodes every picture and mask of the training set once -> list of Pair, sorted by stem.

    root: as in find_training_folder. workers: threads.
    Faults are files that cannot be decoded, masks that are none or have labels over 28, a mask of another size than its
    picture, a picture or mask without the other, two files of one stem. Pictures that reading converts to RGB, and
    files that are neither picture nor mask, are only mentioned on stderr.

    skip_bad: leave the pairs with faults out and print the report on stderr, instead of raising it as UserError.
    report_path: the whole report is written here too, and the message names at most LISTED of the offenders.
    cache: a JSON file that remembers sound pairs by name, size and time of change, so that later runs start at once.
    Raises UserError also when there is no training set, a folder is empty or no pair is left.
    """
    folder = find_training_folder(root)
    images, bad_images, strange_images = _list(folder / "imgs", PICTURES)
    masks, bad_masks, strange_masks = _list(folder / "labels", MASKS)
    for found, suffixes, name in ((images, PICTURES, "imgs"), (masks, MASKS, "labels")):
        if not found:
            raise UserError(f"{folder / name} is empty: no file ends in {', '.join(suffixes)}.")
    bad = bad_images + bad_masks
    bad += [BadFile(images[stem], "no mask of this name") for stem in images.keys() - masks.keys()]
    bad += [BadFile(masks[stem], "no picture of this name") for stem in masks.keys() - images.keys()]
    pairs = [Pair(stem, images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    converted = []
    known = _read_cache(cache)

    def fingerprint_if_sound(pair):
        states = (pair.image.stat(), pair.mask.stat())
        fingerprint = " ".join([str(pair.image), *(f"{state.st_size} {state.st_mtime_ns}" for state in states)])
        if fingerprint in known:
            return fingerprint
        picture = _attempt(_open_picture, pair.image, bad)
        mask = _attempt(read_mask, pair.mask, bad)
        if picture is None or mask is None:
            return None
        if picture.size != mask.shape[::-1]:
            sizes = "picture {}x{}, mask {}x{}".format(*picture.size, *mask.shape[::-1])
            bad.append(BadFile(pair.image, "mask of another size", sizes))
            return None
        if picture.mode != "RGB":
            converted.append(f"{pair.image.name} {picture.mode}")
            return None  # not remembered, so that it is mentioned each time
        return fingerprint

    sound = set(_in_threads(fingerprint_if_sound, pairs, workers, "checking the training set")) - {None}
    if cache and sound != known:
        with atomic_write(cache) as file:
            file.write(json.dumps(sorted(sound), indent=0).encode())

    _mention("read as RGB", converted)
    _mention("neither picture nor mask, ignored", strange_images + strange_masks)
    if not bad:
        return pairs
    bad_stems = {fault.path.stem for fault in bad}
    kept = [pair for pair in pairs if pair.stem not in bad_stems]
    if not kept:
        end = "No sound pair is left to train on."
    elif skip_bad:
        end = f"Left out as asked; {len(kept)} pairs remain."
    else:
        end = f"Mend or remove these files, or train on the {len(kept)} sound pairs with --skip_bad."
    head = f"{folder}: {len(bad)} faults"
    message = _report(head, bad, end)
    if report_path:
        with atomic_write(report_path) as file:
            file.write(f"{message}\n".encode(errors="backslashreplace"))  # names may be no UTF-8
        if len(bad) > LISTED:
            message = _report(head, bad, f"The full list is in {report_path}.\n{end}", LISTED)
    if not (skip_bad and kept):
        raise UserError(message)
    print(message, file=sys.stderr)
    return kept


def split(pairs, val_fraction, seed):
    """Parts pairs (anything with a stem) into (train, val), each in the given order.

    Each pair goes where the hash of its stem and the seed sends it, so pictures added later move no other one; about
    `val_fraction` (0 <= fraction < 1) of them are for validation. Where it is over 0, both parts have at least one.
    Raises UserError when the fraction is out of range or there are too few pairs.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(f"The share of pairs for validation is {val_fraction}, but must be at least 0 and below 1.")
    if val_fraction == 0:
        return list(pairs), []
    if len(pairs) < 2:
        raise UserError(f"{len(pairs)} pair cannot be split into training and validation: at least 2 are needed.")

    def place(pair):  # uniform in 0..1
        digest = hashlib.sha256(f"{seed} {pair.stem}".encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    places = sorted(map(place, pairs))
    limit = min(max(val_fraction, places[1]), places[-1])  # the first place is always below, the last never
    return [pair for pair in pairs if place(pair) >= limit], [pair for pair in pairs if place(pair) < limit]


# ---------------------------------------------------------------------------------------------------------------------
# Test pairs


def find_test_pairs(input_path, img_path, pairs=None):
    """Masks with their reference pictures -> list of TestPair, sorted by stem; every file is decoded once.

    input_path: the folder of the masks, or the folder above it.
    img_path: the folder of the reference pictures, or the training root above it, in which they are found as
    train_resized/imgs, train/imgs or imgs.
    pairs: JSON file, a flat object {mask: reference}, names with or without extension and folder; only the masks it
    names are made. By default `label_to_img.json` (or the only .json file) in or beside the folder of the masks, which
    must name every mask.

    Raises UserError when a folder or the JSON is not found, is ambiguous or malformed, and with one report of all files
    that are named and missing, masks that are not named, and files that cannot be used.
    """
    labels = _labels_folder(input_path)
    imgs = _imgs_folder(img_path)
    listing = Path(pairs) if pairs else _find_listing(labels)
    masks, bad, _ = _list(labels, MASKS)
    references = {}
    for path in _files(imgs, PICTURES):
        references.setdefault(path.stem, path)
        references[path.name] = path

    found = {}
    for mask_name, reference_name in _read_listing(listing):
        mask_name, reference_name = _without_folder(mask_name), _without_folder(reference_name)
        stem = _stem(mask_name)
        mask = masks.get(stem)
        reference = references.get(reference_name) or references.get(_stem(reference_name))
        if mask is None:
            bad.append(BadFile(labels / mask_name, "named in the JSON, but there is no such mask"))
        if reference is None:
            bad.append(BadFile(imgs / reference_name, "named in the JSON, but there is no such picture"))
        if stem in found and found[stem].reference != reference:
            bad.append(BadFile(labels / mask_name, "named twice in the JSON"))
        found[stem] = TestPair(stem, mask, reference)
    if pairs is None:
        bad += [BadFile(masks[stem], "not named in the JSON") for stem in masks.keys() - found.keys()]

    readers = {pair.mask: read_mask for pair in found.values() if pair.mask}
    readers |= {pair.reference: _open_picture for pair in found.values() if pair.reference}
    _in_threads(lambda path: _attempt(readers[path], path, bad), readers, WORKERS, "checking masks and references")
    if bad:
        raise UserError(_report(f"{labels} with {listing}: {len(bad)} faults", bad, "Nothing was generated."))
    return [found[stem] for stem in sorted(found)]


def find_photos(img_path):
    """All pictures in the folder of references, sorted; it is found as in find_test_pairs."""
    return _files(_imgs_folder(img_path), PICTURES)


def check_results(pairs, folder, size=None):
    """Raises UserError naming every picture `folder`/<stem>.jpg of the pairs that is missing, damaged, or not of `size` where given."""
    bad = []

    def check(pair):
        path = Path(folder) / f"{pair.stem}.jpg"
        picture = _attempt(_open_picture, path, bad) if path.is_file() else bad.append(BadFile(path, "missing"))
        if picture is not None and size is not None and picture.size != size:
            bad.append(BadFile(path, "another size than {}x{}".format(*size), "{}x{}".format(*picture.size)))

    _in_threads(check, pairs, WORKERS, "checking the pictures")
    if bad:
        raise UserError(_report(f"{folder}: {len(bad)} faults", bad, "Nothing was scored."))


def _labels_folder(input_path):
    """The one folder with masks among `input_path` and those directly below it."""
    root = _existing_folder(input_path)
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    candidates = [folder for folder in [root, *below] if any(_files(folder, MASKS))]
    if not candidates:
        raise UserError(f"No masks (.png) in {root} or in a folder directly below it.")
    if len(candidates) > 1:  # beside other pictures, the folder of the masks is known by its name
        candidates = [folder for folder in candidates if "label" in folder.name.lower()] or candidates
    if len(candidates) > 1:
        several = ", ".join(map(str, candidates))
        raise UserError(f"Several folders may hold the masks: {several}. Give one of them as --input_path.")
    return candidates[0]


def _imgs_folder(img_path):
    root = _existing_folder(img_path)
    candidates = [root / "train_resized" / "imgs", root / "train" / "imgs", root / "imgs", root]
    for folder in candidates:
        if any(_files(folder, PICTURES)):
            return folder
    raise UserError(f"No reference pictures ({', '.join(PICTURES)}) in any of {', '.join(map(str, candidates))}.")


def _find_listing(labels):
    places = (labels, labels.parent)
    for folder in places:
        if (folder / "label_to_img.json").is_file():
            return folder / "label_to_img.json"
    others = [path for folder in places for path in _files(folder, (".json",))]
    if len(others) == 1:
        return others[0]
    if others:
        several = ", ".join(map(str, others))
        raise UserError(f"No label_to_img.json in {places[0]} or {places[1]}, but {several}. Give one as --pairs.")
    raise UserError(
        f"No label_to_img.json in {places[0]} or {places[1]}. It names the reference picture of each mask: "
        '{"mask.png": "picture.jpg", ...}. Put it there or give it as --pairs.'
    )


def _read_listing(path):
    """The (mask, reference) names of the JSON file, at least one."""
    try:
        # An object becomes a tuple of its items (an array a list), which keeps what is named twice.
        items = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=tuple)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # of JSON and of UTF-8
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(items, tuple) or not all(isinstance(value, str) for _, value in items):
        raise UserError(f'{path} must be a flat object of names: {{"mask.png": "picture.jpg", ...}}.')
    if not items:
        raise UserError(f"{path} names no mask.")
    return items


# ---------------------------------------------------------------------------------------------------------------------
# Folders, names, reports


def _existing_folder(path):
    folder = Path(os.path.abspath(os.path.expanduser(path)))  # so that "." has a name and a parent
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder." if folder.exists() else f"The folder {folder} does not exist.")
    return folder


def _files(folder, suffixes):
    """Its visible files with one of these suffixes in any case, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _has_suffix(path, suffixes) and path.is_file())


def _has_suffix(path, suffixes):
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _list(folder, suffixes):
    """-> files by stem, faults of files whose stem is taken, names of what else lies there (hidden files aside)."""
    by_stem, taken = {}, []
    files = _files(folder, suffixes)
    for path in files:
        if by_stem.setdefault(path.stem, path) != path:
            taken.append(BadFile(path, "second file of this name", f"beside {by_stem[path.stem].name}"))
    others = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {path.name for path in files}
    return by_stem, taken, [f"{folder.name}/{name}" for name in others]


def _without_folder(name):
    return re.split(r"[/\\]", name)[-1]


def _stem(name):
    """File name of a JSON entry without its extension, where it has one (a stem may have dots itself)."""
    return re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)


def _attempt(read, path, bad):
    """read(path), or None with the fault added to the list `bad`."""
    try:
        return read(path)
    except BadFile as fault:
        bad.append(fault)
        return None


def _in_threads(function, items, workers, description):
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(function, items)
        return list(tqdm(results, description, len(items), unit="file", disable=None))  # no bar in a log file


def _read_cache(path):
    """The fingerprints in the cache; none where there is no cache or it is damaged."""
    try:
        return set(json.loads(Path(path).read_text("utf-8"))) if path else set()
    except (OSError, ValueError, TypeError):
        return set()


def _mention(what, names):
    if names:
        shown = ", ".join(sorted(names)[:LISTED]) + (", ..." if len(names) > LISTED else "")
        print(f"{len(names)} {what}: {shown}", file=sys.stderr)


def _report(head, bad, end, limit=None):
    """The faults grouped by kind between two sentences; with a limit, each kind gets its share of so many lines."""
    kinds = {}
    for fault in sorted(bad, key=lambda fault: (fault.fault, fault.path)):
        kinds.setdefault(fault.fault, []).append(f"  {fault.path.parent.name}/{fault.path.name}{fault.detail}")
    share = max(1, limit // len(kinds)) if limit else None
    lines = [f"{head}."]
    for kind, files in kinds.items():
        lines += [f"{kind}: {len(files)}", *files[:share]]
        if share and len(files) > share:
            lines.append("  ...")
    return "\n".join([*lines, end])
