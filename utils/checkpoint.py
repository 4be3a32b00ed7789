"""Weights and training states on disk.

What we write is safetensors and JSON, each file whole or not at all. What we read is that, and other people's PyTorch
files: those are pickles, which can run any program when they are unpickled, so the reader here builds tensors and
nothing else.
"""

import itertools
import json
import math
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from utils.errors import DiskError, UserError
from utils.files import atomic_write, remove_leftovers

if TYPE_CHECKING:
    import jittor as jt  # files are read without it

# -------------------------------------------------------------------------------------------------------------- writing


def write_json(path: str | Path, content: object) -> None:
    """Writes `content` as readable JSON; see `atomic_write` for errors."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


NUMPY_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
SAFETENSORS_TYPES = {np.dtype(numpy_type): name for name, numpy_type in NUMPY_TYPES.items() if name != "BF16"}


def write_safetensors(path: str | Path, tensors: Mapping[str, "np.ndarray | jt.Var"], metadata: dict[str, str] | None = None) -> None:
    """Writes arrays or Vars by name in the safetensors format, a Var's values copied when its turn comes; see `atomic_write` for errors.

    The metadata always say that the layout is PyTorch's, "format": "pt", without which transformers refuses the file.
    """
    # Wide types first, so that each tensor begins at a multiple of its item size.
    types = {name: np.dtype(str(tensor.dtype)) for name, tensor in tensors.items()}
    names = sorted(types, key=lambda name: (-types[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in names:
        shape = list(tensors[name].shape)
        begin, end = end, end + math.prod(shape) * types[name].itemsize
        header[name] = {"dtype": SAFETENSORS_TYPES[types[name]], "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    remove_leftovers(Path(path).parent, Path(path).name)
    with atomic_write(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in names:
            file.write(np.ascontiguousarray(as_array(tensors[name])).data)


# -------------------------------------------------------------------------------------------------------------- reading


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors or PyTorch file, or from a folder in diffusers' layout.

    Nothing in the file is executed. Every floating-point type comes back as float32, integers and booleans as they are.
    {"state_dict": {...}} is unwrapped, and what is no tensor beside the tensors (a step count, say) is left out. Raises
    UserError.
    """
    path = Path(path)
    if path.is_dir():
        path = weights_in(path)
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise UserError(f"cannot read weights from {path}: {error.strerror}") from error
    with reporting_damage(path):
        if head.startswith(b"PK\x03\x04"):
            arrays = read_torch_zip(path)
        elif head.endswith(b"{"):  # asked first: the length before it may begin with any byte
            arrays, _ = read_safetensors(path)
        elif head.startswith(b"\x80"):
            arrays = read_torch_legacy(path)
        else:
            raise UserError(
                f"{path} is neither a safetensors nor a PyTorch file; if it was downloaded, it may be an error page or a Git LFS pointer"
            )
        return {name: array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def weights_in(folder: Path) -> Path:
    """The weights file of a folder in diffusers' or transformers' layout: safetensors and full precision come first."""
    endings = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
    stems = ("diffusion_pytorch_model", "model", "pytorch_model")
    for ending, stem in itertools.product(endings, stems):
        if (folder / (stem + ending)).is_file():
            return folder / (stem + ending)
    raise UserError(f"{folder} holds no weights: diffusion_pytorch_model.safetensors (or .bin) is expected in it")


@contextmanager
def reporting_damage(path: Path, advice: str = "download or copy it again") -> Iterator[None]:
    """Turns whatever a damaged file provokes in its reader into one UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # any byte can be wrong, so any exception can come
        detail = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or incomplete ({detail}): {advice}") from error


def read_safetensors_header(file: BinaryIO) -> dict:
    """Reads the header and leaves `file` at the first byte of data."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError("the file ends within its header")
    header = json.loads(file.read(length))
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size < 8 + length + end:
        raise ValueError(f"{8 + length + end - size} bytes are missing at its end")
    return header


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays in their stored type, but bfloat16 as float32, and the metadata."""
    with open(path, "rb") as file:
        header = read_safetensors_header(file)
        start = file.tell()
        metadata = header.pop("__metadata__", {})
        arrays = {}
        for name, entry in header.items():
            if entry["dtype"] not in NUMPY_TYPES:
                raise UserError(f"{path}: {name} is stored as {entry['dtype']}, which is not read: convert it to F32")
            begin, end = entry["data_offsets"]
            stored_type = np.dtype(NUMPY_TYPES[entry["dtype"]])
            if math.prod(entry["shape"]) * stored_type.itemsize != end - begin:
                raise ValueError(f"{name} of shape {entry['shape']} cannot have {end - begin} bytes")
            array = np.empty(entry["shape"], stored_type)
            file.seek(start + begin)
            file.readinto(array.reshape(-1).view(np.uint8))
            arrays[name] = from_bfloat16(array) if entry["dtype"] == "BF16" else array
    return arrays, metadata


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16, given as uint16, is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# ------------------------------------------------------------------------------------------ PyTorch's files, unexecuted

STORAGE_TYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1",
    "ByteStorage": "|u1", "BoolStorage": "|b1",
}  # fmt: skip


class Storage(NamedTuple):
    """A flat piece of memory in the file that tensors look into."""

    key: str
    type: str  # a value of STORAGE_TYPES
    offset: int  # in elements; old files cut storages out of others

    @property
    def numpy_type(self) -> np.dtype:
        return np.dtype("<u2" if self.type == "bfloat16" else self.type)


class Tensor(NamedTuple):
    """A strided view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, stored: bytes) -> np.ndarray:
        """The tensor as an array of its own, given the bytes of its storage."""
        flat = np.frombuffer(stored, self.storage.numpy_type)
        start = self.storage.offset + self.offset
        end = start + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True)) + 1
        if min((start, *self.shape, *self.strides)) < 0 or (0 not in self.shape and end > flat.size):
            raise ValueError(f"a tensor of shape {self.shape} reaches outside of its storage")
        if math.prod(self.shape) > max(flat.size, 1 << 24):  # repetition, by strides of 0, of more than a small buffer
            raise ValueError(f"a tensor of shape {self.shape} has {flat.size} numbers")
        strides = [stride * flat.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(flat[start:], self.shape, strides, writeable=False).copy()
        return from_bfloat16(array) if self.storage.type == "bfloat16" else array


class TensorUnpickler(pickle._Unpickler):
    """Unpickles containers, numbers, strings and tensors; refuses all else that a pickle names, unseen.

    On the unpickler in Python: the one in C, given a wrong byte, can ask for a memo of 64 GB and take the process down.
    """

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.storages: dict[str, Storage] = {}  # all that the pickle mentioned, by key

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        allowed = {
            "collections.OrderedDict": OrderedDict,
            "torch.Size": self.size,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
        }
        if f"{module}.{name}" in allowed:
            return allowed[f"{module}.{name}"]
        raise UserError(
            f"{self.path} contains {module}.{name}: not a tensor but code to run, which is refused. If you trust the "
            "file, load it in PyTorch and save its tensors alone: torch.save(state_dict, path)"
        )

    def persistent_load(self, reference: tuple) -> Storage:
        # ("storage", type, key, device, size), and in old files a sixth: None or (key, offset, size) of the part meant
        _, storage_type, key, _, _, *part = reference
        storage = Storage(str(key), str(storage_type), int(part[0][1]) if part and part[0] else 0)
        self.storages[storage.key] = storage
        return storage

    @staticmethod
    def size(sizes: tuple) -> tuple:
        return tuple(sizes)

    @staticmethod
    def tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_gradient_and_hooks: object) -> Tensor:
        return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))

    @staticmethod
    def parameter(data: Tensor, *_gradient_and_hooks: object) -> Tensor:
        return data


def tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The named tensors of an unpickled file, without a "state_dict" around them."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__} and no state dict: save model.state_dict()")
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors but {', '.join(map(str, content))}: save the state dict alone")
    return tensors


def read_torch_zip(path: Path) -> dict[str, np.ndarray]:
    """The file of torch.save since PyTorch 1.6: a zip with one pickle, and each storage a member of its own."""
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if pickled is None:
            raise ValueError("a zip file, but not of torch.save")
        root = pickled.removesuffix("data.pkl")
        with archive.open(pickled) as file:
            tensors = tensors_of(TensorUnpickler(file, path).load(), path)
        arrays = {}
        by_storage = sorted(tensors.items(), key=lambda item: item[1].storage.key)
        for key, sharing in itertools.groupby(by_storage, key=lambda item: item[1].storage.key):
            stored = archive.read(f"{root}data/{key}")
            arrays |= {name: tensor.array(stored) for name, tensor in sharing}
        return {name: arrays[name] for name in tensors}  # in the file's order


def read_torch_legacy(path: Path) -> dict[str, np.ndarray]:
    """The file of torch.save before PyTorch 1.6: five pickles, then the storages, each behind its element count."""
    with open(path, "rb") as file:
        if TensorUnpickler(file, path).load() != 0x1950A86A20F9469CFC6C:
            raise UserError(f"{path} is a pickle, but not of PyTorch: save the weights by torch.save or as safetensors")
        _version, _system, unpickler, last = (TensorUnpickler(file, path) for _ in range(4))
        _version.load(), _system.load()
        tensors = tensors_of(unpickler.load(), path)
        stored = {}
        for key in map(str, last.load()):
            start = file.tell() + 8
            length = int.from_bytes(file.read(8), "little") * unpickler.storages[key].numpy_type.itemsize
            if start + length > os.fstat(file.fileno()).st_size:
                raise ValueError("the file ends within its tensors")
            stored[key] = file.read(length)
        return {name: tensor.array(stored[tensor.storage.key]) for name, tensor in tensors.items()}


# -------------------------------------------------------------------------------------------------------------- modules


