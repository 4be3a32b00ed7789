"""Imports run downward only: a file imports its own layer and those below it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {  # each with what it may import of ours, and whether it may import Jittor; the longest name that fits a module decides
    "MainTrain": ({"models", "models.stages", "models.diffusion", "datasets", "utils"}, True),
    "MainTest": ({"models", "models.metrics", "models.diffusion", "datasets", "utils"}, True),
    "models.stages": ({"models", "models.stages", "models.metrics", "models.diffusion", "datasets", "utils"}, True),
    "models.metrics": ({"models", "models.metrics", "models.diffusion", "datasets", "utils"}, True),
    "models": ({"models", "models.diffusion", "models.ops", "datasets", "utils"}, True),
    "models.diffusion": ({"models.diffusion", "utils"}, False),
    "models.ops": ({"models.ops", "utils"}, True),
    "datasets": ({"datasets", "utils"}, False),
    "utils": ({"utils"}, True),
}
NOWHERE = {"torch", "jtorch", "torchvision", "diffusers"}  # PyTorch serves only to export reference values


def layer(module: str) -> str | None:
    return max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len, default=None)


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def test_imports_run_downward_only():
    files = [path for top in ("*.py", "models/**/*.py", "datasets/**/*.py", "utils/**/*.py") for path in ROOT.glob(top)]
    assert len(files) > 20
    upward = []
    for path in files:
        allowed, jittor = LAYERS[layer(".".join(path.relative_to(ROOT).with_suffix("").parts))]
        allowed, banned = allowed | {None}, NOWHERE | (set() if jittor else {"jittor"})
        upward += [
            f"{path.relative_to(ROOT)} imports {module}"
            for module in imported(path)
            if layer(module) not in allowed or module.split(".")[0] in banned
        ]
    assert not upward, "\n".join(upward)


def test_nothing_but_the_reference_values_and_the_comparison_of_speed_need_pytorch():
    theirs = [*(ROOT / "tests" / "golden").glob("*.py"), ROOT / "tests" / "benchmarks" / "pytorch_side.py"]
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path not in theirs]
    assert len(tests) > 10
    assert not [path for path in tests if {module.split(".")[0] for module in imported(path)} & NOWHERE]
