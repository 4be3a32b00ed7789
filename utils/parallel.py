"""Several processes that train or paint as one, started by `mpirun`. A process that was started alone is a team of one.

Each computes with its share of every batch; gradients are averaged, so all keep the same weights. The main process alone writes.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jittor as jt
import numpy as np

from utils.errors import UserError

RANK, SIZE = jt.rank, jt.world_size
MAIN = RANK == 0


def mean(variables: list[jt.Var]) -> list[jt.Var]:
    """The means of floating-point Vars over all processes, which all must ask for in the same order. Differentiable."""
    return [variable.mpi_all_reduce("mean") for variable in variables] if SIZE > 1 else variables


def mean_scalars(scalars: dict[str, float]) -> dict[str, float]:
    """The means of numbers over all processes."""
    if SIZE == 1:
        return scalars
    (values,) = mean([jt.array(np.array([*scalars.values()], np.float64))])
    return dict(zip(scalars, values.numpy().tolist(), strict=True))


def anywhere(condition: bool) -> bool:
    """Whether the condition holds in any process. All must ask; all wait for one another."""
    return mean_scalars({"condition": float(condition)})["condition"] > 0


def wait_for_all() -> None:
    anywhere(False)


def check_alike(what: str, value: int) -> None:
    """Raises UserError where a whole number is not the same in all processes; `what` says what that means."""
    if anywhere(abs(mean_scalars({"value": value})["value"] - value) > 0.25):  # of numbers that differ one is half and more from the mean
        raise UserError(f"{what} (process {RANK} of {SIZE} has {value}).")


def begin() -> None:
    """Leaves to the main process what all would print. Raises UserError where some have a GPU and some have none."""
    if not MAIN:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
    check_alike("Start no more processes than there are GPUs: some have found none", int(jt.has_cuda))


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block first, then the others: what it leaves on disk they find."""
    if not MAIN:
        wait_for_all()
    yield
    if MAIN:
        wait_for_all()


@contextmanager
def failing_together() -> Iterator[None]:
    """What ends one process here with an error ends all: one that leaves in the usual way would wait for the others, and they for it."""
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if SIZE == 1 or not status:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)  # mpirun sees a process leave unasked, and stops the others
