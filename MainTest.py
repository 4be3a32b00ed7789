"""Paints a picture for every mask, in the style of the reference photo that the pairs file gives it.

    python3 MainTest.py --input_path val_A_labels_resized --img_path train_resized/imgs --output_path results

writes results/<mask's stem>.jpg, 512x384, for each mask. Without arguments it uses the newest run and the built-in test set. Pictures
that exist are kept: a run that was killed is finished by the same command, on the CPU with the same bytes as if it had never been killed.

    python3 MainTest.py --input_path … --img_path … --output_path … --score

prints the competition's score of these pictures as well, and writes report.html and score.json beside them. Where all pictures are there,
whoever made them, no checkpoint is needed.
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

from datasets.landscape import read_image, read_mask
from datasets.test_pairs import TestPair, check_results, find_photos, find_test_pairs
from models.diffusion.samplers import SAMPLERS
from models.metrics.mask_accuracy import Judge, load_judge
from models.metrics.score import Pictures, score, total_score
from models.metrics.style import STYLE_METRICS, style_similarity
from models.networks.layers import DTYPES, autocast
from models.painters.latent_diffusion import LatentDiffusion
from utils import parallel
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
    painting.add_argument("--guidance", type=float, default=3.0, help="scale for the mask, 1 for none (default: %(default)s)")
    painting.add_argument("--ref_guidance", type=float, default=1.5, help="scale for the reference, 1 for none (default: %(default)s)")
    painting.add_argument(
        "--ref_start", type=float, default=1.0, help="below 1, start from the reference's noised latents (default: %(default)s)"
    )
    painting.add_argument(
        "--color_match",
        choices=COLOR_MATCHES,
        default="histogram",
        help="move the result's colours to the reference's (default: %(default)s)",
    )
    painting.add_argument("--amp", choices=DTYPES, default="float32", help="precision of products (default: %(default)s)")
    painting.add_argument("--tile", type=int, help="decode in tiles of so many pixels a side, where memory is short (default: at once)")
    painting.add_argument("--seed", type=int, default=0)
    painting.add_argument("--batch_size", type=int, default=8, help="pictures at once (default: %(default)s)")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--score", action="store_true", help="score the pictures; writes into <output_path>-score/")
    scoring.add_argument("--style_metric", choices=STYLE_METRICS, default="faithful", help="with the organisers' overflow, or without")
    scoring.add_argument("--judge", type=Path, help="run whose stage segformer judges the layout (default: the newest that has one)")
    scoring.add_argument(
        "--weights", type=Path, default=ROOT / "checkpoints" / "weights", help="folder of published networks (default: %(default)s)"
    )
    scoring.add_argument("--truth_path", type=Path, help="folder of the masks' true photos: adds PSNR, SSIM and LPIPS")
    scoring.add_argument("--best_of", type=int, default=1, metavar="N", help="paint each picture with N seeds and keep the best")
    scoring.add_argument("--best_by", choices=("total", "mask", "style"), default="total", help="best by this (default: %(default)s)")
    return parser.parse_args()


def newest_run(having: str) -> Path | None:
    """The run below checkpoints/ of which this file was written last."""
    runs = [run for run in (ROOT / "checkpoints").glob("*") if (run / having).is_file()]
    return max(runs, key=lambda run: (run / having).stat().st_mtime, default=None)


def picture_seed(seed: int, stem: str, candidate: int) -> int:
    """A picture's own seed, from the run's and the file's name: it does not depend on which other pictures are made."""
    return seed << 32 | zlib.crc32(stem.encode() + (b" %d" % candidate if candidate else b""))


def paint(pairs: list[TestPair], model: LatentDiffusion, judge: Judge | None, args: argparse.Namespace, bar: tqdm) -> None:
    """Writes the pictures of one batch that are not there."""
    missing = [pair for pair in pairs if not is_there(args, pair)]
    if missing:
        # All of the batch, even where some are there: the same batches give the same bytes, whatever was killed when.
        size = (model.config.width, model.config.height)
        masks = np.stack([read_mask(pair.mask, size) for pair in pairs])
        references = np.stack([read_image(pair.reference, size) for pair in pairs])

        def results(candidate: int) -> np.ndarray:
            """uint8 [B, 384, 512, 3]; each candidate has seeds of its own."""
            with autocast(args.amp):
                painted = model.generate(
                    masks,
                    references,
                    seeds=[picture_seed(args.seed, pair.stem, candidate) for pair in pairs],
                    sampler=args.sampler,
                    steps=args.steps,
                    guidance=args.guidance,
                    ref_guidance=args.ref_guidance,
                    ref_start=args.ref_start,
                    tile=args.tile,
                )
            return np.stack([color_match(resize(a, SIZE), b, args.color_match) for a, b in zip(painted, references, strict=True)])

        best = results(0)
        if args.best_of > 1:
            candidates = np.stack([best, *(results(candidate) for candidate in range(1, args.best_of))])  # [N, B, 384, 512, 3]
            merits = np.stack([merit(pictures, pairs, judge, args) for pictures in candidates])  # [N, B]
            best = candidates[merits.argmax(axis=0), np.arange(len(pairs))]
        for pair, result in zip(pairs, best, strict=True):
            if pair in missing:
                write_jpeg(picture_path(args, pair), result)
    bar.update(len(pairs))


