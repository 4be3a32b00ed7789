import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import jittor as jt
import numpy as np
import pytest
import safetensors.numpy
from jittor import nn

from utils import files
from utils.checkpoint import (
    atomic_write,
    latest_training_state,
    load_strict,
    module_arrays,
    read_safetensors,
    read_training_state,
    read_weights,
    save_training_state,
    write_json,
    write_safetensors,
)
from utils.errors import DiskError, UserError
from utils.optimizer import AdamW

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FILES = ["weights.safetensors", "weights.pth", "weights-legacy.pth", "training.ckpt", "training-legacy.ckpt"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name, strict=True)


# ------------------------------------------------------------------------------------------------------- reading weights


@pytest.mark.parametrize("file", FILES)
def test_every_type_and_view_is_read_as_pytorch_wrote_it(file):
    weights = read_weights(GOLDEN / file)
    assert_same(weights, dict(np.load(GOLDEN / "weights.npz")))
    for name, array in weights.items():
        assert array.flags.c_contiguous and array.flags.writeable, name


def test_a_folder_gives_safetensors_and_full_precision_first(tmp_path):
    def weights(value):
        return {"w": np.array([value], np.float32)}

    with pytest.raises(UserError, match=r"holds no weights: diffusion_pytorch_model\.safetensors"):
        read_weights(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes((GOLDEN / "weights.pth").read_bytes())
    assert "bfloat16_transposed" in read_weights(tmp_path)
    write_safetensors(tmp_path / "diffusion_pytorch_model.fp16.safetensors", weights(1))
    assert_same(read_weights(tmp_path), weights(1))
    write_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", weights(2))
    assert_same(read_weights(tmp_path), weights(2))


@pytest.mark.parametrize("file", FILES)
def test_damaged_files_give_one_sentence(tmp_path, file):
    """Cut short, every one; with a wrong byte, many, and none another exception than UserError."""
    content = (GOLDEN / file).read_bytes()
    path = tmp_path / file
    for length in [*range(0, 40), *range(40, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=str(path)) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    refused = 0
    for position in random.Random(0).sample(range(len(content)), 150):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x5A]) + content[position + 1 :])
        try:
            with np.errstate(over="ignore"):  # a wrong byte can make a float64 that is no float32
                read_weights(path)
        except UserError as error:
            refused += str(path) in str(error)
    assert refused > 20


def handmade(path, entries, data):
    header = json.dumps({name: {"dtype": kind, "shape": [4], "data_offsets": place} for name, (kind, place) in entries.items()}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_safetensors_that_use_bytes_twice_or_not_at_all_are_damaged(tmp_path):
    """A thousand names for the same bytes would make a thousand arrays of them."""
    path = tmp_path / "weights.safetensors"
    for places in ([0, 16], [0, 16]), ([0, 16], [32, 48]), ([0, 16], [16, 32]):
        handmade(path, {str(number): ("F32", place) for number, place in enumerate(places)}, bytes(48))
        with pytest.raises(UserError, match=rf"^{path} is damaged or incomplete .*: download or copy it again$"):
            read_weights(path)


def test_a_type_that_is_not_read_is_named(tmp_path):
    handmade(tmp_path / "weights.safetensors", {"w": ("F8_E4M3", [0, 4])}, bytes(4))
    with pytest.raises(UserError, match=r"weights\.safetensors: w is stored as F8_E4M3, which is not read: convert it to F32"):
        read_weights(tmp_path / "weights.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read weights from .*absent\.pth: No such file"):
        read_weights(tmp_path / "absent.pth")


# ---------------------------------------------------------------------------------------------------------------- writing


def test_safetensors_that_others_read(tmp_path):
    random = np.random.default_rng(0)
    tensors = {
        "float": random.normal(size=(3, 4)).astype(np.float32),
        "transposed": random.normal(size=(3, 4)).astype(np.float32).T,
        "strided": np.arange(10, dtype=np.int64)[::3],
        "byte": np.arange(3, dtype=np.uint8),
        "half": np.ones((2, 1), np.float16),
        "bool": np.array([True, False]),
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 2), np.float32),
    }
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    write_safetensors(path, tensors, {"info": "läuft"})
    assert_same(safetensors.numpy.load_file(path), tensors)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt", "info": "läuft"}
    ours, metadata = read_safetensors(path)
    assert_same(ours, tensors)
    assert metadata["info"] == "läuft"
    assert names_in(path.parent) == ["weights.safetensors"]


