"""Trials of tests/fuzz.py that disturb what is read: data, weights, files of runs, pictures, options.

A trial is a function of the base, a generator of chance and an empty folder; it notes what it does, and raises Failure.
"""

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import MainTest
import MainTrain
from datasets.pairs import check_training_pairs
from datasets.prepare.clean import write_report
from datasets.prepare.split import write_split
from datasets.prepare.super_resolution import write_resolutions
from datasets.styles import check_styles, find_style_prompts
from datasets.test_pairs import find_test_pairs
from datasets.text_pairs import check_text_pairs, find_prompts
from models.metrics.mask_accuracy import load_judge
from models.painters.pictures import painted
from models.painters.super_resolution import rcan_of
from models.systems import SYSTEMS
from models.training.run import choose_run, read_best, read_run
from tests.damage import bomb, damage, mirror
from tests.fuzz_base import OPTIONAL, Base
from tests.hostile import ROOT, Failure, alike, answered, arguments_of, asked, contents, finished, options_of, same_files, same_score
from utils.checkpoint import read_training_state, read_weights
from utils.logger import RunLog


def spoilt_measurements(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """What is kept of photos and pictures is measured again where it is damaged: latents, features, statistics of colours."""
    kept_measurements(base, chance, place, note, lambda kept, measured: damage(chance, chance.choice(sorted(kept.rglob("*.rows")))))


def changed_pictures(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Nor is it taken for that of other pictures, of the same names, sizes and times."""

    def mirror_some(kept: Path, measured: Path) -> str:
        return ", ".join(mirror(path) for path in chance.sample(sorted(measured.glob("*.jpg")), chance.randint(1, 3)))

    kept_measurements(base, chance, place, note, mirror_some)


def kept_measurements(base: Base, chance: random.Random, place: Path, note: Callable, disturb: Callable[[Path, Path], str]) -> None:
    """With measurements that were kept, and that `disturb` has done something to, or to what was measured, comes the same as without."""
    data, run, new = place / "data", place / "run", place / "new"
    shutil.copytree(base.data, data)
    if chance.random() < 0.5:
        for folder in (run, new):
            shutil.copytree(base.after[0], folder)
        shutil.copytree(base.after[1] / "latents", run / "latents")  # which the UNet would encode
        note(disturb(run, data / "train_resized" / "imgs"))
        for folder in (run, new):
            finished(*base.training(data=data), "--run", str(folder), "--stage", "unet")
        alike(*({name: content for name, content in contents(folder).items() if not name.endswith(".rows")} for folder in (run, new)))
    else:
        for folder in (run, new):
            shutil.copytree(base.place / "results", folder / "results")
        shutil.copytree(base.place / "results-score", run / "results-score")
        note(disturb(run / "results-score", run / "results"))
        shutil.copytree(run / "results", new / "results", dirs_exist_ok=True)
        for folder in (run, new):
            finished(*base.painting(base.run, folder / "results"), "--score")
        same_score(run, new)


def damaged_data(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Photos, masks, captions, prompts and styles, by all that reads them."""
    data, kind = place / "data", chance.choice(["drawn", "drawn", "described", "styles"])
    shutil.copytree({"drawn": base.data, "described": base.described, "styles": base.styles}[kind], data)
    for _ in range(chance.choice([1, 1, 3])):
        note(damage(chance, chance.choice(sorted(path for path in data.rglob("*") if path.is_file())), renamed=True))
    readers = {
        "drawn": (
            lambda: check_training_pairs(data),
            lambda: check_training_pairs(data, skip_bad=True, report_path=place / "report.txt", cache=place / "checked.json"),
            lambda: find_test_pairs(data, data),
            lambda: write_report(data, place / "clean"),
            lambda: write_split(data, place / "split", 0.3, skip_bad=True),
            lambda: write_resolutions(data, place / "sr"),
        ),
        "described": (lambda: check_text_pairs(data), lambda: check_text_pairs(data, skip_bad=True), lambda: find_prompts(data)),
        "styles": (lambda: check_styles(data), lambda: find_style_prompts(data)),
    }
    for check in readers[kind]:
        asked(check)
    if kind == "drawn" and chance.random() < 0.1:
        answered(*base.training(data=data), "--run", str(place / "run"), "--stage", "vae", "--skip_bad")
        answered(*base.painting(base.run, place / "results", data), "--zip")


def damaged_weights(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Files that PyTorch wrote: nothing in them is run, and none takes more memory than it has bytes."""
    golden = [path for path in sorted((ROOT / "tests" / "golden").iterdir()) if path.suffix in (".pth", ".ckpt", ".safetensors")]
    path = Path(shutil.copy(chance.choice(golden), place))
    for _ in range(chance.choice([1, 1, 4])):
        note(damage(chance, path))
    asked(lambda: read_weights(path))


def bombs(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Weights that claim to be far more than they have bytes."""
    note(bomb(chance, place / "weights"))
    asked(lambda: read_weights(place / "weights"))


def damaged_run(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """A file of a run, by all that reads it, and by the commands that go on with it."""
    run, job = place / "run", base.any_job(chance)
    shutil.copytree(job.whole, run)
    names = (
        "run.json",
        "best.json",
        "config.json",
        "tokenizer.json",
        "log.jsonl",
        "checked_training.json",
        "step-*.safetensors",
        "diff*.safetensors",
    )
    path = chance.choice([path for name in names for path in chance.choices(sorted(run.rglob(name)) or [run / "run.json"])])
    note(damage(chance, path))
    for check in (
        lambda: read_run(run, SYSTEMS),
        lambda: read_best(run),
        lambda: [read_weights(file) for file in run.rglob("*.safetensors")],
        lambda: [at_step(file) for file in run.rglob("step-*.safetensors")],
        lambda: RunLog(run, "decoder").close(),
        lambda: use(base, run),
        lambda: begun(MainTrain, ["MainTrain.py", "--run", str(run)]),
    ):
        asked(check)
    if chance.random() < 0.15:
        training = [*job.words, "--run", str(run)]
        answered(*chance.choice([training, [*training, "--restart"], base.painting(run, place / "results")]))


def at_step(state: Path) -> None:
    """Raises Failure where a training state is read that does not say what its name does."""
    step = read_training_state(state)[1]["step"]
    if step != int(state.stem.removeprefix("step-")):
        raise Failure(f"{state} is taken for one of step {step}")


def use(base: Base, folder: Path) -> None:
    """What a run is for, in this process: a picture, in one step where it takes any; or its judge, or what makes pictures larger."""
    run = read_run(folder, SYSTEMS)
    painter = SYSTEMS[run.system].painter
    if painter is None:
        (load_judge if run.system == "judge" else rcan_of)(run)
        return
    pairs = painter.find_pairs(base.styles) if run.system == "text" else find_test_pairs(base.data, base.data)
    options = painter.Options(**({"steps": 1} if hasattr(painter.Options, "steps") else {}))
    painted(painter.load(run, folder), pairs[:1], options, seed=0, candidate=0, color="none")


def damaged_results(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """What is no picture is neither kept nor packed; the others stay as they are, whatever the note of what painted them says."""
    results = place / "results"
    shutil.copytree(base.place / "results", results)
    record = Path(shutil.copy(base.place / "results-painted.jsonl", place))
    path = chance.choice([record, *sorted(results.iterdir())])
    note(damage(chance, path))
    before = contents(results)
    result = answered(*base.painting(base.run, results), "--zip")
    after = contents(results)
    same_files(before, after)
    if result.returncode == 0:
        asked(lambda: MainTest.kept(find_test_pairs(base.data, base.data), results), must=True)
    elif after != before or (place / "results.zip").exists():
        raise Failure("there are new files, though nothing was painted")


def strange_options(base: Base, chance: random.Random, place: Path, note: Callable) -> None:
    """Numbers, names and paths that make no sense are refused before anything is computed."""
    for _ in range(60):
        main, script, words = strange_words(base, chance, place)
        try:
            asked(lambda main=main, words=words: begun(main, ["", *words]))
        except Failure as failure:
            raise Failure(f"{script} {words}: {failure}") from failure


def begun(main: object, command: list[str]) -> None:
    """What a script does first with a command, its name in front: reads the options. Raises Failure where what makes no sense has been
    taken."""
    with arguments_of(command):
        args = main.parse_arguments()
    main.check_arguments(args)
    if main is MainTrain:
        folder = MainTrain.CHECKPOINTS / args.run
        choose_run(args, folder, args.system, SYSTEMS, "tiny")
        if MainTrain.CHECKPOINTS.is_relative_to(folder.resolve()):
            raise Failure(f"a run in {folder}")
    no_numbers = [name for name, value in vars(args).items() if isinstance(value, float) and math.isnan(value)]
    if no_numbers:
        raise Failure(f"nan is taken for {', '.join(no_numbers)}")


def strange_words(base: Base, chance: random.Random, place: Path) -> tuple[object, str, list[str]]:
    """A script, its name, and a command for it in which one option has values that make no sense."""
    values = ["nan", "nan", "-1", "0", "-inf", "inf", "1e30", "1e-30", "7", str(10**9), str(10**25), "", " ", "x", "../..", "/", "x" * 300]
    values += ["\udcff", "\n", "0.5", "/dev/null", "README.md", str(base.run), str(base.data)]
    main, script = chance.choice([(MainTrain, "MainTrain.py"), (MainTest, "MainTest.py")])
    words = [*base.training(OPTIONAL.get(name := chance.choice(base.trained), name)), "--run", str(place / "run")][2:]
    if main is MainTest:
        words = base.painting(base.run, place / "results")[2:]
    return main, script, [*words, chance.choice(options_of(main, words)), *chance.choices(values, k=chance.choice([0, 1, 1, 1, 2]))]
