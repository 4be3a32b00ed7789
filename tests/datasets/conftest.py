import pytest

from tests.datasets.files import save_mask, save_picture


@pytest.fixture
def root(tmp_path):
    """A sound training set of four pairs."""
    for stem in "abcd":
        save_picture(tmp_path / "train_resized" / "imgs" / f"{stem}.jpg")
        save_mask(tmp_path / "train_resized" / "labels" / f"{stem}.png")
    return tmp_path


@pytest.fixture
def imgs(root):
    return root / "train_resized" / "imgs"


@pytest.fixture
def masks(root):
    return root / "train_resized" / "labels"
