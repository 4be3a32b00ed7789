"""The only training loop there is. It knows no stage: a stage owns its step, and the loop does all around it.

A stage is a class with

    name, builds_on, networks, columns    its name, the stages it stands on, the networks it exports, the titles of its preview
    Options, options                      the class of its options, a StageOptions, and its own
    learners                              by name, what it trains: one for a diffusion model, two for a generator and its discriminator;
                                          each network that is exported is in one, and has a `config`, a dataclass
    datasets(train, validation)           what `datasets.loader.batches` takes
    train_step(batches, step)             one step by micro-batches, of all its learners in turn (`Learner.step`); returns scalars to log
    validate(batch)                       metrics of a validation batch, whose names begin with val_
    to_minimise(metrics)                  the number that the best weights have lowest
    preview(pairs)                        rows of pictures

and is made by Stage(options, folder), with what it builds on in `folder`. tests/models/training/toy_gan.py has a small one of two learners.
"""

import sys
import time
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.loader import batches
from datasets.pairs import Pair
from models.training.progress import export, is_exported, note_best, preview, validate
from models.training.run import Run, begun_stages
from utils import parallel
from utils.checkpoint import as_array, latest_training_state, read_training_state, save_training_state
from utils.errors import TrainingError, UserError
from utils.logger import RunLog, read_log
from utils.stop import Stop

KEEP = 2  # training states


def train(stage, pairs: tuple[list[Pair], list[Pair]], run: Run, later: list[str], workers: int, stop: Stop) -> bool:
    """Trains a stage to its last step, or until `stop`; returns whether it is done.

    pairs: to train and to validate on. later: the stages that build on this one, and must not have begun while it goes on.
    """
    options, folder, states = stage.options, run.folder, run.folder / "state" / stage.name
    start, examples = resume(stage, states)
    parallel.check_alike("All processes must see the same checkpoints/: share that folder between the machines; steps done differ", start)
    if start and parallel.MAIN and not is_exported(stage, folder, start):
        export(stage, folder, start)  # the run was killed between saving and exporting

    def due(step: int, every: int) -> bool:
        return step % every == 0 or step == options.steps

    # A stop skips the validation, which is made up for here.
    missed = start > 0 and due(start, options.validate_every) and not is_validated(folder, stage.name, start)
    if start >= options.steps and not missed:
        print(f"Stage {stage.name}: done ({start} steps)")
        return True
    built = begun_stages(folder) & {*later}
    if built and start < options.steps:
        raise UserError(
            f"Stage {', '.join(built)} of {folder} builds on stage {stage.name} as it is, and would be of no use if that went on. "
            "Train it on in a run of another name (--run), or begin both anew with --restart, which throws both away."
        )
    with parallel.main_first():
        training_set, validation_set = stage.datasets(*pairs)
    log = RunLog(folder, stage.name, resume_step=start) if parallel.MAIN else None

    def evaluated(step: int) -> dict[str, float]:
        """What is due after a step, by the main process; a stop cuts it short, so that the step is saved without delay."""
        metrics = validate(stage, validation_set, run.seed, stop) if due(step, options.validate_every) else {}
        if metrics:
            note_best(stage, folder, step, metrics)
            log.scalars(step, metrics)  # last: what is logged is not made up for
        if due(step, options.preview_every) and not stop.wanted:
            preview(stage, pairs[1], folder, step, log, stop)
        return metrics

    stream = batches(training_set, options.batch_size, run.seed, examples, workers, (parallel.RANK, parallel.SIZE))
    bar = tqdm(initial=start, total=options.steps, desc=stage.name, unit="step", dynamic_ncols=True, disable=not parallel.MAIN)
    with closing(log) if log else nullcontext(), closing(stream), bar, stop.finishing():
        metrics = evaluated(start) if missed and parallel.MAIN else {}
        done, to_save, fault = start, False, None
        stopping = parallel.anywhere(stop.wanted)
        while done < options.steps and not stopping:
            begun = time.monotonic()
            try:
                micro_batches = list(islice(stream, options.accumulate))
            except UserError as error:  # a photo has vanished, say: what was done is saved before that is told
                fault = error
            if parallel.anywhere(fault is not None):
                if parallel.MAIN and done > start:
                    save(stage, folder, done, examples)
                break
            waited = time.monotonic() - begun
            scalars = stage.train_step(micro_batches, done)
            scalars |= {"seconds": time.monotonic() - begun, "waited": waited}  # for the step, and of these for its pictures
            done, examples = done + 1, examples + options.batch_size * options.accumulate
            bar.update()
            try:
                if parallel.MAIN:
                    log.scalars(done, scalars)
                    metrics |= {} if stop.wanted else evaluated(done)
            except UserError as error:
                fault = error
            bar.set_postfix({name: f"{value:.4f}" for name, value in (scalars | metrics).items() if name in ("loss", "val_loss")})
            # Asked once: a signal that comes after this line is seen after the next step, so that the loop never leaves without saving.
            stopping = parallel.anywhere(stop.wanted or fault is not None)
            to_save = to_save or due(done, options.save_every)
            # A state whose gradients have ceased to be finite must not push out a good one.
            sound = not any(learner.failures for learner in stage.learners.values())
            if stopping or done == options.steps or (to_save and sound):
                if parallel.MAIN:
                    save(stage, folder, done, examples)
                to_save = False
    stopped = parallel.anywhere(stop.wanted)  # which waits for the last save: what comes next reads it
    if fault is not None:
        print(f"Stage {stage.name} could not go on after step {done}. What was done is saved.", file=sys.stderr)
        raise fault
    return done >= options.steps and not stopped


