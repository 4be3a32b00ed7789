"""Paints a picture for every mask, in the style of the reference photo that the pairs file gives it.

    python3 MainTest.py                                      # the built-in masks, with the newest run
    python3 MainTest.py --input_path val_A_labels_resized --img_path train_resized/imgs --output_path results
    python3 MainTest.py --serve                              # in the browser: draw a mask, and watch the picture appear

writes results/<mask's stem>.jpg, 512x384, for each mask, and what painted it into results-painted.jsonl. Pictures that exist are kept: a
run that was killed is finished by the same command, on the CPU with the same bytes as if it had never been killed. --score prints the
competition's score of these pictures too, and writes report.html and score.json; if all are there, it needs no run.
"""

import argparse
import sys
from pathlib import Path

from utils import jittor_setup  # before anything that imports Jittor

# isort: split
import numpy as np
from tqdm import tqdm

from datasets.synthetic.write import draw_built_in
from datasets.test_pairs import TestPair, check_results, find_test_pairs
from models.metrics import merit
from models.metrics import score as scoring
from models.metrics.mask_accuracy import Judge
from models.networks.layers import DTYPES, autocast
from models.painters import super_resolution
from models.painters.pictures import SIZE, kept, note_seeds, pack, painted, usual_color, words_of
from models.painters.record import note_way, otherwise, way_of
from models.painters.super_resolution import LEAST_TILE, SuperResolution, enlarge_files
from models.runs import find_judge, find_super_resolution, is_shipped, load_painter, trained_on
from models.serving import page
from models.serving.studio import Studio, to_choose_from
from models.systems import SYSTEMS, painter_file, painting_system
from models.training.run import newest_run
from utils import parallel
from utils.errors import UserError, or_exit, telling_of_memory
from utils.image import COLOR_MATCHES, resize, write_picture
from utils.options import add_arguments, argument_parser, faults, given
from utils.signals import on_stop
from utils.stop import Stop

