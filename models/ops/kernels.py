"""How the operators' kernels come to Jittor."""

from functools import cache
from pathlib import Path

import jittor as jt

FOLDER = Path(__file__).parent
DEVICE = (FOLDER / "device.cuh").read_text()  # what they share
TYPES = {"float32": "float", "float16": "Half", "bfloat16": "BFloat16"}


@cache
def cuda_header(file: str, dtype: str, **constants: int) -> str:
    """The kernels of models/ops/<file>, with T for the type of the numbers and the constants for what is named."""
    named = "".join(f"const int {name} = {value};\n" for name, value in constants.items())
    return f"{DEVICE}{(FOLDER / file).read_text()}\nnamespace {{\ntypedef {TYPES[dtype]} T;\n{named}}}\n"


def on_cuda() -> bool:
    return bool(jt.flags.use_cuda)


def has_tensor_cores() -> bool:
    """Whether all GPUs in use multiply matrices of all three types: compute capability 8.0 and later."""
    return on_cuda() and min(jt.flags.cuda_archs) >= 80


def code(shapes: list, dtypes: list, inputs: list[jt.Var], cpu: tuple[str, str], cuda: tuple[str, str], data: dict | None = None) -> list:
    """Outputs of these shapes and types, by the source (header, body) for where it will run.

    Jittor could take both, but would compile once for each variant of the other at the same time, into one file.
    """
    side, (header, body) = ("cuda", cuda) if on_cuda() else ("cpu", cpu)
    return jt.code(shapes, dtypes, inputs, **{f"{side}_header": header, f"{side}_src": body}, data=data or {})
