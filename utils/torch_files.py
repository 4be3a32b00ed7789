"""Other people's PyTorch files (.pth, .ckpt, .bin), read without PyTorch and without running what is in them.

They are pickles, and unpickling can run any program. The reader here builds tensors and nothing else, and what it builds is bounded by the
size of the file: a small file cannot fill the memory.
"""

import itertools
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from utils.errors import UserError

STORAGE_TYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1",
    "ByteStorage": "|u1", "BoolStorage": "|b1",
}  # fmt: skip
PICKLE_BYTES = 1 << 24  # that a pickle may have: a state dict takes some 200 a tensor, and one byte can make 70 in memory
SHARED = 4  # times the file's size that all its tensors may have together: names may share a storage
EXPANDED = 1 << 26  # bytes on top of that, for small tensors repeated by strides of 0


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 from bfloat16, which is its upper half, given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


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
        strides = [stride * flat.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(flat[start:], self.shape, strides, writeable=False).copy()
        return from_bfloat16(array) if self.storage.type == "bfloat16" else array


class BoundedReader:
    """Reads at most `PICKLE_BYTES` of a file, for one pickle."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path, self.left = file, path, PICKLE_BYTES

    def read(self, size: int) -> bytes:
        self.take(size)  # first: a pickle can ask for a string of exabytes
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self.take(len(line))
        return line

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise UserError(
                f"{self.path} has more than {PICKLE_BYTES >> 20} MB beside its tensors, which is refused: save the state dict alone"
            )


class TensorUnpickler(pickle._Unpickler):
    """Unpickles containers, numbers, strings and tensors; refuses all else that a pickle names, unseen.

    On the unpickler in Python: the one in C, given a wrong byte, can ask for a memo of 64 GB and take the process down.
    """

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(BoundedReader(file, path), encoding="utf-8")
        self.path = path
        self.storages: dict[str, Storage] = {}  # all that the pickle mentioned, by key
        self.copied = 0  # items of containers that were made from other containers

    def load_build(self) -> None:
        """Leaves out the attributes of an object: those of a state dict are version numbers, and others are not wanted."""
        self.stack.pop()

    def load_bytearray8(self) -> None:
        """torch.save writes none, and one takes the memory that it claims before a byte of it is read."""
        raise ValueError("a pickle with a bytearray is not of torch.save")

    dispatch = pickle._Unpickler.dispatch | {pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8}

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        allowed = {
            "collections.OrderedDict": self.ordered_dict,
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
        if not isinstance(key, str) or storage_type not in STORAGE_TYPES.values():
            raise ValueError("a storage without a name or a type")
        storage = Storage(key, storage_type, int(part[0][1]) if part and part[0] else 0)
        self.storages[storage.key] = storage
        return storage

    def ordered_dict(self, items: list = ()) -> OrderedDict:
        """A pickle can name one list a million times: what is copied of it is counted."""
        self.copied += len(items)
        if self.copied > PICKLE_BYTES >> 4:
            raise ValueError("a pickle that copies more than it holds")
        return OrderedDict(items)

    @staticmethod
    def size(sizes: tuple) -> tuple[int, ...]:
        if len(sizes) > 64:
            raise ValueError("a tensor with more axes than there are")
        return tuple(map(int, sizes))

    def tensor(self, storage: Storage, offset: int, shape: tuple, strides: tuple, *_gradient_and_hooks: object) -> Tensor:
        return Tensor(storage, int(offset), self.size(shape), self.size(strides))

    @staticmethod
    def parameter(data: Tensor, *_gradient_and_hooks: object) -> Tensor:
        return data


def tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    """The named tensors of an unpickled file, without a "state_dict" around them. Raises UserError for more than the file can hold."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__} and no state dict: save model.state_dict()")
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path} holds no tensors but {', '.join(map(str, content))}: save the state dict alone")
    size = sum(math.prod(map(abs, tensor.shape)) * tensor.storage.numpy_type.itemsize for tensor in tensors.values())
    if size > SHARED * path.stat().st_size + EXPANDED:
        raise UserError(f"{path} names tensors of {size >> 20} MB in all and is far smaller itself, which is refused: save them as copies")
    return tensors


def check_stored(members: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Raises UserError where reading the members of a zip file could take more memory than the file has bytes."""
    members = list(members)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(f"{path} is compressed, as torch.save leaves no file: load it in PyTorch and save it again")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(f"{path} claims to hold more than it does: download or copy it again")


def read_torch_zip(path: Path) -> dict[str, np.ndarray]:
    """The file of torch.save since PyTorch 1.6: a zip with one pickle, and each storage a member of its own."""
    with zipfile.ZipFile(path) as archive:
        check_stored(archive.infolist(), path)
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
