"""The sources of the operators' CUDA kernels."""

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


def has_tensor_cores() -> bool:
    """Whether all GPUs in use multiply matrices of all three types: compute capability 8.0 and later."""
    return bool(jt.flags.use_cuda) and min(jt.flags.cuda_archs) >= 80
