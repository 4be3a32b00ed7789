"""What tests/fuzz.py does to commands, and what it asks of them and of files afterwards."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from resource import RLIMIT_AS, getrlimit, setrlimit

from utils.errors import UserError, or_exit
from utils.logger import read_log

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300  # seconds that a command, or a check in this process, may take, on a busy machine
MEMORY = 3 << 29  # bytes that a check in this process may take


class Failure(Exception):
    """What must not happen has happened; says what."""


def ended(
    *command: str,
    stop_after: float | None = None,
    by: int = signal.SIGKILL,
    meanwhile: Callable[[subprocess.Popen], None] | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """A command run to its end, or to a signal to all its processes after some seconds. Raises Failure where it hangs or leaves a
    traceback.

    meanwhile: called beside it with its process, to wait for something and do something.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | (environment or {})  # what a killed one printed is seen
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/", env=environment)
    beside = threading.Thread(target=meanwhile or (lambda process: None), args=(process,), daemon=True)
    beside.start()
    try:
        output, errors = process.communicate(timeout=stop_after or LIMIT)
    except subprocess.TimeoutExpired:
        send(process, by if stop_after else signal.SIGKILL)
        try:
            output, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            send(process, signal.SIGKILL)
            raise Failure(f"hangs after signal {by}") from None
        if not stop_after:
            raise Failure(f"hangs: not done after {LIMIT} s") from None
    beside.join(LIMIT)
    output, errors = (text.decode(errors="replace") for text in (output, errors))
    if "Traceback" in errors or "Exception ignored" in errors:
        raise Failure("a traceback:\n" + errors[-2500:])
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def send(process: subprocess.Popen, number: int) -> None:
    """A signal to a command's group of processes, as a terminal sends it; SIGKILL to those as well that mpirun has put into others."""
    with suppress(ProcessLookupError):  # it has ended just now
        os.killpg(process.pid, number)
    for other in session(process) if number == signal.SIGKILL else []:
        with suppress(ProcessLookupError):
            os.kill(other, number)


def session(process: subprocess.Popen) -> list[int]:
    """The numbers of all processes that a command has started, and that have not left its session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[3]) == process.pid:
                found.append(int(path.parent.name))
    return found


def finished(*command: str) -> None:
    """The same, which must succeed."""
    result = ended(*command)
    if result.returncode:
        raise Failure(f"ends with {result.returncode}: {result.stderr[-1500:]}")


def answered(*command: str, **disturbed) -> subprocess.CompletedProcess:
    """The same, disturbed as `ended` has it, which must succeed, or say in a sentence why not."""
    result = ended(*command, **disturbed)
    if result.returncode not in (0, 1, 2) or (result.returncode and not result.stderr.strip()):
        raise Failure(f"ends with {result.returncode} and says {result.stderr[-1500:]!r}")
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """What a run's folder holds, without what tells the time. Raises Failure for what a finished command must not leave behind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.endswith((".tmp", ".partial")) or path.name in (".incomplete", "rehearsal"):
            raise Failure(f"{name} is left behind")
        if path.is_file() and "tensorboard" not in path.parts and path.name not in (".lock", "log.jsonl", "checked_training.json"):
            found[name] = path.read_bytes()
    for log in folder.rglob("log.jsonl"):
        for line in read_log(log):
            own = {key: value for key, value in line.items() if key not in ("time", "seconds", "waited")}
            kind = "loss" if "loss" in own else "validation"
            found[f"{log.relative_to(folder)} {line['stage']} {line['step']} {kind}"] = json.dumps(own, sort_keys=True).encode()
    return found


def same(folder: Path, other: Path) -> None:
    """Raises Failure naming what is not the same in two folders."""
    alike(contents(folder), contents(other))


def alike(one: dict[str, bytes], two: dict[str, bytes]) -> None:
    """The same, of `contents`. A run that was stopped may lack a preview, and keeps the state of that step beside its last one."""
    for name in one.keys() ^ two.keys():
        if {"previews", "state"} & {*Path(name).parts}:
            one.pop(name, None), two.pop(name, None)
    if one != two:
        raise Failure(f"differs in {', '.join(sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name)))}")


