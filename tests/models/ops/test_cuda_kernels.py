"""The CUDA kernels against the plain-Jittor references: on the GPU, or where there is none on the CPU, by cuda_on_cpu.h."""

import subprocess
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.ops.attention import FusedAttention, attention_reference, kernels
from models.ops.class_conv import FusedClassConv, class_conv_reference
from models.ops.depthwise_conv import FusedDepthwiseConv, depthwise_conv_reference
from models.ops.group_norm import FusedGroupNorm, group_norm_reference
from models.ops.kernels import DEVICE, cuda_header
from models.ops.reassembly import FusedReassembly, reassemble_reference
from utils.cuda_toolkit import find_nvcc

ON_CPU = Path(__file__).with_name("cuda_on_cpu.h").read_text()
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.5e-2}  # relative to the largest value


@pytest.fixture(autouse=True)
def cuda_sources(monkeypatch):
    if jt.has_cuda:
        return
    code = jt.code

    def on_cpu(shapes, dtypes, inputs, cuda_header, cuda_src, data):
        assert DEVICE in cuda_header
        return code(shapes, dtypes, inputs, cpu_header=cuda_header.replace(DEVICE, ON_CPU), cpu_src=cuda_src, data=data)

    monkeypatch.setattr(jt, "code", on_cpu)
    monkeypatch.setattr("models.ops.kernels.on_cuda", lambda: True)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare(compute, reference, arrays, dtype, cast):
    """Outputs and gradients of the two, on the same rounded numbers; the first `cast` inputs are of `dtype`."""
    inputs = [jt.array(array).cast(dtype if i < cast else "float32") for i, array in enumerate(arrays)]
    exact = [x.float32() for x in inputs]
    y, expected = compute(*inputs), reference(*exact)
    assert y.dtype == dtype
    dy = jt.array(drawn(*y.shape, seed=1)).cast(dtype).float32()
    found = [y, *jt.grad((y * dy).sum(), inputs)]  # a product with float32, so that the derivative comes as float32
    for i, (a, b) in enumerate(zip(found, [expected, *jt.grad((expected * dy).sum(), exact)], strict=True)):
        a, b = a.float32().numpy(), b.numpy()
        assert np.abs(a - b).max() <= TOLERANCES[dtype] * np.abs(b).max(), f"gradient {i}" if i else "output"


@pytest.mark.parametrize(
    ("dtype", "head_size", "queries", "keys"),
    [("float32", 17, 33, 130), ("float32", 160, 40, 33), ("float16", 40, 70, 130), ("bfloat16", 17, 65, 9), ("bfloat16", 160, 33, 65)],
)
def test_attention(dtype, head_size, queries, keys):
    q, k, v = drawn(2, queries, head_size), drawn(2, keys, head_size, seed=2), drawn(2, keys, head_size, seed=3)
    compare(FusedAttention.apply, attention_reference, [3 * q, k, v], dtype, cast=3)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 6, 50), 3), ((1, 4, 5000), 2), ((3, 8, 1), 2), ((70, 40, 1), 1)],  # one of many positions, one as in layer norm
)
def test_group_norm(dtype, shape, groups):
    x, weight, bias = drawn(*shape) + 3, drawn(shape[1], seed=2), drawn(shape[1], seed=3)
    for silu in (False, True):

        def with_these(norm, silu=silu):
            return lambda x, weight, bias: norm(x, groups, weight, bias, 1e-5, silu)

        compare(with_these(FusedGroupNorm.apply), with_these(group_norm_reference), [x, weight, bias], dtype, cast=1)


def test_group_norm_of_a_large_mean():
    """float32 holds 10,000 ± 1 to three digits: what is left of them must not be lost."""
    x = drawn(1, 4, 3000) + 10_000
    exact = (x.astype(np.float64).reshape(2, -1) - x.astype(np.float64).reshape(2, -1).mean(axis=1, keepdims=True)).reshape(x.shape)
    exact /= np.sqrt((exact.reshape(2, -1) ** 2).mean(axis=1) + 1e-5).repeat(2)[None, :, None]
    y = FusedGroupNorm.apply(jt.array(x), 2, jt.ones(4), jt.zeros(4), 1e-5, False)
    np.testing.assert_allclose(y.numpy(), exact, atol=2e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, (1, 1)), (3, 2, (0, 1)), (5, 1, (2, 2)), (5, 2, (1, 2)), (5, 2, (2, 2))])
def test_depthwise_conv(size, stride, padding):
    x, taps, bias = drawn(2, 5, 8, 40), drawn(size * size, 40, seed=2), drawn(40, seed=3)

    def reference(x, taps, bias):
        return depthwise_conv_reference(x, taps, bias, stride, padding)

    compare(FusedDepthwiseConv(stride, padding), reference, [x, taps, bias], "float32", cast=3)


def test_reassembly():
    x, kernels = drawn(2, 3, 4, 5), drawn(2, 25, 8, 10, seed=2)
    compare(FusedReassembly.apply, reassemble_reference, [x, kernels], "float32", cast=2)


def test_class_conv():
    mask = jt.array(np.random.default_rng(0).integers(0, 6, (2, 9, 12), np.uint8))  # of which 5 is no class
    x, weights = drawn(2, 9, 12, 8), drawn(5, 7, 7, 3, 8, seed=2)

    def reference(x, weights):
        return class_conv_reference(x.permute(0, 3, 1, 2), mask, weights.permute(0, 3, 4, 1, 2))

    compare(lambda x, weights: FusedClassConv.apply(x, mask, weights), reference, [x, weights], "float32", cast=2)


SOURCES = {
    "attention_float32": (
        kernels("float32", 160),
        ("attention_forward<T, D, WARPS, COLUMNS>", "attention_backward_kv<T, D, WARPS, COLUMNS>"),
    ),
    "attention_bfloat16": (
        kernels("bfloat16", 40),
        ("attention_forward<T, D, WARPS, COLUMNS>", "attention_backward_q<T, D, WARPS, COLUMNS>"),
    ),
    "group_norm": (cuda_header("group_norm.cuh", "float16"), ("group_norm_forward<T, true>", "group_norm_backward<T, true>", "sum_slices")),
    "depthwise_conv": (
        cuda_header("depthwise_conv.cuh", "float32", SIZE=5),
        ("depthwise_conv<false>", "depthwise_conv<true>", "depthwise_conv_sums<SIZE>", "sum_slices"),
    ),
    "reassembly": (cuda_header("reassembly.cuh", "float32"), ("reassemble", "reassemble_to_features", "reassemble_to_kernels")),
    "class_conv": (
        cuda_header("class_conv.cuh", "float32", SIZE=7, OUTPUTS=3, CHANNELS=64),
        tuple(f"class_conv{name}<SIZE, OUTPUTS, CHANNELS>" for name in ("", "_to_features", "_to_weights")),
    ),
}


@pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc")
@pytest.mark.parametrize("name", SOURCES)
def test_nvcc_compiles_them(name, tmp_path):
    header, entries = SOURCES[name]
    (tmp_path / "source.cu").write_text(header + "\n".join(f"void* entry{i} = (void*){entry};" for i, entry in enumerate(entries)))
    command = [find_nvcc(), "-std=c++17", "-arch=sm_80", "--use_fast_math", "-c", tmp_path / "source.cu", "-o", tmp_path / "source.o"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
