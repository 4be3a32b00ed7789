"""Weights and training states on disk.

What we write is safetensors and JSON, each file whole or not at all. What we read is that, and other people's PyTorch files
(utils/torch_files.py).
"""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from utils.errors import DiskError, UserError
from utils.files import atomic_write, remove_leftovers
from utils.torch_files import from_bfloat16, read_torch_legacy, read_torch_zip

if TYPE_CHECKING:
    import jittor as jt  # files are read without it

# -------------------------------------------------------------------------------------------------------------- writing


def write_json(path: str | Path, content: object) -> None:
    """Writes `content` as readable JSON; see `atomic_write` for errors."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogateescape"))  # of a path, any bytes


SAFETENSORS_TYPES = {
    np.dtype(numpy_type): name
    for numpy_type, name in {
        "<f8": "F64", "<f4": "F32", "<f2": "F16", "|b1": "BOOL",
        "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8",
        "<u8": "U64", "<u4": "U32", "<u2": "U16", "|u1": "U8",
    }.items()
}  # fmt: skip


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


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays in their stored type, but bfloat16 as float32, and the metadata."""
    with safe_open(path, "np") as file:  # checks all of the header, and that the data it describes are there
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (no dictionary: it is not iterable)
        for name, stored_type in types.items():
            if stored_type not in (*SAFETENSORS_TYPES.values(), "BF16"):
                raise UserError(f"{path}: {name} is stored as {stored_type}, which is not read: convert it to F32")
        arrays = {name: file.get_tensor(name) for name, stored_type in types.items() if stored_type != "BF16"}
        metadata = file.metadata() or {}
    if len(arrays) < len(types):
        arrays |= read_bfloat16(path)
    return arrays, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors. Raises UserError."""
    with reporting_damage(path), safe_open(path, "np") as file:
        return file.metadata() or {}


def read_bfloat16(path: Path) -> dict[str, np.ndarray]:
    """The bfloat16 arrays, as float32, of a file that `safe_open` has accepted: it cannot give them itself, for NumPy has no such type."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    arrays = {}
    for name, entry in header.items():
        if entry.get("dtype") == "BF16":
            begin, end = entry["data_offsets"]
            bits = np.fromfile(path, "<u2", count=(end - begin) // 2, offset=8 + length + begin)
            arrays[name] = from_bfloat16(bits.reshape(entry["shape"]))
    return arrays


# -------------------------------------------------------------------------------------------------------------- modules


def as_array(tensor: "np.ndarray | jt.Var") -> np.ndarray:
    """A Var's values, copied; an array as it is."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.copy().numpy()  # numpy() moves what it is asked of to the host's memory


def module_arrays(module) -> dict[str, np.ndarray]:
    """Copies of a Jittor module's parameters and buffers by their full names."""
    return {name: as_array(weight) for name, weight in module.state_dict().items()}


def load_strict(module, arrays: Mapping[str, np.ndarray], source: str | Path) -> None:
    """Puts `arrays` into a Jittor module, all or none of them; see `load_vars`.

    PyTorch's batch counters (num_batches_tracked) are passed over: Jittor's BatchNorm has none.
    """
    arrays = {name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")}
    load_vars(module.state_dict(), arrays, source, type(module).__name__)


def load_vars(weights: "Mapping[str, jt.Var]", arrays: Mapping[str, np.ndarray], source: str | Path, target: str) -> None:
    """Puts `arrays` into the Vars of the same names, all or none of them. What was trainable stays so.

    Raises UserError naming every missing, unexpected and mis-shaped array. `source` is what it calls them, a path as a rule, and `target`
    what the Vars belong to.
    """
    import jittor as jt

    check_fit({name: weight.shape for name, weight in weights.items()}, arrays, source, target)
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
    """Writes `folder`/step-<step>.safetensors and removes all but that and the last `keep` (1 or more); returns its path.

    `info` (anything JSON can hold; "step" is added) goes into the file's metadata. Raises DiskError or UserError, see `atomic_write`.
    """
    path = Path(folder) / f"step-{step:08d}.safetensors"
    remove_leftovers(path.parent, "step-*.safetensors")
    try:
        write_safetensors(path, tensors, {"info": json.dumps({**info, "step": step})})
    except DiskError as error:
        previous = latest_training_state(folder)
        untouched = f"; the last checkpoint, {previous}, is untouched" if previous else ""
        raise DiskError(f"{error}{untouched}") from error
    for state in training_states(folder)[:-keep]:
        if state != path:
            state.unlink(missing_ok=True)
    return path


def read_training_state(path: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors and the `info` of a training state. Raises UserError where it is damaged, and leaves it in place."""
    path = Path(path)
    states = training_states(path.parent)
    earlier = states[: states.index(path)] if path in states else []
    onward = f"go on from {earlier[-1].name}" if earlier else "start from the beginning"
    with reporting_damage(path, f"move it away and run the same command again to {onward}"):
        arrays, metadata = read_safetensors(path)
        info = json.loads(metadata["info"])
        if path in states and info["step"] != int(path.stem.removeprefix("step-")):
            raise ValueError(f"it says that it is of step {info['step']}")
        return arrays, info
