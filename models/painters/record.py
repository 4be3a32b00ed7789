"""What painted the pictures of a folder, kept in a file beside it: a picture that is kept is not taken for one of another run.

    <output>-painted.jsonl  a line a batch: {"pictures": {"<mask>.jpg": checksum of the file, ...}, "checkpoint": "...", "steps": "25", ...}

A line holds for pictures whose file is still what it was then. Of others it is not known what painted them, and nothing is said of them.
"""

import argparse
import json
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from datasets.test_pairs import TestPair
from models.networks.pretrained import WEIGHTS, exported_step
from models.training.run import run_of
from utils.checkpoint import weights_in
from utils.options import show


def way_of(args: argparse.Namespace) -> dict[str, str]:
    """What decides how pictures look, by name, as words of a command: the checkpoint, with the steps that the networks of its run have been
    trained, and the options of MainTest.py and of the painter. {} where there is no run."""
    if args.checkpoint is None:
        return {}
    checkpoint, run = args.checkpoint.resolve(), run_of(args.checkpoint)
    folders = sorted(path.parent.relative_to(run) for path in run.rglob(WEIGHTS))
    used = [folder for folder in folders if checkpoint != run or folder.parts[0] != "best"]  # the best ones decode by the run's decoder
    steps = ", ".join(f"{folder} {exported_step(run / folder)}" for folder in used)
    way = {"checkpoint": f"{checkpoint} [{steps}]", **asdict(args.options)}
    if way.get("prompts"):
        with suppress(OSError, ValueError):  # who reads the prompts says it
            way["prompts"] = f"{way['prompts']} [{checksum(Path(way['prompts']))}]"
    if way.get("lora"):
        files = [weights_in(path) if path.is_dir() else path for path, _ in args.options.adapters]  # which may be trained on
        way["lora"] = tuple(f"{word} [{checksum(file)}]" for word, file in zip(way["lora"], files, strict=True))
    way |= {name: getattr(args, name) for name in ("color_match", "amp", "seed", "use_sr", "best_of")}
    way |= {"sr_checkpoint": args.sr_checkpoint or "newest", "sr_tile": args.sr_tile} if args.use_sr else {}
    way |= {"best_by": args.best_by, "style_metric": args.style_metric, "judge": args.judge or "newest"} if args.best_of > 1 else {}
    return {name: show(value) or "none" for name, value in way.items()}


def record_of(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.parent / f"{folder.name}-painted.jsonl"


def note_way(pairs: list[TestPair], folder: Path, way: dict[str, str]) -> None:
    """Notes that the pairs' pictures in the folder, just written, were painted in this way, where that can be written."""
    line = json.dumps({"pictures": {pair.file: checksum(folder / pair.file) for pair in pairs}} | way)
    with suppress(OSError), open(record_of(folder), "ab", buffering=0) as file:  # all of it at once: several processes may paint
        file.write(f"\n{line}\n".encode())  # the last one may have been cut short


def ways_of(pairs: list[TestPair], folder: Path) -> list[dict[str, str]]:
    """How each of the pairs' pictures in the folder was painted, of those of which it is known."""
    noted = {}
    with suppress(OSError):
        for line in record_of(folder).read_bytes().splitlines():
            with suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):  # cut short by a kill, or damaged
                read = json.loads(line)
                way = {name: str(value) for name, value in read.items() if name != "pictures"}
                noted |= dict.fromkeys(read["pictures"].items(), way)
    found = [noted.get((pair.file, checksum(folder / pair.file))) for pair in pairs] if noted else []
    return [way for way in found if way]


def checksum(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


def otherwise(pairs: list[TestPair], folder: Path, way: dict[str, str]) -> str:
    """Which pictures were painted in another way than this, as part of a sentence: "" where none is known to be."""
    others = [{name: value for name, value in each.items() if way.get(name, value) != value} for each in ways_of(pairs, folder)]
    others = [differing for differing in others if differing]
    before = {name: sorted({differing[name] for differing in others if name in differing}) for name in way}
    changes = "; ".join(f"{name} {' or '.join(values)}, now {way[name]}" for name, values in before.items() if values)
    return f", {len(others)} of them painted otherwise ({changes})" if others else ""
