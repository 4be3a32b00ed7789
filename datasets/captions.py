"""Captions: what photos show, in words, to train on; and prompts, what is to be painted.

    captions.json      {"<photo>": "…" or ["…", …], …}      beside the photos' folder imgs/, or in it
    a file of prompts  {"<mask>": "…", …}                   for `MainTest.py --prompts`

Names may be with or without extension. A photo needs no caption; a mask that is painted with a file of prompts needs one.
"""

import json
from pathlib import Path

from datasets.checks import report
from datasets.landscape import BadFile
from datasets.leave_out import without_ending
from utils.errors import UserError

CAPTIONS = "captions.json"
LONGEST = 2000  # characters of a caption; text encoders read some 77 tokens, so that one of many more is a mistake


def find_captions(folders, photos, bad):
    """The captions in the first of the folders that has a captions.json -> {stem: tuple of captions}; {} where none has.

    photos: {stem: path} of all there are. Every fault is added to the list `bad` as a BadFile: names without a photo or named twice,
    captions that are no text, empty or too long, a file that is not JSON, a second captions.json. A fault of an entry is that of its photo.
    """
    path, *others = [folder / CAPTIONS for folder in folders if (folder / CAPTIONS).exists()] or [None]
    if path is None:
        return {}
    bad += [BadFile(other, "second captions.json", f"beside {path}") for other in others]
    captions = {}
    for name, value in read_items(path, bad):
        stem = name if name in photos else without_ending(name)
        place = photos.get(stem, path / name)
        if stem not in photos:
            bad.append(BadFile(place, f"named in {CAPTIONS}, but there is no such picture"))
        elif stem in captions:
            bad.append(BadFile(place, f"named twice in {CAPTIONS}"))
        captions[stem] = tuple(texts(place, value, bad))
    return captions


def read_prompts(path, stems):
    """The prompts of a file, {stem: prompt}, for masks of these stems, each of which must be named.

    Raises UserError with one report of all faults: a name without a mask or named twice, a mask without a prompt, a prompt that is no text,
    empty or too long, a file that is not JSON. `read_lone_prompts` (datasets/text_pairs.py) reads prompts of no masks.
    """
    path, bad, prompts = Path(path), [], {}
    for name, value in read_items(path, bad):
        stem = name if name in stems else without_ending(name)
        if stem not in stems:
            bad.append(BadFile(path / name, "named in the prompts, but there is no such mask"))
        elif stem in prompts:
            bad.append(BadFile(path / name, "named twice in the prompts"))
        prompts[stem] = only_text(path / name, value, bad)
    if not any(fault.path == path for fault in bad):
        bad += [BadFile(path / stem, "not named in the prompts") for stem in sorted(set(stems) - prompts.keys())]
    if bad:
        raise UserError(report(f"{path}: {len(bad)} faults", bad, "Nothing was generated."))
    return prompts


def read_items(path, bad):
    """The items of a JSON object, names that come twice too; none where the file is at fault, which is added to `bad`."""
    try:  # names may be no UTF-8; an object becomes a tuple of its items
        items = json.loads(path.read_bytes().decode("utf-8-sig", errors="surrogateescape"), object_pairs_hook=tuple)
    except OSError as error:
        bad.append(BadFile(path, "cannot be read", error.strerror))
    except (ValueError, RecursionError) as error:
        bad.append(BadFile(path, "is not valid JSON", error))
    else:
        if isinstance(items, tuple):
            return items
        bad.append(BadFile(path, 'is not an object {"<name>": "<words>", ...}'))
    return ()


def texts(path, value, bad):
    """The captions of an entry, one or a list of them, with white space made single spaces; its faults are added to `bad`."""
    values = value if isinstance(value, list) else [value]
    if not values:
        bad.append(BadFile(path, "empty caption", "an empty list"))
    return [only_text(path, each, bad) for each in values]


def only_text(path, value, bad):
    """A caption, with white space made single spaces; where it is at fault "", and the fault is added to `bad`."""
    if not isinstance(value, str):
        bad.append(BadFile(path, "caption that is no text"))
        return ""
    text, fault = " ".join(value.split()), None
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        fault = BadFile(path, "caption that is not UTF-8")
    elif not text:
        fault = BadFile(path, "empty caption")
    elif len(text) > LONGEST:
        fault = BadFile(path, f"caption of more than {LONGEST} characters", f"{len(text)}")
    bad += [fault] if fault else []
    return "" if fault else text
