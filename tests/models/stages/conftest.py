from pathlib import Path

import pytest

from datasets.pairs import Pair, check_training_pairs
from datasets.synthetic.render import draw
from utils.image import write_jpeg, write_png


def drawn_pairs(root: Path, scenes: list[tuple[int, int]]) -> list[Pair]:
    """Drawn photos of 96x64 and their masks, of these layouts and styles."""
    for layout, style in scenes:
        image, mask, _ = draw(layout, style, (96, 64))
        write_jpeg(root / "imgs" / f"{style}{layout}.jpg", image)
        write_png(root / "labels" / f"{style}{layout}.png", mask)
    return check_training_pairs(root)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> list[Pair]:
    """Four pictures, each of a layout and a style of its own."""
    return drawn_pairs(tmp_path_factory.mktemp("pairs"), [(i, i) for i in range(4)])
