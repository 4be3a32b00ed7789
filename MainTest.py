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
from pathlib import Path

from utils import jittor_setup  # before anything that imports Jittor

# isort: split
import numpy as np
from tqdm import tqdm

from datasets.test_pairs import TestPair, check_results, find_test_pairs
from models.metrics.mask_accuracy import Judge, judge_file, load_judge
from models.metrics.merit import MERITS, merit
from models.metrics.score import score_folder
from models.metrics.style import STYLE_METRICS
from models.networks.layers import DTYPES, autocast
from models.painters.pictures import SIZE, pack, painted
from models.painters.super_resolution import LEAST_TILE, SCALES, SuperResolution, enlarge_files, published_rcan, rcan_file, rcan_of
from models.systems import SYSTEMS, painter_file, painting_system
from models.training.run import newest_run, read_run, run_of
from utils import parallel
from utils.errors import UserError, or_exit, telling_of_memory
from utils.image import COLOR_MATCHES, resize, write_jpeg
from utils.options import add_arguments, argument_parser, faults, given
from utils.signals import on_stop

ROOT = Path(__file__).resolve().parent
BUILT_IN, CHECKPOINTS = ROOT / "datasets" / "landscape", ROOT / "checkpoints"
LESS_MEMORY = "take --batch_size 1, or --amp bfloat16, or --sr_tile 128, or an option of the painter that takes less (--help)"


def parse_arguments() -> argparse.Namespace:
    """The options, those of the run's painter among them; which run that is, is asked first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--checkpoint", type=Path)
    checkpoint = first.parse_known_args()[0].checkpoint or newest_run(CHECKPOINTS, painter_file)
    system = painting_system(checkpoint)

    parser = argument_parser(__doc__)
    files = parser.add_argument_group("files")
    files.add_argument("--input_path", type=Path, default=BUILT_IN, help="the folder of masks, or its parent")
    files.add_argument("--img_path", type=Path, default=BUILT_IN, help="the folder of reference photos, or the training set above it")
    files.add_argument("--output_path", type=Path, default=ROOT / "results", help="made if need be (default: %(default)s)")
    files.add_argument("--pairs", type=Path, help="{mask: photo} as JSON, if it is not label_to_img.json in or beside the masks")
    files.add_argument("--checkpoint", type=Path, help="a run's folder, or best/ in it (default: the newest below checkpoints/)")
    files.add_argument("--overwrite", action="store_true", help="paint anew what exists")
    files.add_argument("--zip", action="store_true", help="pack the pictures into <output_path>.zip, ready to hand in")
    painting = parser.add_argument_group("painting")
    painter = SYSTEMS[system].painter
    painting.add_argument("--color_match", choices=COLOR_MATCHES, default=painter.color_match, help="of result to reference (%(default)s)")
    painting.add_argument("--amp", choices=DTYPES, default="float32", help="precision of products (default: %(default)s)")
    painting.add_argument("--seed", type=int, default=0)
    painting.add_argument("--batch_size", type=int, default=8, help="pictures at once (default: %(default)s)")
    add_arguments(parser.add_argument_group(f"the painter of system {system}"), painter.Options, "", {"default": painter.Options()})
    larger = parser.add_argument_group("super-resolution, by a run of system sr")
    larger.add_argument("--use_sr", action="store_true", help="bring to 512x384 by RCAN, and not by a filter, what is painted smaller")
    larger.add_argument(
        "--scale", type=int, nargs="+", default=[], choices=SCALES, help="write larger ones too, in <output_path>-x<scale>/"
    )
    larger.add_argument("--sr_checkpoint", type=Path, help="the run, or a file of published weights (default: the newest run)")
    larger.add_argument("--sr_tile", type=int, default=0, help="work in tiles of so many pixels a side, where memory is short; 0: at once")
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--score", action="store_true", help="score the pictures; writes into <output_path>-score/")
    scoring.add_argument("--style_metric", choices=STYLE_METRICS, default="faithful", help="with the organisers' overflow, or without")
    scoring.add_argument("--judge", type=Path, help="run of system judge that judges the layout (default: the newest)")
    scoring.add_argument("--weights", type=Path, default=CHECKPOINTS / "weights", help="published networks (default: %(default)s)")
    scoring.add_argument("--truth_path", type=Path, help="folder of the masks' true photos: adds PSNR, SSIM and LPIPS")
    scoring.add_argument("--best_of", type=int, default=1, metavar="N", help="paint each picture with N seeds and keep the best")
    scoring.add_argument("--best_by", choices=MERITS, default="total", help="best by this (default: %(default)s)")
    args, unknown = parser.parse_known_args()
    if unknown:
        raise UserError(f"{' '.join(unknown)}: the painter of system {system} has no such option, nor has MainTest.py. --help lists them.")
    args.checkpoint, args.options = checkpoint, painter.Options(**given(args, painter.Options, ""))
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for numbers that make no sense, before anything is loaded."""
    found = [f"--{name} must be at least 1" for name in ("batch_size", "best_of") if getattr(args, name) < 1]
    found += ["--seed must be at least 0 and below 2^63"] if not 0 <= args.seed < 2**63 else []
    found += [f"--sr_tile must be 0, or at least {LEAST_TILE}"] if args.sr_tile and args.sr_tile < LEAST_TILE else []
    found += faults(args.options, "") or args.options.faults()
    if found:
        raise UserError("; ".join(found))


