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


def style_statistics(network: EfficientNetLite, picture: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of every channel of the maps at 1/2 to 1/32 of the size, [2 C], of a picture uint8 [H, W, 3]."""
    with jt.no_grad():
        maps = [part.numpy()[0] for part in network.features(jt.array(picture.transpose(2, 0, 1)[None] / np.float32(255)), LEVELS)]
    return np.concatenate([moment(part, axis=(1, 2)) for part in maps for moment in (np.mean, np.std)])


def nearer(distances: np.ndarray, own: int) -> tuple[bool, bool]:
    """Of the mean distances to each style: whether that to its own is below the mean of the others, and below each of them."""
    others = np.delete(distances, own)
    return bool(distances[own] < others.mean()), bool(distances[own] < others.min())


class Judge:
    """Tells to which style's held-out pictures a picture is nearest."""

    def __init__(self, styles: Path):
        self.network = load_efficientnet_lite("lite0", packaged_weights(LITE0))
        self.names = sorted(check_styles(styles))
        self.truths = {name: [self.seen(path) for path in sorted((styles / name / "truth").glob("*.png"))] for name in self.names}
        if without := [str(styles / name / "truth") for name, seen in self.truths.items() if not seen]:
            raise UserError(f"No held-out pictures to compare with in {', '.join(without)}")
        self.spread = np.std([statistics for seen in self.truths.values() for _, statistics, _ in seen], axis=0) + 1e-6

    def seen(self, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture, its style statistics, and its pooled features."""
        picture = read_image(path, SIZE)
        return picture, style_statistics(self.network, picture), lite_features(self.network, [picture])[0]

    def cells(self, pictures: list[tuple[str, Path]]) -> str:
        """Cells of the table, of pictures and the style that each should have: the shares of those that are nearer to it."""
        found = []
        for name, path in pictures:
            picture, statistics, features = self.seen(path)
            distances = [
                [
                    (
                        -style_similarity(picture, truth, "corrected"),
                        np.linalg.norm((statistics - other) / self.spread),
                        np.linalg.norm(features - pooled),
                    )
                    for truth, other, pooled in self.truths[name]
                ]
                for name in self.names
            ]
            by_style = np.mean(distances, axis=1)  # [styles, 3]
            found.append([nearer(column, self.names.index(name)) for column in by_style.T])
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
    judge, prompts = Judge(args.styles), find_style_prompts(args.styles)
    learnt = [(name, pair.image) for name, pairs in check_styles(args.styles).items() for pair in pairs]
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
