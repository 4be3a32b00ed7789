"""Test pairs: a mask to paint and the photo whose style it is painted in; and the check of the pictures that were painted.

    <root>/val_A_labels_resized/*.png       masks
    <root>/label_to_img.json                {"<mask>.png": "<training picture>.jpg"}

The photos are those of the training set, or any folder of pictures.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.captions import read_prompts
from datasets.checks import WORKERS, attempt, existing_folder, files_by_stem, files_in, in_threads, report
from datasets.landscape import MASKS, PICTURES, BadFile, open_picture, read_mask
from datasets.leave_out import without_ending
from utils.errors import UserError


@dataclass(frozen=True)
class TestPair:
    """A picture to make: from `mask`, in the style of `reference`, showing what `caption` says, to be called `file`."""

    stem: str
    mask: Path | None  # None, both, where words alone say what to paint (datasets/text_pairs.py)
    reference: Path | None
    caption: str = ""
    ending: str = ".jpg"

    @property
    def file(self):
        return f"{self.stem}{self.ending}"


def find_test_pairs(input_path, img_path, pairs=None, output=None, truths=None, prompt="", prompts=""):
    """Masks with their reference pictures -> list of TestPair, sorted by stem; every file is decoded once.

    input_path: the folder of the masks, or the folder above it.
    img_path: the folder of the reference pictures, or the training root above it, in which they are found as
    train_resized/imgs, train/imgs or imgs.
    pairs: JSON file, a flat object {mask: reference}, names with or without extension and folder; only the masks it
    names are made. By default `label_to_img.json` (or the only .json file) in or beside the folder of the masks, which
    must name every mask.
    prompt: the caption of all pictures. prompts: JSON file of a caption for each (datasets/captions.py).
    output: where the pictures are to go, which must not be the folder of what they are made from, nor that of the true photos, `truths`.

    Raises UserError when a folder or the JSON is not found, is ambiguous or malformed, and with one report of all files
    that are named and missing, masks that are not named, and files that cannot be used.
    """
    labels = _labels_folder(input_path)
    imgs = _imgs_folder(img_path)
    if output is not None and Path(output).resolve() in [Path(folder).resolve() for folder in (labels, imgs, truths) if folder]:
        raise UserError(f"--output_path {output} is a folder of masks or photos, which pictures must not replace: give another.")
    listing = Path(pairs) if pairs else _find_listing(labels)
    masks, bad, _ = files_by_stem(labels, MASKS)
    references = {}
    for path in files_in(imgs, PICTURES):
        references.setdefault(path.stem, path)
        references[path.name] = path

    found = {}
    for mask_name, reference_name in _read_listing(listing):
        mask_name, reference_name = _without_folder(mask_name), _without_folder(reference_name)
        stem = without_ending(mask_name)
        mask = masks.get(stem)
        reference = references.get(reference_name) or references.get(without_ending(reference_name))
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
    readers |= {pair.reference: open_picture for pair in found.values() if pair.reference}
    in_threads(lambda path: attempt(readers[path], path, bad), readers, WORKERS, "checking masks and references")
    if bad:
        raise UserError(report(f"{labels} with {listing}: {len(bad)} faults", bad, "Nothing was generated."))
    captions = read_prompts(prompts, found) if prompts else dict.fromkeys(found, prompt)
    return [replace(found[stem], caption=captions[stem]) for stem in sorted(found)]


def find_photos(img_path):
    """All pictures in the folder of references, sorted; it is found as in find_test_pairs."""
    return files_in(_imgs_folder(img_path), PICTURES)


def check_results(pairs, folder, size=None, end="Nothing was scored."):
    """Raises UserError naming every picture of the pairs in `folder` that is missing, damaged, or not of `size` where given.

    end: the report's last sentence.
    """
    bad = []

    def check(pair):
        path = Path(folder) / pair.file
        picture = attempt(open_picture, path, bad) if path.is_file() else bad.append(BadFile(path, "missing"))
        if picture is not None and size is not None and picture.size != size:
            bad.append(BadFile(path, "another size than {}x{}".format(*size), "{}x{}".format(*picture.size)))

    in_threads(check, pairs, WORKERS, "checking the pictures")
    if bad:
        raise UserError(report(f"{folder}: {len(bad)} faults", bad, end))


def _labels_folder(input_path):
    """The one folder with masks among `input_path` and those directly below it."""
    root = existing_folder(input_path)
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    candidates = [folder for folder in [root, *below] if any(files_in(folder, MASKS))]
    if not candidates:
        raise UserError(f"No masks (.png) in {root} or in a folder directly below it.")
    if len(candidates) > 1:  # beside other pictures, the folder of the masks is known by its name
        candidates = [folder for folder in candidates if "label" in folder.name.lower()] or candidates
    if len(candidates) > 1:
        several = ", ".join(map(str, candidates))
        raise UserError(f"Several folders may hold the masks: {several}. Give one of them as --input_path.")
    return candidates[0]


def _imgs_folder(img_path):
    root = existing_folder(img_path)
    candidates = [root / "train_resized" / "imgs", root / "train" / "imgs", root / "imgs", root, root / "train"]
    for folder in candidates:
        if any(files_in(folder, PICTURES)):
            return folder
    raise UserError(f"No reference pictures ({', '.join(PICTURES)}) in any of {', '.join(map(str, candidates))}.")


def _find_listing(labels):
    places = (labels, labels.parent)
    for folder in places:
        if (folder / "label_to_img.json").is_file():
            return folder / "label_to_img.json"
    others = [path for folder in places for path in files_in(folder, (".json",))]
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
        # Names may be no UTF-8.
        items = json.loads(path.read_bytes().decode("utf-8-sig", errors="surrogateescape"), object_pairs_hook=tuple)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(items, tuple) or not all(isinstance(value, str) for _, value in items):
        raise UserError(f'{path} must be a flat object of names: {{"mask.png": "picture.jpg", ...}}.')
    if not items:
        raise UserError(f"{path} names no mask.")
    return items


def _without_folder(name):
    return re.split(r"[/\\]", name)[-1]
