"""Writing files that are either whole or not there, in folders that one process at a time writes to."""

import errno
import fcntl
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from utils.errors import DiskError, UserError

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what file systems say that know none


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write that becomes `path` when the block ends, complete and on the disk.

    Where the block fails, or the process dies, `path` stays what it was. Makes the folders above. Raises DiskError when
    the disk is full, UserError when the place cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{short(path.name)}.{short_node_name()}.{os.getpid()}.tmp")
    try:
        with reporting_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            with suppress(OSError):  # some network file systems know no fsync of a folder
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)  # the new name too must survive a power cut
                finally:
                    os.close(folder)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def built_beside(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` in one rename when the block ends, so that processes that start at once do not disturb each other.

    Raises UserError where that cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="incomplete-", dir=target.parent))
        try:
            yield building
            building.chmod(0o755)
            os.sync()  # the name must not reach the disk before the files
            os.rename(building, target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        if not target.is_dir():  # else another process was quicker
            raise UserError(f"{target} could not be written: {error}. Make the folder above it writable, or free space.") from error


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, <target>.partial, that takes the name `target` when the block ends: one that has the name is whole.

    Where the block fails it is removed; what a killed process has left is removed first. Raises UserError where `target` is there and not
    empty, DiskError where it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already: choose another folder, or remove it.")
    partial = target.with_name(target.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        os.sync()  # the name must not reach the disk before the files
        partial.rename(target)
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def reporting_disk(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong in writing `path` into a DiskError or a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(f"disk full while writing {path}: free space and run the same command again") from error
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}): give a folder that can be written to") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps `folder` (made if need be) to this process while the block runs; the lock ends with the process, however that ends.

    Raises UserError where another process has it. Some network file systems know no locks: there everyone gets in.
    """
    path = folder / ".lock"
    with reporting_disk(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115  (closed below; "w" would remove the number of the process that has the lock)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder} is in use by process {file.read().strip()}: wait until it has ended, or give the run another name with --run."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        with reporting_disk(path):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # to close the file is not enough where a child has it open too


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes what saves of `name` (a glob pattern) that were killed half-way have left in `folder`.

    What a living process of this machine is writing stays. Of other machines nothing is known: lock the folder first.
    """
    for leftover in folder.glob(f".{name}.*.tmp"):
        node, process = leftover.name.removesuffix(".tmp").rsplit(".", 1)
        if not (node.endswith(f".{short_node_name()}") and Path("/proc", process).exists()):
            leftover.unlink(missing_ok=True)


def short(name: str) -> str:
    """A file's name; of one that leaves no room for more, as names may have 255 bytes, the beginning and a checksum of it all."""
    encoded = os.fsencode(name)
    if len(encoded) <= 150:
        return name
    return f"{encoded[:140].decode(sys.getfilesystemencoding(), 'ignore')}-{zlib.crc32(encoded):08x}"


def short_node_name() -> str:
    """This machine's name in the names of temporary files; a longer name of a file would be refused."""
    return os.uname().nodename[:50]
