"""Measurements of many files, a row each, kept on disk as they come: a run that was killed goes on from what it has.

A file of rows is records one after another, each the key of what was measured and the measurement. It is only ever appended to, and read
through the page cache, so that ten thousand pictures take no more memory than a batch.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.files import reporting_disk

KEY = "S32"


def digest(*contents: Path | bytes) -> bytes:
    """A key for the contents of files, or for bytes."""
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).digest())
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
    with reporting_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.truncate(file.tell() // record.itemsize * record.itemsize)  # what a kill has cut short
    there = {key: i for i, key in enumerate(load(path, record)["key"])}
    missing = {key: i for i, key in enumerate(keys) if key not in there}  # a key that comes twice is measured once
    indices = list(missing.values())
    with tqdm(total=len(indices), desc=title, unit="picture", disable=None if indices else True, dynamic_ncols=True) as bar:
        for first in range(0, len(indices), batch_size):
            part = indices[first : first + batch_size]
            records = np.empty(len(part), record)
            records["key"], records["row"] = [keys[i] for i in part], measure(part)
            with reporting_disk(path), open(path, "ab") as file:
                file.write(records.tobytes())
            bar.update(len(part))
    records = load(path, record)
    there = {key: i for i, key in enumerate(records["key"])}
    return Rows(records, np.array([there[key] for key in keys], np.int64))


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
