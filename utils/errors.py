"""Errors that are the user's to mend: told in a sentence, without a traceback."""


class UserError(Exception):
    """Something the user can put right: the message says what is wrong, in which file, and what to do."""

    status = 2  # exit status of the script


class DiskError(UserError):
    """A file could not be written (disk full, quota): nothing is wrong with what the user asked for."""

    status = 1