def test_vars_are_copied_one_at_a_time(tmp_path):
    """All of a training state at once would be a second one, in the memory of the host."""
    copied = []

    class Var:
        dtype, shape = "float32", (2, 3)

        def copy(self):
            return self

        def numpy(self):
            assert all(copy() is None for copy in copied)
            array = np.full(self.shape, len(copied), np.float32)
            copied.append(weakref.ref(array))
            return array

    write_safetensors(tmp_path / "weights.safetensors", {name: Var() for name in "abc"} | {"array": np.arange(3)})
    read = read_weights(tmp_path / "weights.safetensors")
    assert [read[name][0, 0] for name in "abc"] == [0, 1, 2]
    assert read["array"].tolist() == [0, 1, 2]


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "config.json", {"name": "山水", "channels": [1, 2]})
    assert (tmp_path / "config.json").read_text() == '{\n  "name": "山水",\n  "channels": [\n    1,\n    2\n  ]\n}\n'


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, code, where):
    previous = save_training_state(tmp_path, 1, {"w": np.ones(3)}, {}, keep=1)

    def full(*_, **__):
        raise OSError(code, os.strerror(code))

    class FullFile(io.BytesIO):
        write = full

        def __init__(self, *_):
            super().__init__()

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(files, "open", FullFile, raising=False)
        else:
            patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError) as error:
            save_training_state(tmp_path, 2, {"w": np.zeros(3)}, {}, keep=1)
    assert str(error.value) == (
        f"disk full while writing {tmp_path}/step-00000002.safetensors: free space and run the same command again; "
        f"the last checkpoint, {previous}, is untouched"
    )
    assert names_in(tmp_path) == [previous.name]
    assert_same(read_training_state(previous)[0], {"w": np.ones(3)})


def test_a_place_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/config\.json"):
        write_json(tmp_path / "file" / "config.json", {})

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(UserError, match=r"cannot write .*config\.json \(Read-only file system\)") as error:
        write_json(tmp_path / "config.json", {})
    assert not isinstance(error.value, DiskError)
    assert names_in(tmp_path) == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "config.json", {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "config.json") as file:
        file.write(b"half of the n")
        file.flush()
        raise ZeroDivisionError
    assert '"old"' in (tmp_path / "config.json").read_text()
    assert names_in(tmp_path) == ["config.json"]


SAVING = """
import itertools, os, random, signal, sys, threading
import numpy as np
from utils import checkpoint

folder, kill_at = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if kill_at == "fsync":
    os.fsync = die
if kill_at == "write":
    copies, original = itertools.count(), np.ascontiguousarray
    np.ascontiguousarray = lambda array: die() if next(copies) == 1 else original(array)
if kill_at == "any time":
    threading.Timer(random.uniform(0.05, 0.25), die).start()
for step in itertools.count(2):
    tensors = {name: np.full((500, 1000), step, np.float32) for name in ("model.a", "model.b", "ema.a")}
    checkpoint.save_training_state(folder, step, tensors, {}, keep=2)
"""


