"""Errors that are the user's to mend: told in a sentence, without a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OUT_OF_MEMORY = (
    "out of memory",
    "Unable to alloc",
    "cudaErrorMemoryAllocation",
    "ALLOC_FAILED",
    "bad_alloc",
)  # of CUDA, Jittor, cuDNN, C++

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
REFUSALS = (*DISK, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.EMFILE, errno.ENFILE)


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, in which file, and what to do."""

    status = 2  # exit status of the script


class DiskError(UserError):
    """A file could not be written (disk full, quota): nothing is wrong with what the user asked for."""

    status = 1


class TrainingError(UserError):
    """The work cannot go on, though the command was right: numbers are no numbers any more, or memory is short."""

    status = 1


def open_standard_streams() -> None:
    """Opens what the caller has closed of stdin, stdout and stderr (`2>&-`), as nothing: else the next file that is opened would be in its
    place, and what is printed, by a library too, would be written into that file."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (it stays open)


def or_exit(function):
    """What `function` returns; a UserError it raises ends the process with its message on stderr and its exit status.

    So does what the system refuses: a name that is too long, a folder that may not be read, a disk that is full or broken. A
    KeyboardInterrupt that nobody has caught, with the signal's number or that of Ctrl-C, ends it with a word, and a reader of its output
    that has gone (`| head`) without one. What the terminal cannot show of names and signs is shown as numbers.
    """
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # it is not a file
            stream.reconfigure(errors="backslashreplace")
    try:
        return function()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.status) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"{error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        raise SystemExit(DiskError.status if error.errno in DISK else UserError.status) from None
    except KeyboardInterrupt as stop:
        print("Stopped.", file=sys.stderr)
        raise SystemExit(128 + (*stop.args, signal.SIGINT)[0]) from None


@contextmanager
def telling_of_memory(advice: str) -> Iterator[None]:
    """Turns what Jittor raises where memory is short into a TrainingError; `advice` says what takes less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise TrainingError(f"The device is out of memory: {advice}") from error
