"""Paints a picture for every mask, in the style of the reference photo that the pairs file gives it.

    python3 MainTest.py --input_path val_A_labels_resized --img_path train_resized/imgs --output_path results

writes results/<mask's stem>.jpg, 512x384, for each mask. Without arguments it uses the newest run and the built-in test set. Pictures
that exist are kept: a run that was killed is finished by the same command, with the same bytes as if it had never been killed.
"""

import argparse
import signal
import sys
import zipfile
import zlib
from pathlib import Path

from utils import jittor_setup  # before anything that imports Jittor

# isort: split
import numpy as np
from tqdm import tqdm

from datasets.landscape import TestPair, find_test_pairs, read_image, read_mask
from models.diffusion.samplers import SAMPLERS
from models.latent_diffusion import LatentDiffusion
from utils.errors import UserError, or_exit
from utils.files import atomic_write
from utils.image import COLOR_MATCHES, color_match, resize, write_jpeg

ROOT = Path(__file__).resolve().parent
BUILT_IN = ROOT / "datasets" / "landscape"
SIZE = (512, 384)  # of the competition's results: width, height


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    files = parser.add_argument_group("files")
    files.add_argument("--input_path", type=Path, default=BUILT_IN, help="the folder of masks, or its parent")
    files.add_argument("--img_path", type=Path, default=BUILT_IN, help="the folder of reference photos, or the training set above it")
    files.add_argument("--output_path", type=Path, default=ROOT / "results", help="made if need be (default: %(default)s)")
    files.add_argument("--pairs", type=Path, help="{mask: photo} as JSON, if it is not label_to_img.json in or beside the masks")
    files.add_argument("--checkpoint", type=Path, help="a run's folder, or best/ in it (default: the newest below checkpoints/)")
    files.add_argument("--overwrite", action="store_true", help="paint anew what exists")
    files.add_argument("--zip", action="store_true", help="pack the pictures into <output_path>.zip, ready to hand in")
    painting = parser.add_argument_group("painting")
    painting.add_argument("--sampler", choices=SAMPLERS, default="dpm++2m", help="default: %(default)s")
    painting.add_argument("--steps", type=int, default=25, help="sampling steps (default: %(default)s)")
    painting.add_argument("--guidance", type=float, default=1.5, help="scale for the mask, 1 for none (default: %(default)s)")
    painting.add_argument("--ref_guidance", type=float, default=1.5, help="scale for the reference, 1 for none (default: %(default)s)")
    painting.add_argument(
        "--ref_start", type=float, default=1.0, help="below 1, start from the reference's noised latents (default: %(default)s)"
    )
    painting.add_argument(
        "--color_match", choices=COLOR_MATCHES, default="none", help="move the result's colours to the reference's (default: %(default)s)"
    )
    painting.add_argument("--seed", type=int, default=0)
    painting.add_argument("--batch_size", type=int, default=8, help="pictures at once (default: %(default)s)")
    return parser.parse_args()


def newest_run() -> Path:
    """The run below checkpoints/ that was saved last."""
    runs = [path.parent.parent for path in (ROOT / "checkpoints").glob("*/unet/config.json")]
    if not runs:
        raise UserError(f"No trained run in {ROOT / 'checkpoints'}: train one with MainTrain.py, or name one with --checkpoint.")
    return max(runs, key=lambda run: (run / "unet" / "config.json").stat().st_mtime)


def picture_seed(seed: int, stem: str) -> int:
    """A picture's own seed, from the run's and the file's name: it does not depend on which other pictures are made."""
    return seed << 32 | zlib.crc32(stem.encode())


def paint(pairs: list[TestPair], model: LatentDiffusion, args: argparse.Namespace, bar: tqdm) -> None:
    """Writes the pictures of one batch that are not there."""
    missing = [pair for pair in pairs if args.overwrite or not picture_path(args, pair).is_file()]
    if missing:
        # All of the batch, even where some are there: the same batches give the same bytes, whatever was killed when.
        size = (model.config.width, model.config.height)
        references = np.stack([read_image(pair.reference, size) for pair in pairs])
        results = model.generate(
            masks=np.stack([read_mask(pair.mask, size) for pair in pairs]),
            references=references,
            seeds=[picture_seed(args.seed, pair.stem) for pair in pairs],
            sampler=args.sampler,
            steps=args.steps,
            guidance=args.guidance,
            ref_guidance=args.ref_guidance,
            ref_start=args.ref_start,
        )
        for pair, reference, result in zip(pairs, references, results, strict=True):
            if pair in missing:
                write_jpeg(picture_path(args, pair), color_match(resize(result, SIZE), reference, args.color_match))
    bar.update(len(pairs))


def picture_path(args: argparse.Namespace, pair: TestPair) -> Path:
    return args.output_path / f"{pair.stem}.jpg"


def pack(args: argparse.Namespace, pairs: list[TestPair]) -> Path:
    """Zips the pictures, flat, as the competition wants them."""
    folder = args.output_path.resolve()
    path = folder.with_name(folder.name + ".zip")
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for pair in pairs:
            archive.write(picture_path(args, pair), f"{pair.stem}.jpg")
    return path


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for numbers that make no sense, before anything is loaded."""
    faults = [f"--{name} must be at least 1" for name in ("steps", "batch_size") if getattr(args, name) < 1]
    faults += ["--seed must not be negative"] if args.seed < 0 else []
    faults += ["--ref_start must be above 0 and at most 1"] if not 0 < args.ref_start <= 1 else []
    if faults:
        raise UserError("; ".join(faults))


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    for number in (signal.SIGINT, signal.SIGTERM):  # Jittor's own handler would leave without a word
        signal.signal(number, signal.default_int_handler)
    print(f"Device: {jittor_setup.DEVICE}")
    pairs = find_test_pairs(args.input_path, args.img_path, args.pairs)
    checkpoint = (args.checkpoint or newest_run()).resolve()
    model = LatentDiffusion.load(checkpoint)
    print(f"{len(pairs)} pictures with {checkpoint}, to {args.output_path}")
    try:
        with tqdm(total=len(pairs), desc="painting", unit="picture", dynamic_ncols=True) as bar:
            for first in range(0, len(pairs), args.batch_size):
                paint(pairs[first : first + args.batch_size], model, args, bar)
        if args.zip:
            print(f"Packed {pack(args, pairs)}")
    except KeyboardInterrupt:
        done = sum(picture_path(args, pair).is_file() for pair in pairs)
        print(
            f"Stopped; {done} of {len(pairs)} pictures are there. The same command, without --overwrite, paints the others.",
            file=sys.stderr,
        )
        sys.exit(130)


if __name__ == "__main__":
    or_exit(main)
