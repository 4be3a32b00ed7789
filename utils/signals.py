"""Ctrl-C, SIGTERM and the end of a terminal, kept from the compilers that Jittor starts.

A terminal sends Ctrl-C to a process and to all that it has started, SIGHUP when it is closed or its connection lost, and a batch system may
send SIGTERM to all of them. A compiler that died by it would end a training step in the middle, with nothing saved. What a process ignores,
the programs that it starts ignore too, and g++ and the shell keep to that. So the signals are ignored, as far as the system knows; but all
threads block them, and a signal that is blocked is kept all the same, for a thread that waits for it.
"""

import _thread
import atexit
import ctypes
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOPS = {signal.SIGINT, signal.SIGTERM}
if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # under `nohup` that is ignored, and stays so
    STOPS.add(signal.SIGHUP)
SIG_IGN = ctypes.c_void_p(1)  # <signal.h>


@contextmanager
def blocked() -> Iterator[None]:
    """Blocks the signals in this thread, and in those that it starts in the block for as long as they live."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignores the signals behind Python's back, which goes on to know its handlers of them.

    Does nothing where a thread does not block them: the system would give such a thread a signal to ignore. A thread that waits for them
    counts as one, so it is to be started later.
    """
    for path in Path("/proc/self/task").glob("*/status"):
        with suppress(OSError):  # a thread that has just ended
            mask = int(re.search(r"SigBlk:\t(\w+)", path.read_text())[1], 16)
            if not all(mask >> number - 1 & 1 for number in STOPS):
                return
    for number in STOPS:
        ctypes.CDLL(None).signal(number, SIG_IGN)


def on_stop(handler: Callable) -> None:
    """Has Ctrl-C, SIGTERM and the end of the terminal call `handler(number, frame)` in the main thread from now on, as soon as Python has
    control there.

    Processes that are started later are not reached: they end by themselves, or by another signal.
    """

    def take() -> None:
        while True:
            _thread.interrupt_main(signal.sigwait(STOPS))

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        handler(number, frame)

    def leave() -> None:
        """At exit: all is done, and a signal that comes now would only interrupt the tidying up."""
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)

    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    for number in STOPS:
        signal.signal(number, handle)
    atexit.register(leave)
    ignore()
    threading.Thread(target=take, name="signals", daemon=True).start()


def leave_terminal() -> None:
    """Has what is printed from now on go nowhere, instead of failing, but where it goes to a file: who reads from a pipe, as `tee` does,
    has gone with the terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        with suppress(OSError):  # it is closed
            if not stat.S_ISREG(os.fstat(output).st_mode):
                os.dup2(nowhere, output)
    os.close(nowhere)


def without_tracing_stops(hook: Callable) -> Callable:
    """A `sys.excepthook` that leaves all to `hook` but a Ctrl-C that comes before anybody waits for one, as in the second of importing."""

    def report(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("Stopped.", file=sys.stderr)
        else:
            hook(kind, error, trace)

    return report


@contextmanager
def ending_at_once(sentence: str) -> Iterator[None]:
    """Has Ctrl-C, SIGTERM and SIGHUP end the process while the block runs, with `sentence` on stderr, whatever the block does about
    exceptions.

    Processes that the block has started are not reached.
    """

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # which tells that the block has ended
        started.set()
        number = signal.sigwait({*STOPS, signal.SIGUSR1})
        if number == signal.SIGHUP:
            leave_terminal()
        if number in STOPS:
            print(sentence, file=sys.stderr, flush=True)
            os._exit(128 + number)

    handlers = {number: signal.getsignal(number) for number in STOPS}
    started = threading.Event()
    with blocked():
        ignore()
        watcher = threading.Thread(target=watch, name="signals", daemon=True)
        watcher.start()
        started.wait()
        try:
            yield
        finally:
            signal.pthread_kill(watcher.ident, signal.SIGUSR1)
            watcher.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)
