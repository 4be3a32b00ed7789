"""What a run shows and leaves behind while it trains: validation, previews, exported networks, and the best of them."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jittor as jt
import numpy as np
from tqdm import tqdm

from datasets.loader import spread, stack
from datasets.pairs import Pair
from models.networks.pretrained import exported_step, save_networks
from models.training.run import read_best
from utils.checkpoint import write_json
from utils.image import contact_sheet, write_png
from utils.logger import RunLog
from utils.stop import Stop

VALIDATION_PAIRS = 160  # validated on at most: more would cost minutes and change little
VALIDATION_BATCH = 8  # at most, however many a training step takes: one process has the memory for these
PREVIEW_PAIRS = 4
FAR_WORSE = 1.2  # times the best validation: more than noise, and less than a UNet loses that no longer sees its conditions
YOUNG = 5.0  # an average of weights that has seen fewer steps than so many times its memory, 1 / (1 − decay), lags far behind them


@contextmanager
def averaged(stage) -> Iterator[None]:
    """Inside, the networks of all learners hold their averaged weights."""
    with ExitStack() as stack:
        for learner in stage.learners.values():
            stack.enter_context(learner.averaged())
        yield


def validate(stage, dataset, seed: int, stop: Stop | None = None) -> dict[str, float]:
    """Means over the validation pairs, under the averaged weights, of what `stage.validate` finds of a batch: by name a number, or one for
    each of some of its pictures. The same pictures and noise every time.

    Of more than VALIDATION_PAIRS an even spread is taken; in batches of about one size, so that none is of a single picture, which would be
    its own "other" picture. {} where it is stopped on the way.
    """
    indices = spread(len(dataset), VALIDATION_PAIRS)
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}
    with averaged(stage):
        for batch in tqdm(
            np.array_split(indices, -(-len(indices) // VALIDATION_BATCH)), desc="validating", unit="batch", leave=False, dynamic_ncols=True
        ):
            if stop is not None and stop.wanted:
                return {}
            examples = [dataset.example(int(i), np.random.default_rng((seed, int(i)))) for i in batch]
            for name, value in stage.validate(stack(examples)).items():
                values = np.full(len(batch), value) if np.ndim(value) == 0 else value
                sums[name] = sums.get(name, 0) + float(values.sum())
                weights[name] = weights.get(name, 0) + len(values)
    return {name: value / weights[name] for name, value in sums.items() if weights[name]}


def preview(stage, pairs: list[Pair], folder: Path, step: int, log: RunLog, stop: Stop) -> None:
    """Writes <run>/previews/<stage>-<step>.png, painted with the averaged weights; of a young run also …-raw.png, painted with the weights
    themselves, which are ahead of their average. A signal ends the painting."""
    young = any(step * (1 - average.decay) < YOUNG for learner in stage.learners.values() for average in learner.averages.values())
    sheets = {"preview": averaged(stage)} | ({"raw": jt.no_grad()} if young else {})
    for name, weights in sheets.items():
        rows = None
        with weights, stop.at_once():
            rows = stage.preview(pairs[:PREVIEW_PAIRS])
        if rows is None:
            return
        sheet = contact_sheet(rows, titles=stage.columns)
        write_png(folder / "previews" / f"{stage.name}-{step:08d}{'' if name == 'preview' else f'-{name}'}.png", sheet)
        log.pictures(step, {name: sheet})


def export(stage, folder: Path, step: int) -> None:
    """Writes the averaged weights of the stage's networks in diffusers' layout, all of the same step."""
    learners = {name: learner for learner in stage.learners.values() for name in learner.networks}
    networks = {name: (learners[name].networks[name], learners[name].to_export(name)) for name in stage.networks}
    save_networks(networks, folder, step)


def is_exported(stage, folder: Path, step: int) -> bool:
    return all(exported_step(folder / name) == step for name in stage.networks)


def note_best(stage, folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Keeps the weights of the best validation in <run>/best, and says in best.json which step they are of. A validation that is far worse
    is said: by itself, training that has collapsed goes on to its last step."""
    best = read_best(folder)
    value, so_far = stage.to_minimise(metrics), best.get(stage.name, {"step": 0, "value": np.inf})
    if 0 < FAR_WORSE * so_far["value"] < value:
        tqdm.write(
            f"Stage {stage.name}: the validation of step {step} is {value:.4g}, and that of step {so_far['step']}, whose weights are in "
            f"{folder / 'best'}, was {so_far['value']:.4g}. Where that lasts, training has collapsed, or learns its photos by heart: paint "
            f"with these weights, or train anew with a lower --{stage.name}_lr.",
            file=sys.stderr,
        )
    if np.isfinite(value) and value < so_far["value"]:
        export(stage, folder / "best", step)
        write_json(folder / "best" / "best.json", best | {stage.name: {"step": step, "value": value, **metrics}})
