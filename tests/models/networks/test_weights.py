import hashlib

import pytest

from models.networks.weights import SOURCES, MissingWeights, find_any, find_weights
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
