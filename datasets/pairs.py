"""Training pairs: a photo and its mask under the same stem, found, checked, and split into training and validation.

    <root>/train_resized/imgs/*.jpg         photos
    <root>/train_resized/labels/*.png       their masks
    <root>/train_resized/captions.json      what the photos show, where there is such a file (datasets/captions.py)

`train`, or the root itself, may stand for `train_resized`.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.captions import CAPTIONS, find_captions
from datasets.checks import LISTED, WORKERS, attempt, existing_folder, files_by_stem, files_in, in_threads, mention, report
from datasets.landscape import MASKS, PICTURES, BadFile, open_picture, read_mask
from datasets.leave_out import read_leave_out
from utils.errors import UserError
from utils.files import atomic_write


@dataclass(frozen=True)
class Pair:
    """A training example."""

    stem: str
    image: Path
    mask: Path | None  # None in a set of photos and captions alone (datasets/text_pairs.py)
    captions: tuple[str, ...] = ()  # each says what the whole picture shows


def find_training_folder(root):
    """The folder with imgs/ and labels/: `<root>/train_resized`, `<root>/train`, or `root` itself.

    Raises UserError when none of them has both.
    """
    root = existing_folder(root)
    candidates = [root / "train_resized", root / "train", root]
    for folder in candidates:
        if (folder / "imgs").is_dir() and (folder / "labels").is_dir():
            return folder
    looked_for = "".join(f"\n  {folder}/imgs and {folder}/labels" for folder in candidates)
    raise UserError(f"No training set in {root}. Looked for the folders{looked_for}")


def check_training_pairs(root, skip_bad=False, workers=WORKERS, report_path=None, cache=None, leave_out=None):
    """Decodes every picture and mask of the training set once -> list of Pair, sorted by stem, with their captions where there are any.

    skip_bad: leave the pairs with faults out and print the report on stderr, instead of raising it as UserError.
    report_path: the whole report is written here too, and the message names at most LISTED of the offenders.
    The rest is as in `examine_training_pairs`. Raises UserError also when no pair is left.
    """
    folder, pairs, bad = examine_training_pairs(root, workers, cache, leave_out)
    photos = {path.stem: path for path in files_in(folder / "imgs", PICTURES)}  # those left out may have captions too, whatever these say
    left_out = {photos[stem] for stem in photos.keys() - {pair.stem for pair in pairs} - {fault.path.stem for fault in bad}}
    faults = []
    captions = find_captions((folder, folder / "imgs"), photos, faults)
    bad += [fault for fault in faults if fault.path not in left_out]
    pairs = [replace(pair, captions=captions.get(pair.stem, ())) for pair in pairs]
    return without_bad(bad, pairs, folder, skip_bad, report_path)


def examine_training_pairs(root, workers=WORKERS, cache=None, leave_out=None):
    """Decodes every picture and mask of the training set once -> its folder, list of Pair sorted by stem, list of BadFile.

    root: as in find_training_folder. workers: threads.
    Faults are files that cannot be decoded, masks that are none or have labels over 28, a mask of another size than its
    picture, a picture or mask without the other, two files of one stem. Pictures that reading converts to RGB, and
    files that are neither picture nor mask, are only mentioned on stderr.

    cache: a JSON file that remembers sound pairs by name, size and time of change, so that later runs start at once.
    leave_out: the path of a list of pictures that are not looked at and come nowhere (datasets/leave_out.py).
    Raises UserError when there is no training set, a folder is empty, or the list is at fault.
    """
    folder = find_training_folder(root)
    images, bad_images, strange_images = files_by_stem(folder / "imgs", PICTURES)
    masks, bad_masks, strange_masks = files_by_stem(folder / "labels", MASKS)
    for found, suffixes, name in ((images, PICTURES, "imgs"), (masks, MASKS, "labels")):
        if not found:
            raise UserError(f"{folder / name} is empty: no file ends in {', '.join(suffixes)}.")
    if leave_out is not None:
        left_out = read_leave_out(leave_out, images.keys() | masks.keys())
        images, masks = ({stem: path for stem, path in found.items() if stem not in left_out} for found in (images, masks))
        print(f"{len(left_out)} pictures are left out, as {leave_out} says.")
    bad = [fault for fault in bad_images + bad_masks if fault.path.stem in images.keys() | masks.keys()]
    bad += [BadFile(images[stem], "no mask of this name") for stem in images.keys() - masks.keys()]
    bad += [BadFile(masks[stem], "no picture of this name") for stem in masks.keys() - images.keys()]
    pairs = [Pair(stem, images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    decode_all(pairs, bad, workers, cache)
    strange = {*strange_images, *strange_masks} - {f"imgs/{CAPTIONS}"}
    mention("neither picture nor mask, ignored", strange)
    return folder, pairs, bad


def decode_all(pairs, bad, workers, cache):
    """Decodes every picture and mask of the pairs that the cache does not remember; adds a BadFile to the list `bad` for each fault."""
    converted = []
    known = _read_cache(cache)

    def fingerprint_if_sound(pair):
        states = [path.stat() for path in (pair.image, pair.mask) if path is not None]
        fingerprint = " ".join([str(pair.image), *(f"{state.st_size} {state.st_mtime_ns}" for state in states)])
        if fingerprint in known:
            return fingerprint
        picture = attempt(open_picture, pair.image, bad)
        mask = attempt(read_mask, pair.mask, bad) if pair.mask is not None else None
        if picture is None or (mask is None and pair.mask is not None):
            return None
        if mask is not None and picture.size != mask.shape[::-1]:
            sizes = "picture {}x{}, mask {}x{}".format(*picture.size, *mask.shape[::-1])
            bad.append(BadFile(pair.image, "mask of another size", sizes))
            return None
        if picture.mode != "RGB":
            converted.append(f"{pair.image.name} {picture.mode}")
            return None  # not remembered, so that it is mentioned each time
        return fingerprint

    sound = set(in_threads(fingerprint_if_sound, pairs, workers, "checking the training set")) - {None}
    if cache and sound != known:
        with atomic_write(cache) as file:
            file.write(json.dumps(sorted(sound), indent=0).encode())
    mention("read as RGB", converted)


def without_bad(bad, pairs, folder, skip_bad, report_path):
    """The pairs without those of the bad files, with a report on stderr; raises the report as UserError unless `skip_bad`. Where none is
    bad, an earlier report goes."""
    if not bad:
        if report_path:
            Path(report_path).unlink(missing_ok=True)
        return pairs
    folders = {path.parent for pair in pairs for path in (pair.image, pair.mask) if path is not None}
    bad_stems = {fault.path.stem for fault in bad if fault.path.parent in folders}  # others are names in a file of captions
    kept = [pair for pair in pairs if pair.stem not in bad_stems]
    if not kept:
        end = "No sound pair is left to train on."
    elif skip_bad:
        end = f"Left out as asked; {len(kept)} pairs remain."
    else:
        end = f"Mend or remove these files, or train on the {len(kept)} sound pairs with --skip_bad."
    head = f"{folder}: {len(bad)} faults"
    message = report(head, bad, end)
    if report_path:
        with atomic_write(report_path) as file:
            file.write(f"{message}\n".encode(errors="backslashreplace"))  # names may be no UTF-8
        if len(bad) > LISTED:
            message = report(head, bad, f"The full list is in {report_path}.\n{end}", LISTED)
    if not (skip_bad and kept):
        raise UserError(message)
    print(message, file=sys.stderr)
    return kept


def _read_cache(path):
    """The fingerprints in the cache; none where there is no cache or it is damaged."""
    try:
        return set(json.loads(Path(path).read_text("utf-8"))) if path else set()
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


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

    places = [place(pair, seed) for pair in pairs]
    limit = min(max(val_fraction, sorted(places)[1]), max(places))  # the first place is always below, the last never
    return divided(pairs, places, limit)


def split_off(pairs, count, seed):
    """The same with `count` pairs for validation: those that the smallest fraction which takes so many would take.

    Raises UserError when that leaves none to train on, or is none.
    """
    if not 0 < count < len(pairs):
        raise UserError(f"{count} of {len(pairs)} pairs cannot be held out for validation: give 1 to {len(pairs) - 1}.")
    places = [place(pair, seed) for pair in pairs]
    return divided(pairs, places, sorted(places)[count])


def divided(pairs, places, limit):
    """The pairs whose place is at the limit or above, and those below."""
    placed = list(zip(pairs, places, strict=True))
    return [pair for pair, at in placed if at >= limit], [pair for pair, at in placed if at < limit]


def place(pair, seed):
    """Where chance puts a pair, uniform in 0..1: it follows from the seed and the stem alone."""
    digest = hashlib.sha256(f"{seed} {pair.stem}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
