"""Stopping a run in good order: Ctrl-C, SIGTERM, the end of its terminal and the end of its time."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class Stop:
    """Whether training is to stop: after Ctrl-C, SIGTERM or SIGHUP, or when the time is up.

    `catch` is the handler of the signals. It raises KeyboardInterrupt at once, except inside `finishing`: there the first signal waits, so
    that the step under way can end and be saved, and a second one raises it.
    """

    def __init__(self, max_minutes: float = math.inf):
        self.deadline = time.monotonic() + 60 * max_minutes
        self.signal, self.waits = None, False

    def catch(self, number: int, frame: object) -> None:
        twice, self.signal = self.signal is not None, number
        if twice or not self.waits:
            raise KeyboardInterrupt(number)
        tqdm.write("Stopping after this step, to save it. Once more to stop at once.", file=sys.stderr)

    @property
    def wanted(self) -> bool:
        return self.signal is not None or time.monotonic() > self.deadline

    @property
    def status(self) -> int:
        """The exit status of a process that was stopped: 128 and the signal's number, or 0 where its time was up."""
        return 128 + self.signal if self.signal else 0

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Inside, a first signal only makes `wanted` true; a second one raises KeyboardInterrupt."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within `finishing`: inside, a signal ends the block early and is not raised further. For work that may be skipped."""
        self.waits = False
        try:
            yield
        except KeyboardInterrupt:
            if self.signal is None:
                raise
        finally:
            self.waits = True