def find_judge(args: argparse.Namespace) -> Judge | None:
    """The judge that is asked for, or the newest; None where there is none, or no use for one."""
    folder = args.judge or newest_run(CHECKPOINTS, judge_file)
    choosing = args.best_of > 1 and args.best_by != "style"
    if choosing and folder is None:
        raise UserError(f"--best_by {args.best_by} needs a judge: train one with MainTrain.py --system judge, or give --best_by style")
    return load_judge(read_run(folder.resolve(), SYSTEMS)) if folder and (choosing or args.score) else None


def find_super_resolution(args: argparse.Namespace) -> SuperResolution | None:
    """The one that is asked for, or the newest; None where there is no use for one."""
    if not args.use_sr and not args.scale:
        return None
    path = args.sr_checkpoint or newest_run(CHECKPOINTS, rcan_file)
    if path is None:
        raise UserError("--use_sr and --scale need RCAN: train it with MainTrain.py --system sr, or name its weights with --sr_checkpoint")
    return SuperResolution(published_rcan(path) if path.is_file() else rcan_of(read_run(run_of(path), SYSTEMS)), args.sr_tile)


def picture_path(args: argparse.Namespace, pair: TestPair) -> Path:
    return args.output_path / f"{pair.stem}.jpg"


def is_there(args: argparse.Namespace, pair: TestPair) -> bool:
    return picture_path(args, pair).is_file() and not args.overwrite


def paint(pairs: list[TestPair], painter, judge: Judge | None, larger: SuperResolution | None, args: argparse.Namespace) -> None:
    """Writes the pictures of one batch that are not there.

    The whole batch is painted even where some are there, so that the results do not depend on when a run was killed.
    """
    missing = [pair for pair in pairs if not is_there(args, pair)]
    if not missing:
        return
    resized = larger.enlarged if args.use_sr else resize
    with autocast(args.amp):
        candidates = [painted(painter, pairs, args.options, args.seed, i, args.color_match, resized) for i in range(args.best_of)]
    best = candidates[0]
    if args.best_of > 1:
        merits = np.stack([merit(pictures, pairs, args.best_by, judge, args.style_metric) for pictures in candidates])  # [N, B]
        best = np.stack(candidates)[merits.argmax(axis=0), np.arange(len(pairs))]
    for pair, result in zip(pairs, best, strict=True):
        if pair in missing:
            write_jpeg(picture_path(args, pair), result)


def paint_all(pairs: list[TestPair], judge: Judge | None, larger: SuperResolution | None, args: argparse.Namespace) -> None:
    """Paints the pictures that are not there, of which each process has its share."""
    if args.checkpoint is None:
        if args.score:
            check_results(pairs, args.output_path, SIZE)  # says which are missing
        raise UserError(f"No trained run in {CHECKPOINTS}: train one with MainTrain.py, or name one with --checkpoint.")
    run = read_run(run_of(args.checkpoint), SYSTEMS)
    painter = SYSTEMS[run.system].painter.load(run, args.checkpoint.resolve())
    print(f"{len(pairs)} pictures with {args.checkpoint}, to {args.output_path}")
    batches = [pairs[first : first + args.batch_size] for first in range(0, len(pairs), args.batch_size)]
    own = batches[parallel.RANK :: parallel.SIZE]
    with tqdm(total=sum(map(len, own)), desc="painting", unit="picture", dynamic_ncols=True, disable=not parallel.MAIN) as bar:
        for batch in own:
            paint(batch, painter, judge, larger, args)
            bar.update(len(batch))


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    on_stop(signal.default_int_handler)
    parallel.begin()
    print(f"Device: {jittor_setup.DEVICE}")
    try:
        with telling_of_memory(LESS_MEMORY):
            pairs = find_test_pairs(args.input_path, args.img_path, args.pairs)
            judge, larger = find_judge(args), find_super_resolution(args)
            there = sum(is_there(args, pair) for pair in pairs)
            if there:
                print(f"{there} of {len(pairs)} pictures are there and kept as they are; --overwrite paints them anew.")
            if there < len(pairs):
                paint_all(pairs, judge, larger, args)
            parallel.wait_for_all()
            files = [picture_path(args, pair).resolve() for pair in pairs]
            if args.scale:
                with autocast(args.amp):
                    enlarge_files(files[parallel.RANK :: parallel.SIZE], args.scale, larger, quiet=not parallel.MAIN)
            if args.zip and parallel.MAIN:
                print(f"Packed {pack(args.output_path.resolve(), files)}")
            if args.score and parallel.MAIN:
                given = (args.img_path, args.truth_path, judge, args.weights, args.style_metric)
                print(f"Picture by picture: {score_folder(pairs, args.output_path.resolve(), *given, SIZE)}")
    except KeyboardInterrupt:
        print(f"Stopped. The same command {'paints all anew' if args.overwrite else 'does the rest'}.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    with parallel.failing_together():
        or_exit(main)
