"""Tries one step of each stage before training begins, so that a lack of memory, or published weights that do not fit, show in the first
minutes."""

import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import jittor as jt

from datasets.loader import batches
from datasets.pairs import Pair
from models.networks.pretrained import WEIGHTS
from models.training.learner import start_from
from models.training.progress import VALIDATION_BATCH, export, validate
from models.training.run import Run, System
from utils import parallel


def rehearse(
    system: System, stages: list[str], pairs: tuple[list[Pair], list[Pair]], run: Run, published: Mapping[str, Mapping[str, Path]]
) -> None:
    """Takes a training step and validates a batch of each of these stages, in a folder that is thrown away. It compiles their kernels too.

    A stage loads the networks of those it builds on: what the rehearsal has made of them, or else the run's. published: by stage and
    network, the weights that it starts from.
    """
    folder, begun = run.folder / "rehearsal", time.monotonic()
    print(f"Trying one step of {' and '.join(stages)}, and compiling what they need", flush=True)
    few = tuple(sorted(some, key=lambda pair: not pair.captions)[:VALIDATION_BATCH] for some in pairs)  # those with captions first
    own = {network for name in stages for network in system.stage(name).networks}
    trained = {network for stage in system.stages for network in stage.networks if (run.folder / network / "config.json").is_file()}
    try:
        if parallel.MAIN:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shutil.copy(run.folder / "run.json", folder)
            for network in trained - own:
                (folder / network).mkdir()
                for file in ("config.json", WEIGHTS):
                    shutil.copy(run.folder / network / file, folder / network)
        for name in stages:
            parallel.wait_for_all()  # for what the main process has copied or exported
            stage = system.stage(name)(run.options[name], folder)
            start_from(stage, published.get(name, {}))
            with parallel.main_first():
                training_set, validation_set = stage.datasets(*few)
            options = stage.options
            stream = batches(training_set, options.batch_size, run.seed, 0, workers=0, share=(parallel.RANK, parallel.SIZE))
            stage.train_step(list(islice(stream, options.accumulate)), 0)
            if parallel.MAIN:
                validate(stage, validation_set, run.seed)
                if name != stages[-1]:
                    export(stage, folder, 1)
            del stage, training_set, validation_set, stream
            jt.sync_all(True)
            jt.gc()  # its memory is the next stage's
    finally:
        if parallel.MAIN:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"All of them work; that took {time.monotonic() - begun:.0f} s", flush=True)