def as_array(tensor: "np.ndarray | jt.Var") -> np.ndarray:
    """A Var's values, copied; an array as it is."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.copy().numpy()  # numpy() moves what it is asked of to the host's memory


def module_arrays(module) -> dict[str, np.ndarray]:
    """Copies of a Jittor module's parameters and buffers by their full names."""
    return {name: as_array(weight) for name, weight in module.state_dict().items()}


def load_strict(module, arrays: Mapping[str, np.ndarray], source: str | Path) -> None:
    """Puts `arrays` into a Jittor module, all or none of them. Parameters that were trainable stay so.

    Raises UserError naming every missing, unexpected and mis-shaped array; `source` is what it calls them, a path as a
    rule. PyTorch's batch counters (num_batches_tracked) are passed over: Jittor's BatchNorm has none.
    """
    import jittor as jt

    arrays = {name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")}
    weights = module.state_dict()
    check_fit({name: weight.shape for name, weight in weights.items()}, arrays, source, type(module).__name__)
    for name, weight in weights.items():
        trainable = not weight.is_stop_grad()
        weight.update(jt.array(arrays[name]).cast(weight.dtype))
        if trainable and weight.is_stop_grad():  # a Var made within jt.no_grad() is frozen for good
            weight.start_grad()
        weight.sync()


def load_frozen(module, arrays: Mapping[str, np.ndarray], source: str | Path) -> None:
    """`load_strict`, after which no parameter takes a gradient: for a network that is used and not trained."""
    load_strict(module, arrays, source)
    for parameter in module.parameters():
        parameter.stop_grad()


def check_fit(expected: Mapping[str, tuple], arrays: Mapping[str, np.ndarray], source: str | Path, target: str) -> None:
    """Raises one UserError naming every array that is missing, unexpected or not of its `expected` shape."""

    def mismatch(name: str) -> bool:
        return (tuple(arrays[name].shape) or (1,)) != (tuple(expected[name]) or (1,))  # Jittor knows no scalars

    offenders = {
        "missing": [name for name in expected if name not in arrays],
        "unexpected": [name for name in arrays if name not in expected],
        "of another shape": [
            f"{name} {list(arrays[name].shape)} instead of {list(expected[name])}" for name in expected if name in arrays and mismatch(name)
        ],
    }
    report = "".join(f"\n  {kind} ({len(names)}): {', '.join(names)}" for kind, names in offenders.items() if names)
    if report:
        raise UserError(f"{source} does not fit {target}:{report}")


# ------------------------------------------------------------------------------------------------------------- training


def training_states(folder: str | Path) -> list[Path]:
    """The training states in `folder`, oldest step first."""
    steps = {path: re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in Path(folder).glob("step-*")}
    return sorted((path for path, step in steps.items() if step), key=lambda path: int(steps[path][1]))


def latest_training_state(folder: str | Path) -> Path | None:
    """The training state of the highest step in `folder`, or None where there is none."""
    return next(reversed(training_states(folder)), None)


def save_training_state(folder: str | Path, step: int, tensors: Mapping[str, "np.ndarray | jt.Var"], info: dict, keep: int) -> Path:
    """Writes `folder`/step-<step>.safetensors and then removes older ones; returns its path.

    `info` (anything JSON can hold; "step" is added) goes into the file's metadata. The last `keep` files (1 or more) stay,
    and the one with the lowest info["val_loss"] where that is given. A file that cannot be read is left where it is. Raises
    DiskError or UserError, see `atomic_write`.
    """
    path = Path(folder) / f"step-{step:08d}.safetensors"
    remove_leftovers(path.parent, "step-*.safetensors")
    try:
        write_safetensors(path, tensors, {"info": json.dumps({**info, "step": step})})
    except DiskError as error:
        previous = latest_training_state(folder)
        untouched = f"; the last checkpoint, {previous}, is untouched" if previous else ""
        raise DiskError(f"{error}{untouched}") from error
    infos = {}
    for state in training_states(folder):
        with suppress(UserError):
            infos[state] = read_info(state)
    losses = {state: info["val_loss"] for state, info in infos.items() if info.get("val_loss") is not None}
    losses = {state: loss for state, loss in losses.items() if math.isfinite(loss)}
    kept = {*list(infos)[-keep:], path, min(losses, key=losses.get, default=path)}
    for state in infos.keys() - kept:
        state.unlink(missing_ok=True)
    return path


def read_info(path: Path) -> dict:
    """The `info` of a training state, without its tensors. Raises UserError."""
    with reporting_damage(path), open(path, "rb") as file:
        return json.loads(read_safetensors_header(file)["__metadata__"]["info"])


def read_training_state(path: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors and the `info` of a training state. Raises UserError where it is damaged, and leaves it in place."""
    path = Path(path)
    states = training_states(path.parent)
    earlier = states[: states.index(path)] if path in states else []
    onward = f"go on from {earlier[-1].name}" if earlier else "start from the beginning"
    with reporting_damage(path, f"move it away and run the same command again to {onward}"):
        arrays, metadata = read_safetensors(path)
        return arrays, json.loads(metadata["info"])