def resume(stage, states: Path) -> tuple[int, int]:
    """Takes the newest training state in; returns the steps done and the examples seen, 0 and 0 where there is none.

    The arrays that were read take as much memory as the training does; they are freed when this returns.
    """
    path = latest_training_state(states)
    if path is None:
        return 0, 0
    arrays, info = read_training_state(path)
    if type(info.get("examples")) is not int or info["examples"] < 0 or info.get("stage") != stage.name:
        raise UserError(f"{path} is no training state of stage {stage.name} ({info}): move it away, or begin the stage anew with --restart")
    stored = {key.partition(".")[0] for key in arrays}
    if lost := sorted(stored - stage.learners.keys()):
        raise UserError(
            f"{path} also holds what has been learnt of {', '.join(lost)}, which would be lost: install what is named above, or --restart"
        )
    if new := sorted(stage.learners.keys() - stored):
        raise UserError(
            f"{path} holds nothing of {', '.join(new)}, as what that needs was not installed when the stage began: begin it anew with "
            "--restart, or take that away again"
        )
    for name, learner in stage.learners.items():
        prefix = f"{name}."
        learner.load({key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}, str(path))
    return info["step"], info["examples"]


def save(stage, folder: Path, step: int, examples: int) -> None:
    """Writes a training state, and then the networks. Raises TrainingError, and writes nothing, where weights are not finite."""
    state = {f"{name}.{key}": value for name, learner in stage.learners.items() for key, value in learner.state().items()}
    weights = (var for learner in stage.learners.values() for part in learner.weights.values() for var in part.values())
    if not all(np.isfinite(as_array(var)).all() for var in weights):  # by NumPy: Jittor's kernels are compiled as if there were no nan
        raise TrainingError(
            f"Weights of stage {stage.name} are not finite after step {step}: training has diverged, and this is not saved. Give the same "
            "command with a lower learning rate (--lr) to go on from the last checkpoint."
        )
    save_training_state(folder / "state" / stage.name, step, state, {"stage": stage.name, "examples": examples}, KEEP)
    export(stage, folder, step)


def is_validated(folder: Path, stage: str, step: int) -> bool:
    """Whether the run's log has what a validation after this step found."""
    lines = [line for line in read_log(folder / "log.jsonl") if (line.get("stage"), line.get("step")) == (stage, step)]
    return any(name.startswith("val_") for line in lines for name in line)
