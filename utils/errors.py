"""Errors that are the user's to mend: told in a sentence, without a traceback."""

import sys


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, in which file, and what to do."""

    status = 2  # exit status of the script


class DiskError(UserError):
    """A file could not be written (disk full, quota): nothing is wrong with what the user asked for."""

    status = 1


def or_exit(function):
    """What `function` returns; a UserError it raises ends the process with its message on stderr and its exit status."""
    try:
        return function()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.status) from None
