"""A whole data set of drawn landscapes, on disk."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.loader import dealt
from datasets.synthetic.render import draw
from utils.errors import UserError
from utils.files import whole_folder
from utils.image import write_jpeg, write_png

BUILT_IN_PAIRS = 150, 8  # for training and for testing


def draw_built_in(root):
    """Draws the set that is used where no other is named, unless it is there. Raises as `write_dataset` does."""
    if not root.is_dir():
        print(f"No --input_path, and no data in {root}: drawing the built-in landscapes there.")
        write_dataset(root, *BUILT_IN_PAIRS, seed=0)


def write_dataset(root, train, test, seed, size=(512, 384), workers=None, progress=True):
    """Write a set of drawn landscapes in the layout of the contest.

        <root>/train_resized/imgs/*.jpg      RGB JPEG              <root>/train_resized/labels/*.png   16-bit grayscale, 0..28
        <root>/val_A_labels_resized/*.png    masks to generate from
        <root>/label_to_img.json             {"<mask>.png": "<training picture>.jpg"}, each of another picture while train >= test
        <root>/val_A_truth/*.jpg             each test layout drawn in the style of its reference, to compare results with
        <root>/train_resized/captions.json   {"<stem>": ["<caption>", ...]}: what the training pictures show, each said in three ways
        <root>/prompts.json                  {"<stem>": "<caption>"} of the test layouts in the styles of their references

    `train` and `test` are numbers of pictures, `size` is (width, height), `workers` a number of threads. A picture depends on
    `seed` and its index alone. A set that is there is whole. Raises UserError when `root` exists or a number makes no sense, DiskError when
    writing fails.
    """
    root = Path(root)
    if train < 1 or test < 0 or seed < 0 or min(size) < 16:
        raise UserError(
            f"Cannot draw {train} training and {test} test pictures of size {size[0]}x{size[1]} from seed {seed}: "
            "give at least 1, 0, 16x16 and 0."
        )
    references = dealt(test, train, seed, 2)
    captions, prompts, pairs = {}, {}, {}

    def write_one(partial, index):
        """Draw picture `index`, training pictures first, then the test ones, and write it into the folder `partial`."""
        is_test = index >= train
        style = int(references[index - train]) if is_test else index
        stem = f"test_{index - train:05d}" if is_test else f"train_{index:05d}"
        image, mask, sentences = draw((seed, 0, index), (seed, 1, style), size)
        write_jpeg(partial / ("val_A_truth" if is_test else "train_resized/imgs") / f"{stem}.jpg", image)
        labels = "val_A_labels_resized" if is_test else "train_resized/labels"
        write_png(partial / labels / f"{stem}.png", mask.astype(np.uint16))
        if is_test:
            pairs[f"{stem}.png"] = f"train_{style:05d}.jpg"
            prompts[stem] = sentences[0]
        else:
            captions[stem] = sentences

    with whole_folder(root) as partial:
        for folder in ("train_resized/imgs", "train_resized/labels", "val_A_labels_resized", "val_A_truth"):
            (partial / folder).mkdir(parents=True)
        with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
            try:
                jobs = pool.map(lambda index: write_one(partial, index), range(train + test))
                list(tqdm(jobs, total=train + test, desc="drawing landscapes", unit="picture", disable=not progress))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for name, content in (("label_to_img.json", pairs), ("train_resized/captions.json", captions), ("prompts.json", prompts)):
            (partial / name).write_text(json.dumps(dict(sorted(content.items())), indent=1))