ROOT = Path(__file__).resolve().parent
BUILT_IN, CHECKPOINTS = ROOT / "datasets" / "landscape", ROOT / "checkpoints"
MOST = 4096  # of pictures at once, and of candidates for one
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
    painting.add_argument("--color_match", choices=COLOR_MATCHES, help=f"of result to reference ({painter.color_match}; with words none)")
    painting.add_argument("--amp", choices=DTYPES, default="float32", help="precision of products (default: %(default)s)")
    painting.add_argument("--seed", type=int, default=0)
    painting.add_argument("--batch_size", type=int, default=8, help="pictures at once (default: %(default)s)")
    add_arguments(parser.add_argument_group(f"the painter of system {system}"), painter.Options, "", {"default": painter.Options()})
    super_resolution.add_arguments(parser)
    scoring.add_arguments(parser, CHECKPOINTS / "weights")
    merit.add_arguments(parser)
    page.add_arguments(parser)
    args, unknown = parser.parse_known_args()
    if unknown:
        raise UserError(f"{' '.join(unknown)}: the painter of system {system} has no such option, nor has MainTest.py. --help lists them.")
    if painter.find_pairs is not find_test_pairs:
        args.input_path, args.img_path = (trained_on(checkpoint) or p if p == BUILT_IN else p for p in (args.input_path, args.img_path))
    args.checkpoint, args.find_pairs, args.options = checkpoint, painter.find_pairs, painter.Options(**given(args, painter.Options, ""))
    args.color_match = args.color_match or usual_color(painter, args.options)
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for numbers that make no sense, before anything is loaded."""
    found = [f"--{name} must be 1 to {MOST}" for name in ("batch_size", "best_of") if not 1 <= getattr(args, name) <= MOST]
    found += ["--seed must be at least 0 and below 2^63"] if not 0 <= args.seed < 2**63 else []
    found += [f"--sr_tile must be 0, or at least {LEAST_TILE}"] if args.sr_tile and args.sr_tile < LEAST_TILE else []
    found += ["--serve is for one process"] if args.serve and parallel.SIZE > 1 else []
    found += ["--serve takes words on the page or by --prompt, not --prompts"] if args.serve and getattr(args, "prompts", None) else []
    if args.find_pairs is not find_test_pairs and (args.serve or args.best_of > 1 or args.use_sr or args.color_match != "none"):
        found += ["--serve, --best_of, --use_sr and --color_match are not for this run, which knows neither masks nor references"]
    found += faults(args.options, "") or args.options.faults()
    if found:
        raise UserError("; ".join(found))


def judge_of(args: argparse.Namespace) -> Judge | None:
    """The judge that is asked for, or the newest; None where there is none, or no use for one."""
    choosing = args.best_of > 1 and args.best_by != "style"
    judge = find_judge(args.judge, CHECKPOINTS) if choosing or args.score or args.serve else None
    if choosing and judge is None:
        raise UserError(f"--best_by {args.best_by} needs a judge: train one with MainTrain.py --system judge, or give --best_by style")
    return judge


def is_there(args: argparse.Namespace, pair: TestPair) -> bool:
    return (args.output_path / pair.file).is_file() and not args.overwrite


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
        merits = np.stack([merit.merit(pictures, pairs, args.best_by, judge, args.style_metric) for pictures in candidates])  # [N, B]
        best = np.stack(candidates)[merits.argmax(axis=0), np.arange(len(pairs))]
    for pair, result in zip(pairs, best, strict=True):
        if pair in missing:
            write_picture(args.output_path / pair.file, result)
            note_way([pair], args.output_path, args.way)


def paint_all(pairs: list[TestPair], judge: Judge | None, larger: SuperResolution | None, args: argparse.Namespace) -> None:
    """Paints the pictures that are not there, of which each process has its share."""
    if args.checkpoint is None and args.score:
        check_results(pairs, args.output_path, SIZE)  # says which are missing
    painter = load_painter(args.checkpoint, CHECKPOINTS)
    note_seeds([pair for pair in pairs if not is_there(args, pair)], args.output_path, args.seed)
    print(f"{len(pairs)} pictures with {args.checkpoint}, to {args.output_path}")
    batches = [pairs[first : first + args.batch_size] for first in range(0, len(pairs), args.batch_size)]
    own = batches[parallel.RANK :: parallel.SIZE]
    with tqdm(total=sum(map(len, own)), desc="painting", unit="picture", dynamic_ncols=True, disable=not parallel.MAIN) as bar:
        for batch in own:
            paint(batch, painter, judge, larger, args)
            bar.update(len(batch))


def serve(pairs: list[TestPair], judge: Judge | None, larger: SuperResolution | None, args: argparse.Namespace) -> None:
    """Paints what is asked for in the browser, until Ctrl-C."""
    painter, resized = load_painter(args.checkpoint, CHECKPOINTS), larger.enlarged if args.use_sr else resize
    shown = args.checkpoint.resolve().name, is_shipped(args.checkpoint, CHECKPOINTS)
    choice = to_choose_from(pairs, args.img_path)
    with autocast(args.amp):
        page.serve(Studio(painter, args.options, args.color_match, args.seed, resized, judge, *choice, *shown), args.host, args.port)


def main() -> None:
    args = parse_arguments()
    check_arguments(args)
    stop = Stop()
    on_stop(stop.catch)
    parallel.begin()
    print(f"Device: {jittor_setup.DEVICE}")
    try:
        with telling_of_memory(LESS_MEMORY):
            if BUILT_IN in (args.input_path, args.img_path) and args.find_pairs is find_test_pairs:
                with parallel.main_first():
                    draw_built_in(BUILT_IN)
            pairs = args.find_pairs(args.input_path, args.img_path, args.pairs, args.output_path, args.truth_path, **words_of(args.options))
            judge = judge_of(args)
            larger = find_super_resolution(args.sr_checkpoint, args.sr_tile, CHECKPOINTS) if args.use_sr or args.scale else None
            if args.serve:
                return serve(pairs, judge, larger, args)
            args.way = way_of(args)
            there = [] if args.overwrite else kept(pairs, args.output_path)
            if there:
                others = otherwise(there, args.output_path, args.way)
                print(f"{len(there)} of {len(pairs)} pictures are there and kept as they are{others}; --overwrite paints them anew.")
            if len(there) < len(pairs):
                paint_all(pairs, judge, larger, args)
            parallel.wait_for_all()
            files = [args.output_path.resolve() / pair.file for pair in pairs]
            if args.scale:
                with autocast(args.amp):
                    enlarge_files(files[parallel.RANK :: parallel.SIZE], args.output_path.resolve(), args.scale, larger, not parallel.MAIN)
            if args.zip and parallel.MAIN:
                print(f"Packed {pack(pairs, args.output_path.resolve())}")
            if args.score and parallel.MAIN:
                given = (args.img_path, args.truth_path, judge, args.weights, args.style_metric)
                print(f"Picture by picture: {scoring.score_folder(pairs, args.output_path.resolve(), *given, SIZE)}")
    except KeyboardInterrupt:
        print(f"Stopped. The same command {'paints all anew' if args.overwrite else 'does the rest'}.", file=sys.stderr)
        sys.exit(stop.status)


if __name__ == "__main__":
    with parallel.failing_together():
        or_exit(main)
