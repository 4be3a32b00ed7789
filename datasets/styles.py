"""Styles to be learnt from a few pictures each, as the fourth contest has them.

    <root>/<NN>/images/<description>.png    a picture of style NN, two digits, called what it shows
    <root>/<NN>/prompt.json                 {"0": "<description>", …}: what is to be painted in it
    <root>/<NN>/negative_prompt.txt         words that painting in it leads away from; may be missing

In training and in painting the caption is "<description>, style<NN>".
"""

import re

from datasets.checks import WORKERS, existing_folder, files_by_stem, mention, report
from datasets.landscape import PICTURES, BadFile
from datasets.pairs import Pair, decode_all
from datasets.test_pairs import TestPair
from datasets.text_pairs import can_be_a_name, read_entries
from utils.errors import UserError

PROMPTS, NEGATIVE = "prompt.json", "negative_prompt.txt"


def in_style(description, style):
    """The caption of what is described, in a style."""
    return f"{description}, style{style}"


def style_of(caption):
    """The style that a caption is in, "07" say; None where it names none."""
    found = re.search(r", style(\d\d)$", caption)
    return found[1] if found else None


def style_folders(root):
    """The folders of the styles in a folder, in order."""
    return sorted(path for path in existing_folder(root).iterdir() if re.fullmatch(r"\d\d", path.name) and path.is_dir())


def negative_prompt(root, style):
    """The words that painting in a style leads away from; "" where there are none."""
    path = existing_folder(root) / style / NEGATIVE
    return " ".join(path.read_text("utf-8", errors="replace").split()) if path.is_file() else ""


def check_styles(root):
    """Decodes every picture once -> {style: list of Pair with one caption and no mask}, in order.

    Raises UserError with one report of all faults: pictures that cannot be decoded, two of one name, styles without a picture.
    """
    bad, styles = [], {}
    for folder in style_folders(root):
        images = folder / "images"
        pictures, taken, strange = files_by_stem(images, PICTURES) if images.is_dir() else ({}, [], [])
        bad += taken if pictures else [BadFile(images, "no picture of this style")]
        mention("no picture, ignored", strange)
        styles[folder.name] = [Pair(stem, path, None, (in_style(stem, folder.name),)) for stem, path in sorted(pictures.items())]
    decode_all([pair for pairs in styles.values() for pair in pairs], bad, WORKERS, None)
    if bad or not styles:
        end = "Nothing was trained."
        raise UserError(report(f"{root}: {len(bad)} faults", bad, end) if bad else f"{root} holds no style: folders 00 to 99 are expected")
    return styles


def find_style_prompts(root):
    """What is to be painted -> list of TestPair in order of style and number, each to be called <NN>/<description>.png.

    Raises UserError with one report of all faults: as `datasets.text_pairs.read_lone_prompts` has them.
    """
    bad, pairs = [], []
    for folder in style_folders(root):
        if not (folder / PROMPTS).is_file():
            continue
        prompts, _ = read_entries(folder / PROMPTS, bad)
        bad += [BadFile(folder / text, "description that cannot be a file's name") for text in prompts.values() if not can_be_a_name(text)]
        texts = dict.fromkeys(prompts.values())  # each once: what is asked for twice is one file
        pairs += [TestPair(f"{folder.name}/{text}", None, None, in_style(text, folder.name), ".png") for text in texts]
    if bad:
        raise UserError(report(f"{root}: {len(bad)} faults", bad, "Nothing was painted."))
    if not pairs:
        raise UserError(f"Nothing to paint in {root}: no style there has a {PROMPTS} that names something")
    return pairs
