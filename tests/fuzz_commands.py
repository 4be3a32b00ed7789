"""Trials of tests/fuzz.py that disturb commands at work: signals, full disks, other commands, paths, terminals, kernels.

A trial is a function of the base, a generator of chance and an empty folder; it notes what it does, and raises Failure.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from models.systems import DEFAULT
from tests.damage import damage
from tests.fuzz_base import Base, Job
from tests.fuzz_files import strange_words, use
from tests.hostile import (
    ROOT,
    Failure,
    answered,
    contents,
    ended,
    finished,
    has_trained,
    mounted,
    said_to_be_full,
    same,
    same_files,
    same_score,
    send,
    session,
    whereabouts,
)
from utils.checkpoint import latest_training_state
from utils.logger import read_log

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
ODD_NAMES = ["山水", "y" * 251, "--rf", "<b>&", "a b", "é", "%s", "{x}", "$HOME", "'q\"", "#1", "\udcff\udce4", "🏔", "~"]
TERMINALS = [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"COLUMNS": "1"},
    {"TERM": "dumb", "LANG": "xx_YY.UTF-9"},
    {"TMPDIR": "/nowhere"},
]
STREAMS = ['exec "$0" "$@"', 'exec "$0" "$@" <&-', 'exec "$0" "$@" >&-', 'exec "$0" "$@" 2>&-', 'exec "$0" "$@" >/dev/full']
STREAMS += [f'"$0" "$@" | head -c {count}; exit ${{PIPESTATUS[0]}}' for count in (0, 40, 200)]

# ------------------------------------------------------------------------------------------------------- signals and kills


def killed(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A kill at a random moment of training; then it ends with the same bytes."""
    disturbed_training(base, base.any_job(chance), chance, place, note, [signal.SIGKILL])


