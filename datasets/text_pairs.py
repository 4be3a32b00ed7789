"""Photos with captions and without masks, as a set to paint from words alone is published; and what is to be painted.

    <root>/train/*.jpg         photos; several may show one thing: "lake_3.jpg" and "lake_7.jpg" are both of the id "lake"
    <root>/train_info.json     {"<id>": {"description": "…", "action": "…"}, ...}, or {"<id>": "…", ...}: the caption of each id
    <root>/test.json           {"<id>": "…", ...}: what to paint, each to be called <id>.jpg

A photo's id is its stem less its last suffix, which begins with the last "_", "-" or "."; a whole stem that is an id is one too. Its
caption is the description and then the action, where there is one.
"""

import re
from pathlib import Path

from datasets.captions import only_text, read_items
from datasets.checks import WORKERS, existing_folder, files_by_stem, mention, report
from datasets.landscape import PICTURES, BadFile
from datasets.leave_out import read_leave_out
from datasets.pairs import Pair, check_training_pairs, decode_all, without_bad
from datasets.test_pairs import TestPair
from utils.errors import UserError

INFO, TEST = "train_info.json", "test.json"
LONGEST_ID = 200  # bytes; a file's name may have 255


def check_text_pairs(root, skip_bad=False, workers=WORKERS, report_path=None, cache=None, leave_out=None):
    """Decodes every photo of the set once -> list of Pair with one caption and no mask, sorted by stem.

    Faults are photos that cannot be decoded, two of one stem, photos without an id in train_info.json, ids without a photo or given twice,
    entries without an id, captions that are no text, empty or too long. The rest is as in `check_training_pairs`. Raises UserError where
    there is no such set, too.
    """
    root = existing_folder(root)
    folder, info = root / "train", root / INFO
    if not (folder.is_dir() and info.is_file()):
        raise UserError(f"No photos with captions in {root}. Looked for the folder {folder} and the file {info}")
    images, bad, strange = files_by_stem(folder, PICTURES)
    if not images:
        raise UserError(f"{folder} is empty: no file ends in {', '.join(PICTURES)}.")
    captions, readable = read_entries(info, bad)
    ids = {stem: id_of(stem, captions) for stem in images}
    if readable:
        bad += [BadFile(info / name, f"named in {INFO}, but there is no such picture") for name in captions.keys() - set(ids.values())]
        bad += [BadFile(images[stem], f"no entry in {INFO}") for stem, name in ids.items() if name not in captions]
    if leave_out is not None:
        left_out = read_leave_out(leave_out, images.keys())
        images = {stem: path for stem, path in images.items() if stem not in left_out}
        unread = {info / name for name in set(ids.values()) - {ids[stem] for stem in images}}  # captions of none that is left
        bad = [fault for fault in bad if fault.path.stem not in left_out and fault.path not in unread]
        print(f"{len(left_out)} pictures are left out, as {leave_out} says.")
    pairs = [Pair(stem, path, None, (captions.get(ids[stem], ""),)) for stem, path in sorted(images.items())]
    decode_all(pairs, bad, workers, cache)
    mention("no picture, ignored", strange)
    return without_bad(bad, [pair for pair in pairs if pair.captions != ("",)], folder, skip_bad, report_path)


def check_described_pairs(root, *args, **kwargs):
    """The same of a set with train_info.json; of another, `check_training_pairs`: its captions, whatever its masks."""
    return (check_text_pairs if (Path(root) / INFO).is_file() else check_training_pairs)(root, *args, **kwargs)


def find_prompts(input_path, *others, prompt="", prompts=""):
    """What is to be painted from words alone -> list of TestPair without mask and reference, sorted by stem.

    prompts: JSON file of a prompt for each (`read_lone_prompts`); by default test.json in the folder `input_path`. prompt: or else one
    picture, of these words, to be called prompt.jpg. `others`: what `find_test_pairs` takes, and is of no use here. Raises UserError.
    """
    path = Path(prompts) if prompts else Path(input_path) / TEST
    if not prompts and not prompt and not path.is_file():
        raise UserError(f'{path} is missing: name what to paint by --prompts FILE, {{"<name>": "<words>", …}}, or --prompt "<words>"')
    listed = {"prompt": prompt} if prompt else read_lone_prompts(path)
    return [TestPair(stem, None, None, listed[stem]) for stem in sorted(listed)]


def read_lone_prompts(path):
    """What a file like test.json asks for: {id: prompt}, in its order.

    Raises UserError with one report of all faults: an id that is empty, given twice, or cannot be a file's name; a prompt that is no text,
    empty or too long; a file that is not JSON, or names nothing.
    """
    path, bad = Path(path), []
    prompts, readable = read_entries(path, bad)
    bad += [BadFile(path / name, "id that cannot be a file's name") for name in prompts if not can_be_a_name(name)]
    if readable and not prompts and not bad:
        bad.append(BadFile(path, "names nothing to paint"))
    if bad:
        raise UserError(report(f"{path}: {len(bad)} faults", bad, "Nothing was generated."))
    return prompts


def read_entries(path, bad):
    """{id: caption} of a file, "" for a caption at fault, and whether the file could be read; faults are added to the list `bad`."""
    faults = len(bad)
    items = read_items(path, bad)
    readable, captions = len(bad) == faults, {}
    for name, value in items:
        if not name.strip():
            bad.append(BadFile(path, "entry without an id"))
            continue
        if name in captions:
            bad.append(BadFile(path / name, f"named twice in {path.name}"))
        if isinstance(value, tuple):  # an object: its items
            parts = [text for key in ("description", "action") for given, text in value if given == key]
            value = " ".join(parts) if all(isinstance(part, str) for part in parts) else None
        captions[name] = only_text(path / name, value, bad)
    return captions, readable


def id_of(stem, ids):
    """The id of a photo: its stem, where that is one, or the stem less its last suffix."""
    return stem if stem in ids else re.sub(r"[_.-][^_.-]*$", "", stem)


def can_be_a_name(name):
    return not re.search(r"[/\\\0]|^\.", name) and len(name.encode(errors="surrogateescape")) <= LONGEST_ID
