"""A part of a training set held out for validation, as two sets in folders of their own, so that it can be painted and scored too."""

import json
import os
import shutil
from pathlib import Path

from datasets.captions import CAPTIONS
from datasets.checks import WORKERS, in_threads
from datasets.loader import dealt
from datasets.pairs import check_training_pairs, split, split_off
from datasets.prepare.output import print_command
from utils.files import whole_folder

REFERENCES = 3  # keeps the stream that deals references apart from others of the same seed


def write_split(root, output, share=None, count=None, seed=0, copy=False, skip_bad=False, leave_out=None):
    """Divides the training set at `root` into two, and says how to train, paint and score with them.

        <output>/train/imgs, labels         the pairs to train on
        <output>/val/imgs, labels           those held out: `count`, or about a `share` of all, which MainTrain.py --val_fraction would take
        <output>/train, val/captions.json       their captions, where there are any
        <output>/val/label_to_img.json      {"<mask held out>.png": "<photo to train on>.jpg"}: references, each once before any comes again

    Files are hard links where the file system has them, or else copies, with `copy` always: what is linked takes no room, but is changed
    where the original is. skip_bad, leave_out: as in `check_training_pairs`. Raises UserError, DiskError.
    """
    output = Path(os.path.abspath(output))
    with whole_folder(output) as building:
        pairs = check_training_pairs(root, skip_bad, leave_out=leave_out)
        parts = dict(zip(("train", "val"), split(pairs, share, seed) if count is None else split_off(pairs, count, seed), strict=True))
        places = {}
        for name, part in parts.items():
            for folder in ("imgs", "labels"):
                (building / name / folder).mkdir(parents=True)
            places |= {pair.image: building / name / "imgs" / pair.image.name for pair in part}
            places |= {pair.mask: building / name / "labels" / pair.mask.name for pair in part}
        in_threads(lambda path: place_file(path, places[path], copy), places, WORKERS, "copying" if copy else "linking")
        references = dealt(len(parts["val"]), len(parts["train"]), seed, REFERENCES)
        listing = {pair.mask.name: parts["train"][i].image.name for pair, i in zip(parts["val"], references, strict=True)}
        write_names(building / "val" / "label_to_img.json", listing)
        for name, part in parts.items():
            captions = {pair.image.name: pair.captions for pair in part if pair.captions}
            if captions:
                write_names(building / name / CAPTIONS, captions)
    train, val = (len(part) for part in parts.values())
    print(f"{train} pairs to train on, {val} held out, in {output}. With them:")
    truths = ["--truth_path", output / "val" / "imgs"] if all(pair.image.suffix == ".jpg" for pair in parts["val"]) else []
    print_command("MainTrain.py", "--input_path", output, "--val_path", output / "val")
    print_command("MainTest.py", "--input_path", output / "val", "--img_path", output, "--output_path", "results", "--score", *truths)


def write_names(path, listing):
    """Writes an object with names of files, which may be no UTF-8, as JSON."""
    path.write_bytes(json.dumps(listing, indent=1, ensure_ascii=False).encode(errors="surrogateescape"))


def place_file(path, target, copy):
    """Makes `target` a hard link to the file at `path`, or a copy of it where that is asked for or links are not to be had."""
    if not copy:
        try:
            os.link(path.resolve(), target)  # a link's target: it may be relative
            return
        except OSError:  # another file system, or one without hard links; a copy fails too where it is something else
            target.unlink(missing_ok=True)
    shutil.copyfile(path, target)
