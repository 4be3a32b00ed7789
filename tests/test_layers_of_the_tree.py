"""Imports run downward only: a file imports its own floor and those below it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [  # from the top; the longest name that fits a module says where it lives
    {"MainTrain", "MainTest", "datasets.prepare"},  # the commands
    {"models.systems", "models.runs", "models.serving"},
    {"models.painters", "models.training", "models.stages", "models.metrics"},
    {"models.networks", "models.diffusion", "models.losses", "datasets"},
    {"models.ops"},
    {"utils"},
]
APART = {"models.diffusion": {"models.networks", "datasets"}, "datasets": {"models"}}  # what may not be imported though the floor would do
WITHOUT_JITTOR = {"models.diffusion", "datasets"}
NEED_NO_JITTOR = {*WITHOUT_JITTOR, "utils", "datasets.prepare"}  # but for some files of utils, which say so themselves
NOWHERE = {"torch", "jtorch", "torchvision", "diffusers"}  # PyTorch serves only to export reference values


def home(module: str) -> str | None:
    """The entry of FLOORS that a module belongs to; None for a module that is not ours."""
    return max((name for floor in FLOORS for name in floor if f"{module}.".startswith(f"{name}.")), key=len, default=None)


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imported(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in names_of(node)}


def names_of(node: ast.AST) -> list[str]:
    """The modules that a statement imports, and what it takes of one, which may be a module too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import of {node.module}"
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def test_imports_run_downward_only():
    files = [path for top in ("*.py", "models/**/*.py", "datasets/**/*.py", "utils/**/*.py") for path in ROOT.glob(top)]
    assert len(files) > 20
    wrong = []
    for path in files:
        own = home(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if path.name == "__init__.py" and own is None:
            continue
        assert own is not None, f"{path} lives on no floor"
        banned = NOWHERE | ({"jittor"} if own in WITHOUT_JITTOR else set())
        for module in imported(path):
            other = home(module)
            upward = other is not None and floor(other) < floor(own)
            apart = any(f"{module}.".startswith(f"{name}.") for name in APART.get(own, ()))
            if upward or apart or module.split(".")[0] in banned:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_nothing_but_the_reference_values_and_the_comparison_of_speed_need_pytorch():
    theirs = [*(ROOT / "tests" / "golden").glob("*.py"), ROOT / "tests" / "benchmarks" / "pytorch_side.py"]
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path not in theirs]
    assert len(tests) > 10
    assert not [path for path in tests if {module.split(".")[0] for module in imported(path)} & NOWHERE]


def test_what_is_run_prepares_jittor_before_it_imports_it():
    """Else Jittor would download a library, or die where there is no network; pytest does it in tests/conftest.py."""
    files = [path for top in ("*.py", "models/**/*.py", "datasets/**/*.py", "tests/**/*.py") for path in ROOT.glob(top)]
    scripts = [path for path in files if '__name__ == "__main__"' in path.read_text()]
    assert len(scripts) > 10
    wrong = []
    for path in scripts:
        lines = {name: node.lineno for node in ast.walk(ast.parse(path.read_text())) for name in names_of(node)}
        of_jittor = [line for name, line in lines.items() if name == "jittor" or (home(name) or "models.diffusion") not in NEED_NO_JITTOR]
        if of_jittor and lines.get("utils.jittor_setup", max(of_jittor)) >= min(of_jittor):
            wrong.append(path.relative_to(ROOT))
    assert not wrong


def test_files_are_short_enough_to_be_read():
    """The two scripts fit in 200 lines, every other file in 400; the README, in two languages, in 260."""
    limits = {path: 400 for top in ("models", "datasets", "utils", "tests") for path in (ROOT / top).rglob("*.py")}
    limits |= dict.fromkeys((ROOT / "MainTrain.py", ROOT / "MainTest.py"), 200) | {ROOT / "README.md": 260}
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in limits}
    assert not {path: count for path, count in lines.items() if count > limits[ROOT / path]}
