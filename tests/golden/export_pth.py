"""Writes small files of torch.save, and weights.npz with what they hold, for the tests of the reader.

python tests/golden/export_pth.py        (needs PyTorch)
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent


def tensors() -> "OrderedDict[str, torch.Tensor]":
    """Every type, and views of all kinds on one shared storage."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    state = OrderedDict(
        {
            "float32": base,
            "transposed": base.T,
            "sliced": base[1:3, ::2],
            "expanded": base[2, 3].expand(2, 3),
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
            "float16": torch.randn(3, 2).half(),
            "bfloat16": torch.randn(2, 3, 4).bfloat16(),
            "bfloat16_transposed": torch.randn(2, 5).bfloat16().T,
            "float64": torch.randn(3).double(),
            "int64": torch.tensor([-(2**40), 7]),
            "int32": torch.tensor([-3, 4], dtype=torch.int32),
            "uint8": torch.arange(250, 256, dtype=torch.uint8),
            "int8": torch.tensor([-128, 127], dtype=torch.int8),
            "bool": torch.tensor([True, False, True]),
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
        }
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # as module.state_dict() has it
    return state


def main() -> None:
    state = tensors()
    torch.save(state, HERE / "weights.pth")
    torch.save(state, HERE / "weights-legacy.pth", _use_new_zipfile_serialization=False)
    training = {"epoch": 3, "optimizer": {"state": [torch.ones(5)]}, "state_dict": state}
    torch.save(training, HERE / "training.ckpt")
    torch.save(training, HERE / "training-legacy.ckpt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), HERE / "module.pth")  # a whole module: code, which must be refused
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, HERE / "weights.safetensors")
    arrays = {name: tensor.detach() for name, tensor in state.items()}
    np.savez_compressed(
        HERE / "weights.npz",
        **{name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in arrays.items()},
    )


if __name__ == "__main__":
    main()
