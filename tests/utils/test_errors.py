"""What ends a script: a sentence and an exit status, and no traceback but for faults of ours."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import DiskError, UserError, or_exit

ROOT = Path(__file__).resolve().parents[2]


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize("error, status, said", [
    (UserError("a.png is damaged"), 2, "a.png is damaged\n"),
    (DiskError("disk full"), 1, "disk full\n"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "x" * 300 + ": File name too long\n"),
    (PermissionError(errno.EACCES, "Permission denied", "run"), 2, "run: Permission denied\n"),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "a file: No space left on device\n"),
    (KeyboardInterrupt(), 128 + signal.SIGINT, "Stopped.\n"),
    (KeyboardInterrupt(signal.SIGTERM), 128 + signal.SIGTERM, "Stopped.\n"),
])  # fmt: skip
def test_what_is_not_ours_to_mend_is_said_in_a_sentence(capsys, error, status, said):
    with pytest.raises(SystemExit) as ended:
        or_exit(raising(error))
    assert (ended.value.code, capsys.readouterr().err) == (status, said)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-", ""])
def test_what_is_printed_where_nobody_listens_goes_into_no_file(tmp_path, closed):
    """A file that is opened next would have the number of a stream that the caller has closed, which libraries write to."""
    script = """
import os, sys
from utils.errors import or_exit
or_exit(lambda: None)
with open(sys.argv[1], "w") as file:
    os.write(2, b"a library's warning")
    print("progress", file=sys.stderr, flush=True)
    print("result", flush=True)
    os.system("echo of another program >&2")
    file.write(f"{file.fileno() > 2} {sys.stdin.read()!r}")
"""
    command = f'exec "$0" -c "$1" "$2" </dev/null {closed}'
    done = subprocess.run(["bash", "-c", command, sys.executable, script, tmp_path / "file"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "True ''"
    assert done.stderr == ("" if "2>&-" in closed else "a library's warningprogress\nof another program\n")
    assert done.stdout == ("" if ">&- " in closed else "result\n")


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EBADF, "ours")])
def test_what_is_ours_is_not_hidden(error):
    with pytest.raises(type(error), match="ours"):
        or_exit(raising(error))


PRINTING = "from utils.errors import or_exit; or_exit(lambda: [print('山 \\udcff', i) for i in range(100_000)])"


def printing(**environment) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PRINTING], cwd=ROOT, stdout=pipe, stderr=pipe, env=os.environ | environment)


def test_a_reader_that_leaves_ends_the_script_in_silence():
    process = printing()
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE and process.stderr.read() == b""


@pytest.mark.parametrize("encoding, first", [("ascii", b"\\u5c71 \\udcff 0"), ("utf-8", "山 \\udcff 0".encode())])
def test_a_terminal_that_knows_not_all_signs_shows_their_numbers(encoding, first):
    output, errors = printing(PYTHONIOENCODING=encoding).communicate()
    assert output.splitlines()[0] == first and errors == b""
