"""Whole commands, as the benchmarks give them: training a run, painting test pairs with it and scoring the pictures."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def call(script: str, *words) -> tuple[float, float]:
    """Runs MainTrain.py or MainTest.py; its progress is shown, and what it prints is not. Ends this command where it fails.

    Returns the seconds it took, and its peak memory in GB.
    """
    command = [*map(str, (sys.executable, ROOT / script, *words))]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"This command has failed; what it said stands above:\n{shlex.join(command)}")
    return time.monotonic() - begun, usage.ru_maxrss / 1e6


def copied(source: Path, target: Path, *without: str) -> Path:
    """`target`, at first a copy of a run's folder, without what has these names: whole where it is there."""
    if not target.exists():
        beside = target.with_name(target.name + ".copy")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside, ignore=shutil.ignore_patterns(*without))
        os.rename(beside, target)
    return target


def painted_and_scored(folder: Path, *words) -> dict[str, dict]:
    """The score's table by metric, of pictures in `folder`, which are painted first where they are not there."""
    call("MainTest.py", "--output_path", folder, "--score", *words)
    return {row["name"]: row for row in json.loads((folder.with_name(folder.name + "-score") / "score.json").read_text())["table"]}


HEAD = "| {} | KID | mask accuracy | style (corrected) |\n|---|---|---|---|"


def line(name: str, table: dict[str, dict]) -> str:
    """A line under HEAD: KID by EfficientNet-lite0, mask accuracy, and style in both forms."""
    accuracy, style = table["mask accuracy"]["value"], table["style"]["details"]
    cells = [f"{table['KID (EfficientNet-lite0)']['value']:.0f}", "n/a" if accuracy is None else f"{accuracy:.3f}"]
    return f"| {name} | {' | '.join(cells)} | {style['faithful']:.3f} ({style['corrected']:.3f}) |"
