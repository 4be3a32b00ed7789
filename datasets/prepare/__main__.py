"""Prepares data sets. Nothing that is given is changed; what is written goes to a folder of its own.

python3 -m datasets.prepare clean --input_path /data/landscape --output_path /data/clean    # what is better left out, and why
python3 -m datasets.prepare split --input_path /data/landscape --output_path /data/split    # a part held out, to be painted and scored
python3 -m datasets.prepare sr --input_path /data/landscape --output_path /data/sr          # pairs of high and half resolution
python3 -m datasets.prepare draw --output_path /data/drawn --train 2000 --test 64           # a set like the built-in one, of any size
python3 -m datasets.prepare styles --output_path /data/styles --styles 28                   # drawn styles, a few pictures of each
"""

import sys
from pathlib import Path

from datasets.prepare.clean import write_report
from datasets.prepare.split import write_split
from datasets.prepare.super_resolution import write_resolutions
from datasets.synthetic.write import write_dataset
from datasets.synthetic.write_styles import write_styles
from utils.errors import UserError, or_exit
from utils.options import argument_parser

PROGRAM = "python3 -m datasets.prepare"


def parse_arguments():
    parser = argument_parser(__doc__)
    parser.prog = PROGRAM
    commands = parser.add_subparsers(dest="command", required=True, metavar="clean | split | sr | draw | styles", prog=PROGRAM)
    clean = commands.add_parser("clean", allow_abbrev=False, help="list what is damaged, grey, framed or there twice, and wrong masks")
    split = commands.add_parser("split", allow_abbrev=False, help="divide a training set into one to train on and one to validate on")
    sr = commands.add_parser("sr", allow_abbrev=False, help="write photos in high and in half the resolution")
    drawing = commands.add_parser("draw", allow_abbrev=False, help="draw landscapes with masks and captions, as the built-in set has them")
    for command, text in (
        (clean, "training set: above train_resized/, train/, or imgs/ and labels/"),
        (split, "training set: above train_resized/, train/, or imgs/ and labels/"),
        (sr, "photos: their folder, or the training set above it"),
    ):
        command.add_argument("--input_path", type=Path, required=True, help=text)
    styles = commands.add_parser("styles", allow_abbrev=False, help="draw styles of a few pictures each, to be learnt by stage style")
    for command in (clean, split, sr, drawing, styles):
        command.add_argument("--output_path", type=Path, required=True, help="a new folder")
    for command in (split, sr):
        command.add_argument("--leave_out", type=Path, help="list of pictures to leave out, a stem a line, as clean writes it")
    clean.add_argument("--judge", type=Path, help="run of system judge, such as checkpoints/judge, that looks at the masks too")
    part = split.add_mutually_exclusive_group()
    part.add_argument("--share", type=float, default=0.05, help="of the pairs, held out (default: %(default)s)")
    part.add_argument("--count", type=int, help="how many pairs are held out, instead of a share")
    split.add_argument("--seed", type=int, default=0, help="decides which, as that of MainTrain.py does (default: %(default)s)")
    drawing.add_argument("--train", type=int, required=True, help="how many pictures to train on")
    drawing.add_argument("--test", type=int, default=0, help="how many masks to paint, with references and true pictures (default: 0)")
    styles.add_argument("--styles", type=int, default=28, help="how many (default: %(default)s)")
    styles.add_argument("--pictures", type=int, default=8, help="of each style (default: %(default)s)")
    styles.add_argument("--prompts", type=int, default=4, help="to be painted in each style (default: %(default)s)")
    styles.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    drawing.add_argument("--seed", type=int, default=1, help="of all that is drawn; the built-in set has 0 (default: %(default)s)")
    split.add_argument("--copy", action="store_true", help="copy the files instead of linking to them")
    split.add_argument("--skip_bad", action="store_true", help="leave out damaged pictures and masks instead of stopping")
    return parser.parse_args()


def check_arguments(args):
    """Raises UserError, naming every fault, for numbers that make no sense."""
    faults = []
    if args.command == "clean":
        faults += [f"--judge {args.judge} is not a folder"] if args.judge and not args.judge.is_dir() else []
    if args.command == "split":
        faults += ["--share must be above 0 and below 1"] if not 0 < args.share < 1 else []
        faults += ["--count must be at least 1"] if args.count is not None and args.count < 1 else []
        faults += ["--seed must be at least 0 and below 2^31"] if not 0 <= args.seed < 2**31 else []
    if faults:
        raise UserError("; ".join(faults))


def main():
    args = parse_arguments()
    check_arguments(args)
    try:
        if args.command == "clean":
            write_report(args.input_path, args.output_path, args.judge)
        elif args.command == "split":
            write_split(args.input_path, args.output_path, args.share, args.count, args.seed, args.copy, args.skip_bad, args.leave_out)
        elif args.command == "draw":
            write_dataset(args.output_path, args.train, args.test, args.seed)
        elif args.command == "styles":
            write_styles(args.output_path, args.styles, args.pictures, args.prompts, args.seed)
        else:
            write_resolutions(args.input_path, args.output_path, args.leave_out)
    except KeyboardInterrupt:
        print("Stopped. To finish, give the same command again.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    or_exit(main)