@pytest.mark.parametrize("kill_at", ["write", "fsync", "any time", "any time", "any time", "any time"])
def test_kill_9_while_saving_leaves_a_checkpoint_that_loads(tmp_path, kill_at):
    save_training_state(tmp_path, 1, {"model.a": np.ones((500, 1000), np.float32)}, {}, keep=2)
    # Under a shell, because Jittor ends its process when a child of it is killed.
    saving = [sys.executable, "-c", SAVING, tmp_path, kill_at]
    status = subprocess.run(["sh", "-c", '"$@"; echo $?', "sh", *saving], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert int(status.stdout) == 128 + signal.SIGKILL

    latest = latest_training_state(tmp_path)
    tensors, info = read_training_state(latest)
    assert latest.name == f"step-{info['step']:08d}.safetensors"
    assert all((array == info["step"]).all() for array in tensors.values())
    if kill_at != "any time":
        assert info["step"] == 1
        assert len(list(tmp_path.glob(".step-*.tmp"))) == 1
    save_training_state(tmp_path, info["step"] + 5, {"model.a": np.ones(1)}, {}, keep=2)
    assert not list(tmp_path.glob(".*")), "the unfinished file stayed"


# --------------------------------------------------------------------------------------------------------- training states


def test_the_last_ones_are_kept(tmp_path):
    assert latest_training_state(tmp_path / "absent") is None
    for step in (1, 2, 3, 4, 5, 10):
        save_training_state(tmp_path, step, {"model.w": np.full(2, step, np.float32)}, {"val_loss": step, "config": ["tiny"]}, keep=2)
    (tmp_path / "step-notes.txt").write_text("mine")
    assert latest_training_state(tmp_path).name == "step-00000010.safetensors"
    assert names_in(tmp_path) == [f"step-{step:08d}.safetensors" for step in (5, 10)] + ["step-notes.txt"]
    tensors, info = read_training_state(tmp_path / "step-00000005.safetensors")
    assert_same(tensors, {"model.w": np.full(2, 5, np.float32)})
    assert info == {"val_loss": 5, "config": ["tiny"], "step": 5}


def test_what_was_just_saved_is_kept(tmp_path):
    for step in (8, 9, 3):
        save_training_state(tmp_path, step, {"w": np.zeros(1)}, {}, keep=1)
    assert names_in(tmp_path) == ["step-00000003.safetensors", "step-00000009.safetensors"]


@pytest.mark.parametrize("info", [{"examples": 8}, {"step": -1}, {"step": 3}, {"step": "2"}, [2], 2])
def test_a_state_that_does_not_say_its_step_is_damaged(tmp_path, info):
    path = save_training_state(tmp_path, 2, {"w": np.zeros(1)}, {}, keep=2)
    write_safetensors(path, {"w": np.zeros(1)}, {"info": json.dumps(info)})
    with pytest.raises(UserError, match=f"{path} is damaged or incomplete .*: move it away"):
        read_training_state(path)


def test_a_damaged_newest_file_is_named_and_left(tmp_path):
    for step in (1, 2):
        save_training_state(tmp_path, step, {"w": np.zeros(100)}, {}, keep=3)
    newest = latest_training_state(tmp_path)
    os.truncate(newest, 400)
    with pytest.raises(UserError) as error:
        read_training_state(newest)
    assert str(error.value).startswith(f"{newest} is damaged or incomplete (")
    assert str(error.value).endswith("move it away and run the same command again to go on from step-00000001.safetensors")
    assert newest.exists()

    newest.unlink()
    os.truncate(tmp_path / "step-00000001.safetensors", 3)
    with pytest.raises(UserError, match="start from the beginning"):
        read_training_state(tmp_path / "step-00000001.safetensors")


# ---------------------------------------------------------------------------------------------------------------- modules


@pytest.fixture
def module():
    jt.set_global_seed(0)
    return nn.Linear(4, 3)


def test_loaded_weights_train_on_and_share_no_memory(module):
    arrays = {name: np.ones_like(value) for name, value in module_arrays(module).items()}
    with jt.no_grad():  # what is made in here is frozen, unless one takes care
        load_strict(module, arrays, "test.safetensors")
    arrays["weight"][...] = 5.0
    assert (module.weight.numpy() == 1.0).all()
    copies = module_arrays(module)
    copies["weight"][...] = 6.0
    assert (module.weight.numpy() == 1.0).all()

    optimizer = AdamW(module.named_parameters())
    assert optimizer.step([(module(jt.ones((5, 4))) ** 2).mean()], lr=0.1) > 0
    assert (module.weight.numpy() != 1.0).all() and (module.bias.numpy() != 1.0).all()


def test_frozen_stays_frozen_and_types_stay(module):
    module.bias.stop_grad()
    arrays = {"weight": np.ones((4, 3)).T, "bias": np.ones(3, np.int64), "norm.num_batches_tracked": np.array(7)}
    load_strict(module, arrays, "test.safetensors")
    assert module.bias.is_stop_grad() and not module.weight.is_stop_grad()
    assert module.weight.dtype == module.bias.dtype == "float32"


def test_every_key_that_does_not_fit_is_named_and_nothing_is_loaded(module):
    before = module_arrays(module)
    arrays = {"weight": np.zeros((3, 5)), "extra.0.weight": np.zeros(1), "extra.0.bias": np.zeros(1)}
    with pytest.raises(UserError) as error:
        load_strict(module, arrays, "vae/weights.safetensors")
    assert str(error.value) == (
        "vae/weights.safetensors does not fit Linear:\n"
        "  missing (1): bias\n"
        "  unexpected (2): extra.0.weight, extra.0.bias\n"
        "  of another shape (1): weight [3, 5] instead of [3, 4]"
    )
    assert_same(module_arrays(module), before)


def test_safetensors_whose_first_byte_is_that_of_a_pickle(tmp_path):
    """The file begins with the length of its header, of which the lowest byte is 0x80 now and then."""
    first_bytes = set()
    for length in range(1, 129, 4):
        path, name = tmp_path / "weights.safetensors", "w" * length
        write_safetensors(path, {name: np.arange(3, dtype=np.float32)})
        assert np.array_equal(read_weights(path)[name], [0, 1, 2])
        first_bytes.add(path.read_bytes()[0])
    assert 0x80 in first_bytes


def test_a_path_that_is_not_utf_8_may_stand_in_json_and_names_may_be_long(tmp_path):
    """Both come from the user's file system: a name has up to 255 bytes, of any kind."""
    path = tmp_path / ("山" * 80 + ".json")
    write_json(path, {"input_path": os.fsdecode(b"/data/\xff")})
    assert os.fsencode(json.loads(path.read_text("utf-8", errors="surrogateescape"))["input_path"]) == b"/data/\xff"