def merit(pictures: np.ndarray, pairs: list[TestPair], judge: Judge | None, args: argparse.Namespace) -> np.ndarray:
    """What --best_of chooses by, float [B]: each picture's mask accuracy, its style similarity, or what they make of the total."""
    accuracy, style = np.ones(len(pairs)), np.zeros(len(pairs))
    if args.best_by != "style":
        labels = judge.labels(pictures, SIZE)
        accuracy = np.array([(seen == read_mask(pair.mask, SIZE)).mean() for seen, pair in zip(labels, pairs, strict=True)])
    if args.best_by != "mask":
        style = np.array([style_similarity(p, read_image(q.reference), args.style_metric) for p, q in zip(pictures, pairs, strict=True)])
    # what is of a set or takes other networks stands at about what entries reach, so that mask and style weigh as they do in the total
    return np.array([total_score(a, aesthetic=0.5, style=s, FID=40) for a, s in zip(accuracy, style, strict=True)])


def is_there(args: argparse.Namespace, pair: TestPair) -> bool:
    return picture_path(args, pair).is_file() and not args.overwrite


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
    faults = [f"--{name} must be at least 1" for name in ("steps", "batch_size", "best_of") if getattr(args, name) < 1]
    faults += ["--seed must not be negative"] if args.seed < 0 else []
    faults += ["--tile must be at least 64 pixels: less is seams alone"] if args.tile is not None and args.tile < 64 else []
    faults += ["--ref_start must be above 0 and at most 1"] if not 0 < args.ref_start <= 1 else []
    if faults:
        raise UserError("; ".join(faults))


def find_judge(args: argparse.Namespace) -> Judge | None:
    """The judge that is asked for, or the newest; None where there is none, or no use for one."""
    run = args.judge or newest_run(having="best/segformer/config.json")
    choosing = args.best_of > 1 and args.best_by != "style"
    if choosing and run is None:
        raise UserError(f"--best_by {args.best_by} needs a judge: train one with MainTrain.py --stage segformer, or give --best_by style")
    return load_judge(run.resolve()) if run and (choosing or args.score) else None


def paint_all(pairs: list[TestPair], judge: Judge | None, args: argparse.Namespace) -> None:
    """Paints the pictures that are not there, of which each process has its share."""
    checkpoint = args.checkpoint or newest_run(having="unet/config.json")
    if checkpoint is None:
        if args.score:
            check_results(pairs, args.output_path, SIZE)  # says which are missing
        raise UserError(f"No trained run in {ROOT / 'checkpoints'}: train one with MainTrain.py, or name one with --checkpoint.")
    model = LatentDiffusion.load(checkpoint.resolve())
    print(f"{len(pairs)} pictures with {checkpoint}, to {args.output_path}")
    batches = [pairs[first : first + args.batch_size] for first in range(0, len(pairs), args.batch_size)]
    own = batches[parallel.RANK :: parallel.SIZE]
    with tqdm(total=sum(map(len, own)), desc="painting", unit="picture", dynamic_ncols=True, disable=not parallel.MAIN) as bar:
        for batch in own:
            paint(batch, model, judge, args, bar)


def score_all(pairs: list[TestPair], judge: Judge | None, args: argparse.Namespace) -> None:
    """Prints the score of the pictures, and writes it beside them."""
    check_results(pairs, args.output_path, SIZE)
    if args.truth_path:
        check_results(pairs, args.truth_path)
    folder = args.output_path.resolve()
    output = folder.with_name(folder.name + "-score")
    pictures = Pictures(
        pairs=pairs,
        folder=folder,
        photos=find_photos(args.img_path),
        truths=args.truth_path,
        judge=judge,
        weights=args.weights,
        style_metric=args.style_metric,
        cache=output / "cache",
        size=SIZE,
    )
    facts = {
        "pictures": f"{len(pairs)} of {folder}",
        "references": str(args.img_path),
        "judge": str(judge.weights.parent) if judge else "none",
        "style": args.style_metric,
    }
    score(pictures, facts, output)
    print(f"Picture by picture: {output / 'report.html'}")


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    for number in (signal.SIGINT, signal.SIGTERM):  # Jittor's own handler would leave without a word
        signal.signal(number, signal.default_int_handler)
    parallel.begin()
    print(f"Device: {jittor_setup.DEVICE}")
    try:
        pairs = find_test_pairs(args.input_path, args.img_path, args.pairs)
        judge = find_judge(args)
        kept = sum(is_there(args, pair) for pair in pairs)
        if kept:
            print(f"{kept} of {len(pairs)} pictures are there and kept as they are; --overwrite paints them anew.")
        if kept < len(pairs):
            paint_all(pairs, judge, args)
        parallel.wait_for_all()
        if args.zip and parallel.MAIN:
            print(f"Packed {pack(args, pairs)}")
        if args.score and parallel.MAIN:
            score_all(pairs, judge, args)
    except KeyboardInterrupt:
        print(f"Stopped. The same command {'paints all anew' if args.overwrite else 'does the rest'}.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    with parallel.failing_together():
        or_exit(main)
