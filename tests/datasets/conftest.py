import os

import pytest
from PIL import EpsImagePlugin

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


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program in the place of Ghostscript that only makes this file: it must never be there."""
    called = tmp_path / "ghostscript was called"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{called}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # where Pillow remembers whether there is one
    return called