def stopped_training(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """One to three signals of all kinds, in as many attempts."""
    disturbed_training(base, base.any_job(chance), chance, place, note, chance.choices(SIGNALS, k=chance.randint(1, 3)))


def disturbed_training(base: Base, job: Job, chance: random.Random, place: Path, note: Callable, signals: list[signal.Signals]) -> None:
    words = job.on(place / "run")
    for number in signals:
        disturb(base, number, chance.uniform(0.3, 1.1 * job.seconds), job.name, place / "run", note, words)
    finished(*words)
    same(place / "run", job.whole)


def stopped_painting(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    words = [*base.painting(base.run, place / "results"), "--score"]
    for number in chance.choices(SIGNALS, k=chance.randint(1, 3)):
        disturb(base, number, chance.uniform(0.3, 1.1 * base.painting_seconds), "painting and scoring", place, note, words)
    finished(*words)
    same(place / "results", base.place / "results")
    same_score(place, base.place)


def disturb(base: Base, number: signal.Signals, seconds: float, what: str, folder: Path, note: Callable, words: list[str]) -> None:
    """Gives a command, and it a signal after some seconds, and takes down where in its work that came."""
    note(f"{number.name} after {seconds:.2f} s of {what}")
    result = ended(*words, stop_after=seconds, by=number)
    of_mpirun = (1,) if words[0].endswith("mpirun") else ()  # which has a status of its own
    if result.returncode not in (0, -number, 128 + number, *of_mpirun):
        raise Failure(f"{number.name} ends it with {result.returncode}: {result.stderr[-1500:]}")
    where = whereabouts(result, folder) if result.returncode else "it had ended"
    base.places[f"{number.name} in {what}: {where}"] += 1


def killed_writing(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A kill while a file is being written: what is half-written goes, and the rest is the same."""
    painting, job = chance.random() < 0.3, base.any_job(chance)
    words = [*base.painting(base.run, place / "results"), "--score"] if painting else job.on(place / "run")
    count, seen = chance.randint(1, 12), []

    def kill_at_a_file(process: subprocess.Popen) -> None:
        while process.poll() is None and len(seen) < count:
            for _, _, names in os.walk(place):
                seen.extend(name for name in names if name.endswith(".tmp") and name not in seen)
        send(process, signal.SIGKILL)

    ended(*words, meanwhile=kill_at_a_file)
    note(f"SIGKILL in {'painting and scoring' if painting else job.name}, while {seen[-1:] or 'nothing'} is written")
    finished(*words)
    contents(place)
    same(*((place / "results", base.place / "results") if painting else (place / "run", job.whole)))


# ------------------------------------------------------------------------------------------------ other commands, and users


def started_twice(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    twice_at_once(base.any_job(chance), chance, place, note)


def twice_at_once(job: Job, chance: random.Random, place: Path, note: Callable) -> None:
    """A command that is given again while it runs: one trains, and the other says which one that is, or finds that all is done."""
    words, seconds = job.on(place / "run"), chance.uniform(0, 0.8 * job.seconds)
    note(f"{job.name}, and once more after {seconds:.2f} s")
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ended, *words)]
        time.sleep(seconds)
        running.append(pool.submit(ended, *words))
    results = [each.result() for each in running]
    for result in results:
        if result.returncode and not (result.returncode == 2 and re.search(r"in use by process \d+", result.stderr)):
            raise Failure(f"ends with {result.returncode}: {result.stderr[-1500:]}")
    if all(map(has_trained, results)):
        raise Failure("both have trained")
    finished(*words)
    same(place / "run", job.whole)


def restarted(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """--restart with another seed, where files of the run are gone: it becomes what a new run would be, or it stays as it is."""
    run, first = place / "run", base.jobs(DEFAULT)[0]
    shutil.copytree(first.whole, run)
    for path in (path for path in sorted(run.iterdir()) if chance.random() < 0.3):
        note(f"{path.name} is gone")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    words, before = [*first.words, "--seed", "1", "--run"], contents(run)
    if answered(*words, str(run), "--restart").returncode:
        same_files(before, contents(run))
    else:
        finished(*words, str(place / "new"))
        same(run, place / "new")


def confused_paths(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Folders that are given for one another: what was there stays as it was, whether the command can be followed or not."""
    kept, run = place / "kept", place / "kept" / "run"
    shutil.copytree(base.data / "train_resized" / "imgs", kept / "imgs")
    shutil.copytree(base.data / "train_resized" / "labels", kept / "labels")
    shutil.copytree(base.run, run)
    names = [path.stem for path in sorted((kept / "imgs").iterdir())]  # a photo and its mask have one name
    listing = dict(zip([f"{name}.png" for name in names], [f"{name}.jpg" for name in chance.sample(names, len(names))], strict=True))
    (kept / "labels" / "label_to_img.json").write_text(json.dumps(listing))
    places = [kept, kept / "imgs", kept / "labels" / "..", kept / "labels", kept / "imgs" / f"{names[0]}.jpg", run / "best", place / "new"]
    if chance.random() < 0.7:
        words = [*base.painting(run, chance.choice([*places, run]), kept), "--img_path", kept / "imgs", "--steps", "1"]
        flags, others = ["--overwrite", "--zip", "--score"], ["--truth_path", "--pairs", "--judge", "--input_path", "--img_path"]
    else:
        words = [*base.training(data=kept), "--stage", "vae", "--run", chance.choice(places)]
        flags, others = ["--restart", "--skip_bad"], ["--val_path", "--init_vae", "--leave_out", "--input_path"]
    words += [flag for flag in flags if chance.random() < 0.5]
    words += [chance.choice(others), chance.choice(places)] if chance.random() < 0.4 else []
    note(" ".join(map(str, words)))
    before = contents(kept)
    answered(*map(str, words))
    same_files(before, contents(kept))


def vanishing_data(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Photos and masks that are damaged or taken away while it trains: it goes on, or says what is missing, with all steps saved."""
    data, run = place / "data", place / "run"
    shutil.copytree(base.data / "train_resized", data)
    steps, log = chance.randint(1, 20), run / "log.jsonl"

    def disturb(process: subprocess.Popen) -> None:
        wait_for_lines(process, log, steps)
        files = sorted((data / chance.choice(["imgs", "imgs", "labels"])).iterdir())
        for path in chance.sample(files, chance.choice([1, 3, len(files)])):
            note(damage(chance, path, renamed=True) + f" after {steps} steps")

    result = answered(*long_training(base, 300, data), "--run", str(run), meanwhile=disturb)
    logged, state = max(line["step"] for line in read_log(log)), latest_training_state(run / "state" / "vae")
    if state is None or int(state.stem.removeprefix("step-")) != logged:
        raise Failure(f"of {logged} steps the last are not saved: {state}, {result.stderr[-1500:]}")


# -------------------------------------------------------------------------------------------------------- what is around it


def odd_surroundings(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Names of every kind, terminals that cannot show them, and outputs that nobody reads: pictures are painted, packed and scored."""
    masks, photos = place / "masks", place / "photos"
    shutil.copytree(base.data / "val_A_labels_resized", masks)
    shutil.copytree(base.data / "train_resized" / "imgs", photos)
    for folder, ending in ((masks, ".png"), (photos, ".jpg")):
        for path, name in zip(sorted(folder.iterdir()), chance.sample(ODD_NAMES, 5), strict=False):
            path.rename(folder / (name + ending))
    references = [path.name for path in photos.iterdir() if path.name.isprintable()]
    listing = {path.name: chance.choice(references) for path in masks.iterdir() if path.name.isprintable()}
    (place / "pairs.json").write_text(json.dumps(listing))
    terminal, stream = chance.choice([{}, *TERMINALS]), chance.choice([STREAMS[0], *STREAMS])
    note(f"{listing}, {terminal}, {stream}")
    words = [*base.painting(base.run, place / "results"), "--input_path", masks, "--img_path", photos, "--pairs", place / "pairs.json"]
    result = ended("bash", "-c", stream, *map(str, words), "--zip", "--score", environment=terminal)
    if result.returncode not in (0, 1, 128 + signal.SIGPIPE) or (result.returncode == 1 and "full" not in stream):
        raise Failure(f"ends with {result.returncode} and says {result.stderr[-1500:]!r}")
    painted = {f"{path.stem}.png" for path in place.glob("results/*.jpg")}
    if painted != listing.keys() and (result.returncode == 0 or painted - listing.keys()):
        raise Failure(f"other pictures than these: {painted}")


def strange_commands(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Whole commands with numbers, names and paths that make no sense: refused in a sentence, or soon at work, and stopped by Ctrl-C."""
    _, script, words = strange_words(base, chance, place)
    note(f"{script} {words}")
    seconds = 10 + 2 * max(base.painting_seconds, *(job.seconds for job in base.jobs(DEFAULT)))
    result = ended(sys.executable, str(ROOT / script), *words, stop_after=seconds, by=signal.SIGINT)
    at_work = re.search(r"\d+/\d+ \[|http://", result.stderr + result.stdout)  # a progress bar, or the page
    if result.returncode not in (0, 1, 2, 130) or (result.returncode == 130 and not at_work):
        raise Failure(f"ends with {result.returncode} after {seconds:.0f} s and says {result.stderr[-1500:]!r}")


def power_cut(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Kernels that a power cut has left empty or cut short, in a copy of Jittor's cache. Left out where one may not mount."""
    use(base, base.run)
    maps = Path("/proc/self/maps").read_text()
    loaded = sorted(set(re.findall(r"/\S+/\.cache/jittor/\S+/jit/\S+\.so$", maps, re.MULTILINE)))
    cut = [(path, chance.choice([0, 0, chance.randrange(os.path.getsize(path))])) for path in chance.sample(loaded, chance.randint(1, 5))]
    note(f"cut to so many bytes: {cut}")
    cache = Path.home() / ".cache" / "jittor"
    for folder in ("written", "work"):
        (place / folder).mkdir()
    mount = f"mount -t overlay overlay -o lowerdir={cache},upperdir={place}/written,workdir={place}/work {cache}"
    cuts = " && ".join(f"truncate -s {size} {path!r} && touch -d yesterday {path!r}" for path, size in cut)
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        return note("no right to mount")
    finished("unshare", "--mount", "sh", "-c", f'{mount} && {cuts} && exec "$0" "$@"', *base.painting(base.run, place / "results"))
    same(place / "results", base.place / "results")


def full_disk(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A run, or pictures and their score, on a disk that grows each time it is full: each stop says so, and the end is the same."""
    if chance.random() < 0.7:
        return job_on_full_disk(base.any_job(chance), chance, place, note)

    def check(disk: Path) -> None:
        same(disk / "results", base.place / "results")
        same_score(disk, base.place)

    paint = [*base.painting(base.run, place / "disk" / "results"), "--zip", "--score"]
    on_full_disk(lambda disk: paint, check, chance.randint(1, 10) * 64, chance, place, note)


def job_on_full_disk(job: Job, chance: random.Random, place: Path, note: Callable) -> None:
    note(job.name)
    size = chance.randint(1, 40) * 64 + sum(path.stat().st_size // 1024 + 4 for path in (job.before.rglob("*") if job.before else ()))
    on_full_disk(lambda disk: job.on(disk / "run"), lambda disk: same(disk / "run", job.whole), size, chance, place, note)


def on_full_disk(begin: Callable, check: Callable, size: int, chance: random.Random, place: Path, note: Callable) -> None:
    """What `begin` makes of the disk is the command; `check` looks at what is there in the end. Left out where one may not mount."""
    with mounted(place / "disk", size) as grow:
        if grow is None:
            return note("no right to mount")
        words = begin(place / "disk")
        for _ in range(4):
            note(f"{size} kB")
            result = answered(*words)
            if result.returncode == 0:
                break
            said_to_be_full(result)
            size += chance.randint(1, 16) * 64
            grow(size)
        grow(1 << 20)
        finished(*words)
        check(place / "disk")


def filled_disk(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A disk that something else fills while it trains, and writes little but its log: it says so, and goes on where there is room."""
    steps, run = chance.randint(1, 30), place / "disk" / "run"
    words = [*long_training(base, 40), "--run", str(run)]

    def fill(process: subprocess.Popen) -> None:
        wait_for_lines(process, run / "log.jsonl", steps)
        with suppress(OSError), open(place / "disk" / "filler", "wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    note(f"full after {steps} steps")
    with mounted(place / "disk", 1 << 14) as grow:
        if grow is None:
            return note("no right to mount")
        result = ended(*words, meanwhile=fill)
        if result.returncode:
            said_to_be_full(result)
        (place / "disk" / "filler").unlink(missing_ok=True)
        finished(*words)
        logged = [line["step"] for line in read_log(run / "log.jsonl") if "loss" in line]
        if logged != [*range(1, 41)]:
            raise Failure(f"steps of the log: {logged}")


def long_training(base: Base, steps: int, data: Path | None = None) -> list[str]:
    """A command that trains the first stage for some time, and saves nothing before the end."""
    every = [word for name in ("steps", "save_every", "validate_every", "preview_every") for word in (f"--{name}", str(steps))]
    return [*base.training(data=data), *every, "--stage", "vae"]


def wait_for_lines(process: subprocess.Popen, log: Path, count: int) -> None:
    """Until a log has so many lines, or the process that writes it has ended."""
    while process.poll() is None and (not log.is_file() or len(log.read_text().splitlines()) < count):
        time.sleep(0.01)


def by_two(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """All that by two processes that mpirun starts, and the death of one of them. Left out where there is no mpirun."""
    job = base.by_two
    if job is None:
        return note("no mpirun")
    how = chance.choice(["stopped", "one killed", "full disk", "twice"])
    if how == "stopped":
        disturbed_training(base, job, chance, place, note, chance.choices(SIGNALS, k=2))
    elif how == "one killed":
        one_killed(job, chance, place, note)
    else:
        {"full disk": job_on_full_disk, "twice": twice_at_once}[how](job, chance, place, note)


def one_killed(job: Job, chance: random.Random, place: Path, note: Callable) -> None:
    """A kill of one of two processes ends the other as well; then the job ends with the same bytes."""
    words, rank, seconds = job.on(place / "run"), chance.randrange(2), chance.uniform(0.3, 1.1) * job.seconds
    note(f"SIGKILL to process {rank} of {job.name} after {seconds:.2f} s")

    def kill(process: subprocess.Popen) -> None:
        time.sleep(seconds)
        for number in session(process):
            with suppress(OSError):
                if f"OMPI_COMM_WORLD_RANK={rank}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                    os.kill(number, signal.SIGKILL)

    ended(*words, meanwhile=kill)
    finished(*words)
    same(place / "run", job.whole)
