"""Rows: measured once, kept through kills, found again by content."""

import numpy as np
import pytest

from utils.errors import UserError
from utils.rows import digest, measured, writable_folder

ROW = np.dtype([("square", np.float32), ("pair", np.int16, (2,))])


def keys(*numbers):
    return [digest(bytes([number])) for number in numbers]


class Measure:
    """Squares of numbers, remembering which were asked for."""

    def __init__(self, numbers, fail_at=None):
        self.numbers, self.fail_at, self.asked = numbers, fail_at, []

    def __call__(self, indices):
        if self.fail_at is not None and len(self.asked) >= self.fail_at:
            raise KeyboardInterrupt
        self.asked += [self.numbers[i] for i in indices]
        return np.array([(self.numbers[i] ** 2, (i, self.numbers[i])) for i in indices], ROW)


def squares(path, numbers, **options):
    measure = Measure(numbers, **options)
    return measured(path, keys(*numbers), ROW, measure, 2, "squares"), measure.asked


def test_rows_come_in_the_order_of_their_keys_and_are_measured_once(tmp_path):
    path = tmp_path / "folder" / "squares.rows"
    rows, asked = squares(path, [3, 5, 3, 7])
    assert list(rows[:]["square"]) == [9, 25, 9, 49] and sorted(asked) == [3, 5, 7]
    rows, asked = squares(path, [7, 8, 5])
    assert list(rows[:]["square"]) == [49, 64, 25] and asked == [8]
    assert [list(block["square"]) for block in rows.blocks(2)] == [[49, 64], [25]]
    assert list(rows[np.array([2, 0])]["square"]) == [25, 49] and len(rows) == 3
    assert list(rows.column("square")) == [49, 64, 25]


def test_a_killed_measurement_goes_on_from_what_it_has(tmp_path):
    path, numbers = tmp_path / "squares.rows", list(range(1, 9))
    with pytest.raises(KeyboardInterrupt):
        squares(path, numbers, fail_at=4)
    with open(path, "ab") as file:
        file.write(b"half a record")
    rows, asked = squares(path, numbers)
    assert asked == [5, 6, 7, 8] and list(rows[:]["square"]) == [number**2 for number in numbers]


def test_what_a_disk_has_spoilt_is_measured_again_and_said_once(tmp_path, capsys):
    path, numbers = tmp_path / "squares.rows", list(range(1, 9))
    squares(path, numbers)
    content = bytearray(path.read_bytes())
    size = len(content) // len(numbers)
    content[2 * size + 33] ^= 64  # a measurement
    content[5 * size + 3] ^= 1  # a key
    path.write_bytes(content[:-5])
    rows, asked = squares(path, numbers)
    assert asked == [3, 6, 8] and list(rows[:]["square"]) == [number**2 for number in numbers]
    assert f"{path}: 1 measurements are damaged" in capsys.readouterr().err
    rows, asked = squares(path, numbers)
    assert asked == [] and list(rows[:]["square"]) == [number**2 for number in numbers]
    assert "damaged" not in capsys.readouterr().err


def test_a_picture_that_has_vanished_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path / 'photo.jpg'} cannot be read"):
        digest(tmp_path / "photo.jpg")


def test_nothing_to_measure(tmp_path):
    rows, asked = squares(tmp_path / "squares.rows", [])
    assert len(rows) == 0 and list(rows.blocks()) == [] and asked == []


def test_a_key_is_of_the_contents(tmp_path):
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b != c
    assert digest(a, tmp_path / "c") != digest(tmp_path / "c", a)


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        squares(tmp_path / "file" / "squares.rows", [1])
    assert writable_folder(tmp_path, tmp_path / "other") == tmp_path
    assert writable_folder(tmp_path / "file", tmp_path / "other") == tmp_path / "other"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