def same_files(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Raises Failure where something that was there is gone or another."""
    lost = [name for name in before if after.get(name) != before[name]]
    if lost:
        raise Failure(f"changed or gone: {', '.join(lost)}")


def same_score(folder: Path, other: Path) -> None:
    """Raises Failure where the scores beside results/ in two folders are not the same."""
    one, two = (json.loads((place / "results-score" / "score.json").read_text()) for place in (folder, other))
    if one["pictures"] != two["pictures"] or [row["value"] for row in one["table"]] != [row["value"] for row in two["table"]]:
        raise Failure("another score")


def whereabouts(result: subprocess.CompletedProcess, folder: Path) -> str:
    """Where in its work a command was that has been stopped: the last of its progress bars or lines, and the files half-written."""
    bars = re.findall(r"([a-z ]+): +[^|]*\|[^|]*\| (\d+/\d+)", result.stderr)
    lines = [" ".join(re.findall(r"[A-Za-z]+", line)[:3]) for line in result.stdout.splitlines() if line.strip()]
    where = "{} {}".format(*bars[-1]) if bars else f"after '{lines[-1]} …'" if lines else "starting"
    half = sorted({path.name.split(".")[1] for path in folder.rglob(".*.tmp")})
    return where + (f", writing {', '.join(half)}" if half else "")


def has_trained(result: subprocess.CompletedProcess) -> bool:
    return re.search("step/s|s/step", result.stderr) is not None  # of a progress bar


def said_to_be_full(result: subprocess.CompletedProcess) -> None:
    """Raises Failure where a command that could not end does not say, last and in a sentence, that a disk is full."""
    ours = re.split(r"^-{60,}$", result.stderr, flags=re.MULTILINE)[0]  # what mpirun has to add stands between lines of dashes
    lines = re.split(r"[\r\n]+", ours.strip())
    if "disk full" not in lines[-1] and "No space left" not in lines[-1]:
        raise Failure(f"a full disk is not said: {result.stderr[-1500:]}")


@contextmanager
def mounted(disk: Path, size: int) -> Iterator[Callable | None]:
    """A disk in memory of so many kB, until the block ends. Yields what makes it larger, None where one has no right to mount."""
    disk.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], capture_output=True).returncode:
        yield None
        return
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def asked(check: Callable, must: bool = False) -> None:
    """Runs a check of ours in this process: it may raise UserError, or end as argparse does, and nothing else. `must`: it may not."""
    Path("/proc/self/clear_refs").write_text("5")  # from now on the peak of memory is this check's
    before = memory("VmHWM")
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), in_time(), in_memory():
            check()
    except (UserError, SystemExit) as error:
        if must or (isinstance(error, SystemExit) and error.code not in (0, 2)):
            raise Failure(f"{type(error).__name__}: {error}") from error
    except OSError as error:
        with redirect_stderr(StringIO()):
            ended_by = answer_of(error)
        if ended_by not in (1, 2):
            raise Failure("an exception:\n" + traceback.format_exc()[-2500:]) from error
    except Failure:
        raise
    except Exception as error:
        raise Failure("an exception:\n" + traceback.format_exc()[-2500:]) from error
    taken = memory("VmHWM") - before
    if taken > MEMORY:
        raise Failure(f"takes {taken >> 20} MB of memory")


def memory(name: str) -> int:
    """What /proc says of this process's memory, in bytes: VmHWM is the peak of what was in use, VmSize what is claimed."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


@contextmanager
def in_memory() -> Iterator[None]:
    """In the block no more than a few times MEMORY can be claimed, which is more than may be: the machine outlives what goes wrong."""
    limits = getrlimit(RLIMIT_AS)
    setrlimit(RLIMIT_AS, (memory("VmSize") + 4 * MEMORY, limits[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_AS, limits)


def answer_of(error: OSError) -> int | None:
    """The exit status that a script would have."""

    def fail() -> None:
        raise error

    try:
        or_exit(fail)
    except SystemExit as ended:
        return ended.code
    except OSError:
        return None


@contextmanager
def in_time() -> Iterator[None]:
    """Raises Failure where the block takes longer than LIMIT, in the block."""

    def late(number: int, frame: object) -> None:
        raise Failure(f"hangs: not done after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def arguments_of(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = before


def options_of(main, words: list[str]) -> list[str]:
    """The options that a script has where these words are given."""
    text = StringIO()
    with arguments_of(["script", *words, "--help"]), redirect_stdout(text), suppress(SystemExit):
        main.parse_arguments()
    return sorted({word.strip(",[]") for word in text.getvalue().split() if word.startswith("--") and word.strip("-.,:;")})
