"""Locked folders and what killed processes leave. Writing as such is tested with checkpoints: tests/utils/test_checkpoint.py."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import atomic_write, locked, remove_leftovers

ROOT = Path(__file__).resolve().parents[2]
HOLDING = (
    "import pathlib, sys; from utils.files import locked\nwith locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); input()"
)


@contextmanager
def another_process_in(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLDING, folder], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.stdin.close()


def test_a_folder_in_use_is_refused_by_a_sentence(tmp_path):
    folder = tmp_path / "checkpoints" / "main"
    for _ in range(2):
        with another_process_in(folder) as process:
            for _ in range(2):
                with pytest.raises(UserError) as error, locked(folder):
                    pass
                assert str(error.value) == (
                    f"{folder} is in use by process {process.pid}: wait until it has ended, or give the run another name with --run."
                )
            with locked(tmp_path / "checkpoints" / "other"):
                pass
        with locked(folder):
            assert (folder / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_ends_with_its_process(tmp_path):
    """Its children may live on: compilers, which are started by another program."""
    holding = HOLDING.replace("print(", "import os; os.system('sleep 10 <&- >&- &'); print(")
    process = subprocess.Popen([sys.executable, "-c", holding, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"locked\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(tmp_path):
        pass


def test_a_lock_ends_with_its_block_though_a_child_lives_on(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_lets_everyone_in(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run/\.lock"), locked(tmp_path / "file" / "run"):
        pass


def test_long_names_that_begin_alike_are_written_side_by_side(tmp_path):
    names = [os.fsdecode(first * 60 + last) for first in ("山".encode(), b"\xe4\xff.") for last in (b"a", b"b")]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(atomic_write(tmp_path / name)).write(os.fsencode(name))
        assert len({os.fsencode(path.name).decode() for path in tmp_path.iterdir()}) == 4  # all of them UTF-8
    assert {path.name: os.fsdecode(path.read_bytes()) for path in tmp_path.iterdir()} == dict(zip(names, names, strict=True))


def test_what_another_process_is_writing_is_not_left_over(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as living, subprocess.Popen(["true"]) as ended:
        ended.wait()
        with atomic_write(tmp_path / "step-1.safetensors") as file:
            (ours,) = tmp_path.iterdir()
            for process in (living, ended):
                ours.with_name(ours.name.replace(f".{os.getpid()}.", f".{process.pid}.")).write_bytes(b"half")
            ours.with_name(f".step-2.safetensors.elsewhere.{living.pid}.tmp").write_bytes(b"half")
            remove_leftovers(tmp_path, "step-*.safetensors")
            file.write(b"whole")
        names = sorted(path.name for path in tmp_path.iterdir())
        living.kill()
    assert names == [ours.name.replace(f".{os.getpid()}.", f".{living.pid}."), "step-1.safetensors"]
