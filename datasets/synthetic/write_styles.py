"""Drawn styles: a few pictures of each light and season, in the layout of datasets/styles.py."""

import json
from itertools import count
from pathlib import Path

from tqdm import tqdm

from datasets.synthetic.captions import description, truth_of
from datasets.synthetic.render import draw
from utils.errors import UserError
from utils.files import whole_folder
from utils.image import write_png


def write_styles(root, styles=28, pictures=8, prompts=4, seed=0, size=(512, 384)):
    """Writes a set of drawn styles.

        <root>/<NN>/images/<description>.png    RGB; in each style other layouts, all of them in the style's light and season
        <root>/<NN>/prompt.json                 {"0": "<description>", …}
        <root>/<NN>/truth/<description>.png     each of the prompts drawn in the style, to compare results with

    `styles`, `pictures` and `prompts` (the last two of each style) are numbers, `size` is (width, height). A set that is there is whole.
    Raises UserError when `root` exists or a number makes no sense, DiskError when writing fails.
    """
    if not 1 <= styles <= 99 or min(pictures, prompts) < 1 or seed < 0 or min(size) < 16:
        raise UserError(
            f"Cannot draw {styles} styles of {pictures} and {prompts} pictures from seed {seed}: give at least 1, 1, 1 and 0, at most 99"
        )
    with whole_folder(Path(root)) as partial:
        for number in tqdm(range(1, styles + 1), desc="drawing styles", unit="style", disable=None):
            folder, listed, style = partial / f"{number:02}", [], (seed, 2, number)
            for i in count():
                text = description(truth_of((seed, 3, number, i), style, size))
                if text in listed:
                    continue  # a file of this name is there
                image, _, _ = draw((seed, 3, number, i), style, size)
                write_png(folder / ("images" if len(listed) < pictures else "truth") / f"{text}.png", image)
                listed.append(text)
                if len(listed) == pictures + prompts:
                    break
            (folder / "prompt.json").write_text(json.dumps(dict(enumerate(listed[pictures:])), indent=1))
