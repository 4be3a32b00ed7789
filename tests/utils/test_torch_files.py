"""The reader of PyTorch's files: code in them is refused, and so is what would fill the memory. Values: tests/utils/test_checkpoint.py."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from utils import torch_files
from utils.checkpoint import read_weights
from utils.errors import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def legacy_file(content):
    magic = 0x1950A86A20F9469CFC6C
    return b"".join(pickle.dumps(part, protocol=2) for part in (magic, 1001, {}, content, []))


def zip_file(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [legacy_file, zip_file])
@pytest.mark.parametrize("wrap", [lambda bomb: bomb, lambda bomb: {"state_dict": {"w": bomb}}])
def test_code_in_a_pickle_is_not_run(tmp_path, pack, wrap):
    mark, path = tmp_path / "ran", tmp_path / "model.pth"
    bomb = wrap(Bomb(f"touch {mark}"))
    path.write_bytes(pack(bomb))
    with pytest.raises(UserError, match=rf"{path} contains (posix|nt)\.system: not a tensor but code"):
        read_weights(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(bomb, protocol=2))
    assert mark.exists(), "the bomb itself is a dud"


def test_a_pickled_module_is_refused_by_name():
    with pytest.raises(UserError, match=r"module\.pth contains torch\.nn\.modules\.linear\.Linear"):
        read_weights(GOLDEN / "module.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"", "neither a safetensors nor a PyTorch file"),
        (pickle.dumps([1, 2]), "not of PyTorch"),
        (legacy_file([1, 2]), "holds a list and no state dict"),
        (legacy_file({"epoch": 3, "model": {}}), "holds no tensors but epoch, model"),
        (zip_file({}), "holds no tensors"),
    ],
)
def test_files_of_another_kind_are_told_apart(tmp_path, content, message):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(path)


# ------------------------------------------------------------------------------------------------------ small files, large memory


def pickled_tensors(count, shape, strides):
    """A state dict of tensors that look into one storage of 4 numbers, in pickle's own text."""
    parts = [b"\x80\x02}("]
    for index in range(count):
        numbers = ["(" + "".join(f"I{number}\n" for number in numbers) + "t" for numbers in (shape, strides)]
        parts.append(
            f"V{index}\nctorch._utils\n_rebuild_tensor_v2\n("
            f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQI0\n{numbers[0]}{numbers[1]}tR".encode()
        )
    return b"".join([*parts, b"u."])


def write_zip(path, pickled, storage=bytes(16), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", storage)


def test_the_pickles_written_here_are_read(tmp_path):
    """Without which it would say nothing that those below are refused."""
    write_zip(tmp_path / "model.pth", pickled_tensors(2, (2, 2), (2, 1)), np.arange(4, dtype=np.float32).tobytes())
    weights = read_weights(tmp_path / "model.pth")
    assert weights.keys() == {"0", "1"} and weights["1"].tolist() == [[0, 1], [2, 3]]


def test_a_compressed_member_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "model.pth"
    write_zip(path, pickled_tensors(1, (4,), (1,)), bytes(1 << 28), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 19
    with pytest.raises(UserError, match=rf"^{path} is compressed, .*save it again$"):
        read_weights(path)


def test_a_member_that_claims_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    write_zip(path, pickled_tensors(1, (4,), (1,)))
    entry = struct.pack("<II", 16, 16)  # both sizes, in the directory and before the member
    content = path.read_bytes()
    assert content.count(entry) == 2
    path.write_bytes(content.replace(entry, struct.pack("<II", 1 << 31, 1 << 31)))
    with pytest.raises(UserError, match=rf"^{path} claims to hold more than it does"):
        read_weights(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """Each is no larger than the file, and all together are a thousand times as large."""
    path = tmp_path / "model.pth"
    write_zip(path, pickled_tensors(1, (4,), (1,)), bytes(1 << 20))
    with zipfile.ZipFile(path, "a") as archive:
        (storage,) = (member for member in archive.infolist() if member.filename == "archive/data/0")
        archive.filelist += [storage] * 1000
        archive._didModify = True
    with pytest.raises(UserError, match="claims to hold more than it does"):
        read_weights(path)


@pytest.mark.parametrize("pack", ["zip", "legacy"])
def test_tensors_repeated_by_strides_of_zero_are_refused(tmp_path, pack):
    """400 of 32 MB each, in some 50 kB."""
    path, pickled = tmp_path / "model.pth", pickled_tensors(400, (1 << 23,), (0,))
    if pack == "zip":
        write_zip(path, pickled)
    else:
        first = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
        path.write_bytes(first + pickled + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + bytes(16))
    assert path.stat().st_size < 60_000
    with pytest.raises(UserError, match=rf"^{path} names tensors of 12800 MB in all"):
        read_weights(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_of_marks_alone_is_refused(tmp_path, monkeypatch, legacy):
    """Of each byte the unpickler makes a list."""
    path = tmp_path / "model.pth"
    monkeypatch.setattr(torch_files, "PICKLE_BYTES", 1 << 20)
    pickled = b"\x80\x02" + pickle.MARK * (1 << 21)
    path.write_bytes(pickled) if legacy else write_zip(path, pickled)
    with pytest.raises(UserError, match=rf"^{path} has more than 1 MB beside its tensors"):
        read_weights(path)


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x96" + struct.pack("<Q", 1 << 28) + b"0",  # a bytearray of 256 MB
        b"(" + b"K\x00" * 100_000 + b"tq\x010" + b"ctorch\nSize\nq\x020" + b"h\x02h\x01\x85R" * 1000,  # a long tuple, copied
        b"](" + b"K\x00K\x00\x86" * 100_000 + b"eq\x010" + b"ccollections\nOrderedDict\nq\x020" + b"h\x02h\x01\x85R" * 100,
    ],
    ids=["bytearray", "size", "dictionary"],
)
def test_a_pickle_that_multiplies_what_it_holds_is_refused(tmp_path, opcodes):
    path = tmp_path / "model.pth"
    content = pickled_tensors(1, (4,), (1,))
    write_zip(path, content[:2] + opcodes + content[2:])
    with pytest.raises(UserError, match=r"damaged or incomplete \(a (pickle|tensor) "):
        read_weights(path)


def test_attributes_of_a_state_dict_are_left_out(tmp_path):
    """They cannot be set on what a pickle names, and a long dictionary of them is not copied."""
    state = torch_files.TensorUnpickler(io.BytesIO(b"\x80\x02ccollections\nOrderedDict\n)R}Vname\nI1\nsb."), tmp_path).load()
    assert type(state) is OrderedDict and not vars(state)
