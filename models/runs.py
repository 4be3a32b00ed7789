"""The trained runs that MainTest.py uses: those that the command names, or else the newest below checkpoints/."""

from pathlib import Path

from models.metrics.mask_accuracy import Judge, judge_file, load_judge
from models.painters.super_resolution import SuperResolution, published_rcan, rcan_file, rcan_of
from models.systems import SYSTEMS
from models.training.run import SHIPPED, newest_run, read_json, read_run, run_of
from utils.errors import UserError


def is_shipped(checkpoint: Path, checkpoints: Path) -> bool:
    """Whether a run is the one that comes with the program."""
    return run_of(checkpoint) == (checkpoints / SHIPPED).resolve()


def trained_on(checkpoint: Path | None) -> Path | None:
    """The folder of the data set that a run was trained on; None where there is no run, or it was the built-in one."""
    folder = run_of(checkpoint) if checkpoint else None
    path = read_json(folder)["input_path"] if folder and (folder / "run.json").is_file() else None
    return Path(path) if path else None


def load_painter(checkpoint: Path | None, checkpoints: Path):
    """The painter of a run or of its `best`. Raises UserError where there is none, or it is damaged."""
    if checkpoint is None:
        raise UserError(f"No trained run in {checkpoints}: train one with MainTrain.py, or name one with --checkpoint.")
    if is_shipped(checkpoint, checkpoints):
        print(f"Painting with checkpoints/{SHIPPED}, the run that comes with the program. MainTrain.py trains one of your own.")
    run = read_run(run_of(checkpoint), SYSTEMS)
    return SYSTEMS[run.system].painter.load(run, checkpoint.resolve())


def find_judge(named: Path | None, checkpoints: Path) -> Judge | None:
    """The judge of the run that is named, or of the newest that has one; None where none has."""
    folder = named or newest_run(checkpoints, judge_file)
    return load_judge(read_run(folder.resolve(), SYSTEMS)) if folder else None


def find_super_resolution(named: Path | None, tile: int, checkpoints: Path) -> SuperResolution:
    """RCAN of the run or the file of published weights that is named, or of the newest run. Raises UserError where there is none."""
    path = named or newest_run(checkpoints, rcan_file)
    if path is None:
        raise UserError("--use_sr and --scale need RCAN: train it with MainTrain.py --system sr, or name its weights with --sr_checkpoint")
    return SuperResolution(published_rcan(path) if path.is_file() else rcan_of(read_run(run_of(path), SYSTEMS)), tile)
