"""What tests/fuzz.py does to commands and files, and what it asks of them afterwards."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from PIL import Image

from utils.errors import UserError, or_exit
from utils.logger import read_log

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300  # seconds that a command may take, on a busy machine
SIZE = (128, 96)  # of the pictures that are drawn
SECONDS, MEMORY = 60, 1 << 20  # what a check in this process may take; kilobytes more than ever before


class Failure(Exception):
    """What must not happen has happened; says what."""


def ended(*command: str, stop_after: float | None = None, by: int = signal.SIGKILL) -> subprocess.CompletedProcess:
    """A command run to its end, or to a signal to all its processes after some seconds. Raises Failure where it hangs or leaves a
    traceback."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}  # what a killed process has printed is seen
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd="/", env=environment)
    try:
        output, errors = process.communicate(timeout=stop_after or LIMIT)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):  # it has ended just now
            os.killpg(process.pid, by if stop_after else signal.SIGKILL)
        try:
            output, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failure(f"hangs after signal {by}") from None
        if not stop_after:
            raise Failure(f"hangs: not done after {LIMIT} s") from None
    output, errors = (text.decode(errors="replace") for text in (output, errors))
    if "Traceback" in errors:
        raise Failure("a traceback:\n" + errors[-2500:])
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def finished(*command: str) -> None:
    """The same, which must succeed."""
    result = ended(*command)
    if result.returncode:
        raise Failure(f"ends with {result.returncode}: {result.stderr[-1500:]}")


def answered(*command: str) -> subprocess.CompletedProcess:
    """The same, which must succeed, or say in a sentence why not."""
    result = ended(*command)
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


def whereabouts(result: subprocess.CompletedProcess, folder: Path) -> str:
    """Where in its work a command was that has been stopped: the last of its progress bars or lines, and the files half-written."""
    bars = re.findall(r"([a-z ]+): +[^|]*\|[^|]*\| (\d+/\d+)", result.stderr)
    lines = [" ".join(re.findall(r"[A-Za-z]+", line)[:3]) for line in result.stdout.splitlines() if line.strip()]
    where = "{} {}".format(*bars[-1]) if bars else f"after '{lines[-1]} …'" if lines else "starting"
    half = sorted({path.name.split(".")[1] for path in folder.rglob(".*.tmp")})
    return where + (f", writing {', '.join(half)}" if half else "")


def said_to_be_full(result: subprocess.CompletedProcess) -> None:
    """Raises Failure where a command that could not end does not say, last and in a sentence, that a disk is full."""
    lines = re.split(r"[\r\n]+", result.stderr.strip())
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
    before = getrusage(RUSAGE_SELF).ru_maxrss
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), in_time():
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
    taken = getrusage(RUSAGE_SELF).ru_maxrss - before
    if taken > MEMORY:
        raise Failure(f"takes {taken >> 10} MB more memory than all before")


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
    """Raises Failure where the block takes longer than SECONDS, in the block."""

    def late(number: int, frame: object) -> None:
        raise Failure(f"hangs: not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
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


def damage_exif(chance: random.Random, path: Path) -> str:
    """Puts a photo in its place whose EXIF block says "turn me" and has wrong bytes."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = chance.choice([6, 3, 8]), "maker", 72.0
    block = bytearray(exif.tobytes())
    for at in chance.choices(range(6, len(block)), k=chance.randint(1, 4)):
        block[at] = chance.randrange(256)
    Image.new("RGB", SIZE).save(path, exif=bytes(block))
    return f"EXIF with {block.hex()} in {path}"


def damage_json(chance: random.Random, path: Path) -> str:
    """Puts something else in the place of one value of a JSON file, or of one line of several, or takes it away."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = chance.randrange(len(lines))
    content = {"": json.loads(lines[number])}
    inside, key = content, ""
    while isinstance(inside[key], (dict, list)) and inside[key] and chance.random() < 0.8:
        inside = inside[key]
        key = chance.choice(sorted(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
    new = chance.choice([None, -1, 0, 10**7, 10**25, 0.5, float("nan"), "x", "", "\udcff", [], [1], {}, True, "gone"])
    said = f"{key!r} of line {number} of {path} becomes {new!r}, was {str(inside[key])[:80]}"
    if new == "gone" and inside is not content:
        del inside[key]
    else:
        inside[key] = new
    lines[number] = json.dumps(content[""])
    path.write_text("".join(f"{line}\n" for line in lines))
    return said


def damage(chance: random.Random, path: Path, renamed: bool = False) -> str:
    """Does something to a file, at random, and says what."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".jpg" and chance.random() < 0.2:
        return damage_exif(chance, path)
    if path.suffix in (".json", ".jsonl") and chance.random() < 0.6:
        return damage_json(chance, path)
    how = chance.choice(
        [
            "flip",
            "flip",
            "flips",
            "cut",
            "empty",
            "zeros",
            "junk",
            "text",
            "insert",
            *(["name", "gone", "folder", "link"] if renamed else []),
        ]
    )
    at = chance.randrange(len(content)) if content else 0
    if how in ("flip", "flips"):
        for place in [at] if how == "flip" else chance.choices(range(len(content) or 1), k=chance.randint(2, 40)):
            if content:
                content[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del content[at:]
    elif how == "empty":
        content.clear()
    elif how == "zeros":
        content[at:] = bytes(len(content) - at)
    elif how == "junk":
        content[at : at + 64] = chance.randbytes(64)
    elif how == "insert":
        content[at:at] = chance.randbytes(chance.randint(1, 40))
    elif how == "text":
        old, new = chance.choice(
            [(rb'"', rb""), (b"1", b"-1"), (b"2", b"null"), (b"0", b"1e999"), (b"{", b"["), (b"3", b'"three"'), (b"1", b"10000000")]
        )
        where = [i for i in range(len(content)) if content[i : i + len(old)] == old][:400]
        if where:
            at = chance.choice(where)
            content[at : at + len(old)] = new
        how = f"text {old!r} to {new!r}"
    said = f"{how} at {at} of {path}"
    path.unlink()
    if how == "name":
        path = path.with_name(
            chance.choice(["\udcff\udce4" + path.suffix, "x" * 251 + path.suffix[:4], "a\nb" + path.suffix, path.stem, "-" + path.name])
        )
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(path)
    if how not in ("gone", "folder", "link"):
        path.write_bytes(content)
    return said
