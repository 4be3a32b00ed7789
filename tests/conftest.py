import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.jittor_setup  # noqa: F401  (before any test imports Jittor)

# isort: split
import jittor as jt
import pytest

from datasets.synthetic.write import write_dataset
from tests.small import write_small_run


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A drawn data set in the competition's layout, to be left as it is."""
    root = tmp_path_factory.mktemp("data") / "drawn"
    write_dataset(root, train=10, test=5, seed=1, size=(128, 96), progress=False)
    return root


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A run of the main system that has learnt nothing: it paints 96x64."""
    folder = tmp_path_factory.mktemp("checkpoints") / "untrained"
    write_small_run(folder)
    return folder


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "bit_for_bit: compares what was computed twice to the last bit. A GPU adds up in any order: skipped there."
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("bit_for_bit") and jt.flags.use_cuda:
        pytest.skip("the same to the last bit on the CPU alone")
