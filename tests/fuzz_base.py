"""What every trial of tests/fuzz.py starts from."""

import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from datasets.synthetic.write import write_dataset
from datasets.synthetic.write_styles import write_styles
from models.systems import DEFAULT, SYSTEMS
from tests.damage import SIZE
from tests.hostile import ROOT, finished
from tests.small import arguments

OPTIONAL = {name: system for system in SYSTEMS for name in SYSTEMS[system].optional}  # stages, and whose they are
WORDS = {"unet_text_channels": 16, "unet_text_layers": 1, "unet_text_vocabulary": 300}  # of a small text encoder
PAINTING = ("--steps", "3", "--batch_size", "2")


@dataclass(frozen=True)
class Job:
    """A training command: what it begins with, and what it leaves where nothing disturbs it."""

    name: str
    words: list[str]  # all but --run
    before: Path | None  # a run; None: there is nothing
    whole: Path
    seconds: float

    def on(self, run: Path) -> list[str]:
        """The command for a run in another folder, which is made what it was before, unless it is there."""
        if self.before and not run.exists():
            shutil.copytree(self.before, run)
        return [*self.words, "--run", str(run)]


class Base:
    """What every trial starts from: a data set, the run after each of its stages, its pictures and their score, all undisturbed."""

    def __init__(self, place: Path, trained: list[str]):
        self.place, self.trained, self.places = place, trained, Counter()
        self.data, self.described, self.styles = place / "data", place / "described", place / "styles"
        write_dataset(self.data, train=10, test=5, seed=1, size=SIZE, progress=False)
        write_styles(self.styles, styles=2, pictures=3, prompts=2, size=SIZE)
        shutil.copytree(self.data / "train_resized" / "imgs", self.described / "train")
        described = {path.stem: f"picture {i}" for i, path in enumerate(sorted((self.described / "train").iterdir()))}
        for name in ("train_info.json", "test.json"):
            (self.described / name).write_text(json.dumps(described))
        self.after = [job.whole for job in self.jobs(DEFAULT)[:3]]
        self.run = self.after[-1]
        begun = time.monotonic()
        finished(*self.painting(self.run, place / "results"), "--score")
        self.painting_seconds = time.monotonic() - begun

    @cache  # noqa: B019  (there is one base)
    def jobs(self, name: str) -> list[Job]:
        """The commands that train a system: its usual stages one by one, and all of them at once with their rehearsal, where there are
        several. Or the one that trains a stage that must be named, on what is usual."""
        system, jobs = OPTIONAL.get(name, name), []
        stages = [name] if name in OPTIONAL else SYSTEMS[system].usual
        before = self.jobs(system)[-1].whole if name in OPTIONAL else None
        for stage in stages:
            whole, words = self.place / f"after-{system}-{stage}", [*self.training(system), "--stage", stage]
            jobs.append(self.done(f"{stage} of {system}", words, before, whole))
            before = whole
        if len(jobs) > 1:
            jobs.append(Job(f"all of {system}", self.training(system), None, before, sum(job.seconds for job in jobs)))
        return jobs

    @cached_property
    def by_two(self) -> Job | None:
        """The first stage, trained by two processes; None where there is no mpirun."""
        mpirun = shutil.which("mpirun", path=f"{sys.prefix}/bin:{os.environ['PATH']}")
        several = [mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2"]
        first = self.jobs(DEFAULT)[0]
        return mpirun and self.done(f"{first.name} by two processes", [*several, *first.words], None, self.place / "by-two")

    @staticmethod
    def done(name: str, words: list[str], before: Path | None, whole: Path) -> Job:
        """A job that has been done undisturbed."""
        begun = time.monotonic()
        finished(*Job(name, words, before, whole, 0.0).on(whole))
        return Job(name, words, before, whole, time.monotonic() - begun)

    def any_job(self, chance: random.Random) -> Job:
        return chance.choice([job for name in self.trained for job in self.jobs(name)])

    def training(self, system: str = DEFAULT, data: Path | None = None) -> list[str]:
        """The command that trains a small run of a system, all but --run."""
        options = arguments(*(stage.name for stage in SYSTEMS[system].stages), **(WORDS if system == "text" else {}))
        options += ["--style_pictures", str(self.styles)] if system == "text" else []
        words = ["--input_path", str(data or self.data), "--val_fraction", "0.3", "--system", system, *options]
        return [sys.executable, str(ROOT / "MainTrain.py"), *words]

    def painting(self, run: Path, output: Path, data: Path | None = None) -> list[str]:
        words = ["--input_path", str(data or self.data), "--img_path", str(data or self.data), "--checkpoint", str(run)]
        return [sys.executable, str(ROOT / "MainTest.py"), *words, "--output_path", str(output), *PAINTING]
