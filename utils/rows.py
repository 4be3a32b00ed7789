"""Measurements of many files, a row each, kept on disk as they come: a run that was killed goes on from what it has.

A file of rows is records one after another, each the key of what was measured and the measurement. The key's end is a checksum of the
measurement, so that one that a disk has spoilt is measured again. It is only ever appended to, by one process at a time, and read through
the page cache, so that ten thousand pictures take no more memory than a batch.
"""

import fcntl
import hashlib
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.files import reporting_disk

KEY = "S32"
NAMED = 24  # bytes of a key that name what was measured; the rest, in a file, is the checksum


def digest(*contents: Path | bytes) -> bytes:
    """A key for the contents of files, or for bytes. Raises UserError where a file cannot be read."""
    total = hashlib.sha256()
    for content in contents:
        try:
            total.update(hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).digest())
        except OSError as error:
            raise UserError(f"{content} cannot be read ({error.strerror}): put it back, or leave it out of the data set") from error
    return total.hexdigest()[:32].encode()


class Rows:
    """The rows of a file that belong to some keys, in their order; like an array that stays on disk."""

    def __init__(self, records: np.ndarray, order: np.ndarray):
        self.records, self.order = records, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index) -> np.ndarray:
        return self.records["row"][self.order[index]]

    def column(self, name: str) -> np.ndarray:
        """One field of all the rows, without reading the others."""
        return self.records["row"][name][self.order]

    def blocks(self, size: int = 256) -> Iterator[np.ndarray]:
        """All of them, `size` at a time."""
        for first in range(0, len(self), size):
            yield self[first : first + size]


def measured(
    path: Path, keys: Sequence[bytes], row: np.dtype, measure: Callable[[list[int]], np.ndarray], batch_size: int, title: str
) -> Rows:
    """A row of type `row` for each key: from the file at `path` where it has it, else by `measure(indices)`, at most `batch_size` at once.

    title: of the progress bar. Raises DiskError or UserError where the file cannot be written.
    """
    record = np.dtype([("key", KEY), ("row", row)])
    keys = [key[:NAMED] for key in keys]
    append(path, record, b"")  # which makes the file, and removes what a kill has cut short
    there = sound(path, record, sys.stderr)
    missing = {key: i for i, key in enumerate(keys) if key not in there}  # a key that comes twice is measured once
    indices = list(missing.values())
    with tqdm(total=len(indices), desc=title, unit="picture", disable=None if indices else True, dynamic_ncols=True) as bar:
        for first in range(0, len(indices), batch_size):
            part = indices[first : first + batch_size]
            records = np.empty(len(part), record)
            records["row"] = measure(part)
            records["key"] = [keys[i] + checksum(one) for i, one in zip(part, records["row"], strict=True)]
            append(path, record, records.tobytes())
            bar.update(len(part))
    there = sound(path, record) if missing else there
    return Rows(load(path, record), np.array([there[key] for key in keys], np.int64))


def checksum(row: np.ndarray) -> bytes:
    """Eight characters."""
    return b"%08x" % zlib.crc32(row.tobytes())


def append(path: Path, record: np.dtype, content: bytes) -> None:
    """Appends whole records, behind the last whole one, while no other process does. Raises DiskError or UserError."""
    with reporting_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            with suppress(OSError):  # some network file systems know no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(file.seek(0, 2) // record.itemsize * record.itemsize)
            file.write(content)


def sound(path: Path, record: np.dtype, report: TextIO | None = None) -> dict[bytes, int]:
    """Where in the file the undamaged records are, by what names them. How many are damaged, `report` is told once: they lose their key."""
    records = load(path, record)
    is_sound = [one["key"][NAMED:] == checksum(one["row"]) for one in records]
    damaged = [i for i, one in enumerate(records) if one["key"] and not is_sound[i]]
    if damaged and report:
        print(f"{path}: {len(damaged)} measurements are damaged, or of an earlier version, and are made again.", file=report)
        with reporting_disk(path), open(path, "r+b") as file:
            for i in damaged:
                file.seek(i * record.itemsize)
                file.write(bytes(np.dtype(KEY).itemsize))
    return {one["key"][:NAMED]: i for i, one in enumerate(records) if is_sound[i]}


def load(path: Path, record: np.dtype) -> np.ndarray:
    """The records of a file, mapped into memory; np.memmap refuses an empty file."""
    return np.memmap(path, record, "r") if path.stat().st_size else np.empty(0, record)


def writable_folder(folder: Path, otherwise: Path) -> Path:
    """`folder`, or `otherwise` where nothing can be written to it (a data set on a read-only disk)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return otherwise
    return folder
