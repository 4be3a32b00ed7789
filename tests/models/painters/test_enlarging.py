"""Pictures made larger, whoever painted them."""

import os

import jittor as jt
import numpy as np
import pytest

from datasets.landscape import read_image
from datasets.synthetic.render import draw
from models.networks.rcan import RCAN
from models.painters.super_resolution import SuperResolution, enlarge_files, larger
from models.stages.rcan import start_as_interpolation
from tests.small import OPTIONS
from utils.errors import UserError
from utils.image import resize, write_jpeg


@pytest.fixture(scope="module")
def network():
    jt.set_global_seed(0)
    network = RCAN(OPTIONS["rcan"].network)
    start_as_interpolation(network)
    return network


@pytest.mark.parametrize("size, calls", [((96, 64), 3), ((64, 48), 3), ((128, 96), 2), ((512, 384), 0), ((600, 400), 0), ((512, 100), 2)])
def test_pictures_come_to_the_size_that_is_asked_for(network, monkeypatch, size, calls):
    """Doubled as often as need be and no more; what is as large or larger is only resized."""
    seen, doubled = [], SuperResolution.doubled
    monkeypatch.setattr(SuperResolution, "doubled", lambda self, picture: seen.append(1) or doubled(self, picture))
    picture = draw(0, 0, size)[0]
    result = SuperResolution(network, 0).enlarged(picture, (512, 384))
    assert result.shape == (384, 512, 3) and len(seen) == calls
    if not calls:
        assert np.array_equal(result, resize(picture, (512, 384)))
    assert np.abs(result.astype(int) - resize(picture, (512, 384))).mean() < 6


@pytest.fixture
def files(tmp_path):
    for i in range(2):
        write_jpeg(tmp_path / "results" / f"{i}.jpg", draw(i, i, (64, 48))[0])
    return [tmp_path / "results" / f"{i}.jpg" for i in range(2)]


def test_larger_ones_are_written_beside_and_continue_from_one_another(network, files):
    super_resolution = SuperResolution(network, 0)
    enlarge_files(files, files[0].parent, [4], super_resolution, quiet=True)
    for file in files:
        assert larger(file, 4, file.parent) == file.parents[1] / "results-x4" / file.name and not larger(file, 2, file.parent).exists()
        expected = super_resolution.doubled(super_resolution.doubled(read_image(file)))
        difference = np.abs(read_image(larger(file, 4, file.parent)).astype(int) - expected)
        assert expected.shape == (192, 256, 3) and difference.mean() < 2  # what JPEG makes of it
    enlarge_files(files, files[0].parent, [4, 2], super_resolution, quiet=True)
    assert read_image(larger(files[0], 2, files[0].parent)).shape == (96, 128, 3)
    assert len([*files[0].parent.iterdir()]) == 2


def test_larger_ones_of_styles_keep_the_folder_of_their_style(network, tmp_path):
    results = tmp_path / "results"
    styled, leftover = results / "01" / "0.png", tmp_path / "results-x2" / "01" / f".1.png.{os.uname().nodename[:50]}.9999999.tmp"
    for path in (styled, leftover):
        write_jpeg(path, draw(0, 0, (64, 48))[0])
    enlarge_files([styled], results, [2], SuperResolution(network, 0), quiet=True)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.*"))] == ["results/01/0.png", "results-x2/01/0.png"]


@pytest.mark.bit_for_bit
def test_what_is_there_is_kept_until_its_picture_changes(network, files):
    super_resolution = SuperResolution(network, 0)
    enlarge_files(files, files[0].parent, [2], super_resolution, quiet=True)
    before = [larger(file, 2, file.parent).read_bytes() for file in files]
    larger(files[0], 2, files[0].parent).write_bytes(b"mine")
    larger(files[1], 2, files[0].parent).unlink()
    enlarge_files(files, files[0].parent, [2], super_resolution, quiet=True)
    assert [larger(file, 2, file.parent).read_bytes() for file in files] == [b"mine", before[1]]
    os.utime(files[0], ns=(0, larger(files[0], 2, files[0].parent).stat().st_mtime_ns + 1))
    enlarge_files(files, files[0].parent, [2], super_resolution, quiet=True)
    assert [larger(file, 2, file.parent).read_bytes() for file in files] == before


def test_a_damaged_picture_is_named(network, files):
    files[1].write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.jpg"):
        enlarge_files(files, files[0].parent, [2], SuperResolution(network, 0), quiet=True)
    assert larger(files[0], 2, files[0].parent).is_file()
