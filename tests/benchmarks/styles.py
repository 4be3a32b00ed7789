"""Whether stage `style` learns styles: trains them beside a run of system text, paints what their prompt.json ask for, and compares.

    python -m datasets.prepare styles --output_path styles --styles 4 --prompts 16
    python tests/benchmarks/styles.py --checkpoint checkpoints/text --styles styles --output_path out --steps 500

For each picture it is asked whether it is nearer to the held-out pictures of its own style (<NN>/truth) than to those of the others: by
correlation of colour histograms, by style statistics of EfficientNet-lite0's maps (the mean and the standard deviation of every channel,
Huang & Belongie 2017, section 5), and by its pooled features, which tell more of what there is to see than of the style. Printed are the
shares of pictures of which that is so, on average over all others and for every single other: first of the pictures that the styles are
learnt from, as a bound, then of the run as it is, of adapters with separate and with equal learning rates, and of these without what the
pictures add to the prompts. All that is done stays in --output_path.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import jittor as jt
import numpy as np

from datasets.landscape import read_image
from datasets.styles import check_styles, find_style_prompts
from models.metrics.style import style_similarity
from models.networks.efficientnet_lite import EfficientNetLite, lite_features, load_efficientnet_lite
from models.networks.weights import LITE0, packaged_weights
from models.systems import SYSTEMS
from models.training.run import read_run
from tests.benchmarks.commands import call, copied
from tests.benchmarks.duel import seconds
from utils.errors import UserError, or_exit

SIZE = (256, 192)  # compared in this size
LEVELS = (0, 2, 4, 10, 15)  # the last block of EfficientNet-lite0 at each of five sizes
LR = 2e-3
ENTRANTS = {
    "the run as it is": None,
    "separate rates": ("--style_lr", LR, "--style_text_lr", LR / 2),
    "equal rates": ("--style_lr", LR, "--style_text_lr", LR),
    "separate rates, no enhancement": ("--style_lr", LR, "--style_text_lr", LR / 2, "--style_enhancement", 0),
}


def style_statistics(network: EfficientNetLite, picture: np.ndarray) -> list[np.ndarray]:
    """Mean and standard deviation of every channel, [2 C_i], of the maps at 1/2 to 1/32 of the size of a picture uint8 [H, W, 3]."""
    with jt.no_grad():
        maps = [part.numpy()[0] for part in network.features(jt.array(picture.transpose(2, 0, 1)[None] / np.float32(255)), LEVELS)]
    return [np.concatenate([part.mean(axis=(1, 2)), part.std(axis=(1, 2))]) for part in maps]


def style_distance(statistics: list[np.ndarray], others: list[np.ndarray], spreads: list[np.ndarray]) -> float:
    """The root mean square of the difference in each map, over how far pictures spread, summed over the maps."""
    return sum(np.sqrt(np.square((a - b) / spread).mean()) for a, b, spread in zip(statistics, others, spreads, strict=True))


def nearer(distances: np.ndarray, own: int) -> tuple[bool, bool]:
    """Of the mean distances to each style: whether that to its own is below the mean of the others, and below each of them."""
    others = np.delete(distances, own)
    return bool(distances[own] < others.mean()), bool(distances[own] < others.min())


class Judge:
    """Tells to which style's held-out pictures a picture is nearest."""

    def __init__(self, styles: Path, names: Iterable[str]):
        self.network = load_efficientnet_lite("lite0", packaged_weights(LITE0))
        self.truths = {style: [self.seen(path) for path in sorted((styles / style / "truth").glob("*.png"))] for style in names}
        if without := [str(styles / style / "truth") for style, truths in self.truths.items() if not truths]:
            raise UserError(f"No held-out pictures to compare with in {', '.join(without)}")
        maps = zip(*(statistics for truths in self.truths.values() for _, statistics, _ in truths), strict=True)
        self.spreads = [np.std(several, axis=0) + 1e-6 for several in maps]

    def seen(self, path: Path) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """A picture, its style statistics, and its pooled features."""
        picture = read_image(path, SIZE)
        return picture, style_statistics(self.network, picture), lite_features(self.network, [picture])[0]

    def distances(self, one: tuple, other: tuple) -> tuple[float, float, float]:
        """Of what is `seen` of two pictures: by histograms, by style statistics, and by pooled features."""
        by_histograms = -style_similarity(one[0], other[0], "corrected")
        return by_histograms, style_distance(one[1], other[1], self.spreads), float(np.linalg.norm(one[2] - other[2]))

    def cells(self, pictures: list[tuple[str, Path]]) -> str:
        """Cells of the table, of pictures and the style that each should have: the shares of those that are nearer to it."""
        styles, found = list(self.truths), []
        for own, path in pictures:
            picture = self.seen(path)
            by_style = [np.mean([self.distances(picture, truth) for truth in self.truths[style]], axis=0) for style in styles]
            found.append([nearer(column, styles.index(own)) for column in np.transpose(by_style)])  # of [styles, 3]
        return " | ".join(f"{mean:.2f} | {least:.2f}" for mean, least in np.mean(found, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "styles", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of training, of each style (default: %(default)s)")
    args = parser.parse_args()
    stored = read_run(args.checkpoint, SYSTEMS)
    size = ("--width", stored.options["unet"].width, "--height", stored.options["unet"].height)
    data = ("--input_path", stored.input_path) if stored.input_path else ()
    styles, prompts = check_styles(args.styles), find_style_prompts(args.styles)
    judge = Judge(args.styles, styles)
    learnt = [(style, pair.image) for style, pairs in styles.items() for pair in pairs]
    lines = [f"| the pictures they are learnt from | {judge.cells(learnt)} | |"]
    for name, words in ENTRANTS.items():
        folder = args.output_path.resolve() / name.replace(", ", "-").replace(" ", "_")
        copied(args.checkpoint, folder / "run", "state", "style", "best", "previews", "tensorboard", ".lock")
        if words is not None:
            given = ("--stage", "style", "--style_pictures", args.styles, "--steps", args.steps, *size, *words)
            call("MainTrain.py", "--run", folder / "run", *data, *given)
        painted = ("--checkpoint", folder / "run", "--input_path", args.styles, "--output_path", folder / "results")
        call("MainTest.py", *painted)
        taken = [sum(seconds(log, "style")) for log in (folder / "run" / "style").glob("*/log.jsonl")]  # of its steps, whenever taken
        results = [(pair.stem.partition("/")[0], folder / "results" / pair.file) for pair in prompts]
        lines.append(f"| {name} | {judge.cells(results)} | {np.mean(taken or [0]):.0f} s |")
        print(lines[-1], flush=True)
    head = "| | histogram: nearer than on average | than any | style statistics | than any | pooled features | than any | a style |"
    print("\n" + "\n".join([head, f"|{'---|' * 8}", *lines]))


if __name__ == "__main__":
    or_exit(main)
