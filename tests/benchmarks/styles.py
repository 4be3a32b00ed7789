"""Whether stage `style` learns styles: trains them beside a run of system text, paints what their prompt.json ask for, and compares.

    python -m datasets.prepare styles --output_path styles --styles 4
    python tests/benchmarks/styles.py --checkpoint checkpoints/text --styles styles --output_path out --steps 300

For each picture it is asked whether it is nearer to the held-out pictures of its own style (<NN>/truth) than to those of the others: by
correlation of colour histograms, and by the distance of EfficientNet-lite0's features. Printed are the shares of pictures of which that
is so, on average over all others and for every single other; of the run as it is, of adapters with separate and with equal learning rates,
and of these without what the pictures add to the prompts. All that is done stays in --output_path.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np

from datasets.landscape import read_image
from datasets.styles import find_style_prompts
from models.metrics.style import style_similarity
from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.weights import LITE0, packaged_weights
from models.systems import SYSTEMS
from models.training.run import read_run
from tests.benchmarks.commands import call, copied
from tests.benchmarks.duel import seconds
from utils.errors import or_exit

SIZE = (256, 192)  # compared in this size
LR = 2e-3
ENTRANTS = {
    "the run as it is": None,
    "separate rates": ("--style_lr", LR, "--style_text_lr", LR / 2),
    "equal rates": ("--style_lr", LR, "--style_text_lr", LR),
    "separate rates, no enhancement": ("--style_lr", LR, "--style_text_lr", LR / 2, "--style_enhancement", 0),
}


def nearer(distances: np.ndarray, own: int) -> tuple[bool, bool]:
    """Of the mean distances to each style: whether that to its own is below the mean of the others, and below each of them."""
    others = np.delete(distances, own)
    return bool(distances[own] < others.mean()), bool(distances[own] < others.min())


def compared(output: Path, styles: Path) -> str:
    """Cells of the table: by histograms and by features, the shares of pictures that are nearer to their own style."""
    network, prompts = load_efficientnet_lite("lite0", packaged_weights(LITE0)), find_style_prompts(styles)
    names = sorted({pair.stem.partition("/")[0] for pair in prompts})

    def features(pictures: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([lite_features(network, np.stack([picture])) for picture in pictures])

    truths = {name: [read_image(path, SIZE) for path in sorted((styles / name / "truth").glob("*.png"))] for name in names}
    of_truths = {name: features(truths[name]) for name in names}
    found = []
    for pair in prompts:
        picture, own = read_image(output / pair.file, SIZE), names.index(pair.stem.partition("/")[0])
        colors = np.array([np.mean([-style_similarity(picture, truth, "corrected") for truth in truths[name]]) for name in names])
        distances = np.array([np.linalg.norm(of_truths[name] - features([picture]), axis=1).mean() for name in names])
        found.append([*nearer(colors, own), *nearer(distances, own)])
    return " | ".join(f"{share:.2f}" for share in np.mean(found, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "styles", "output_path"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of training, of each style (default: %(default)s)")
    args = parser.parse_args()
    stored = read_run(args.checkpoint, SYSTEMS)
    size = ("--width", stored.options["unet"].width, "--height", stored.options["unet"].height)
    data = ("--input_path", stored.input_path) if stored.input_path else ()
    lines = []
    for name, words in ENTRANTS.items():
        folder = args.output_path.resolve() / name.replace(", ", "-").replace(" ", "_")
        copied(args.checkpoint, folder / "run", "state", "style", "best", "previews", "tensorboard", ".lock")
        if words is not None:
            given = ("--stage", "style", "--style_pictures", args.styles, "--steps", args.steps, *size, *words)
            call("MainTrain.py", "--run", folder / "run", *data, *given)
        painted = ("--checkpoint", folder / "run", "--input_path", args.styles, "--output_path", folder / "results")
        call("MainTest.py", *painted)
        taken = [sum(seconds(log, "style")) for log in (folder / "run" / "style").glob("*/log.jsonl")]  # of its steps, whenever taken
        lines.append(f"| {name} | {compared(folder / 'results', args.styles)} | {np.mean(taken or [0]):.0f} s |")
        print(lines[-1], flush=True)
    head = "| | histogram: nearer than on average | nearer than any | features: nearer than on average | nearer than any | a style |"
    print("\n" + "\n".join([head, "|---|---|---|---|---|---|", *lines]))


if __name__ == "__main__":
    or_exit(main)
