"""Kernels whose sources must not be written at the same time.

Without utils/compiler_threads.py the six kernels of the first test ended 8 of 200 processes, and with it none of 400. So that test alone
says little, and the others look at what keeps the threads apart.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import jittor as jt
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIZE = 16
AXES = {0, 1, 2}
PRODUCTS = [((0, 1), (1, 2), 1), ((0, 1), (0, 2), 0), ((0, 2), (1, 2), 2), ((1, 2), (0, 1), 1), ((0, 2), (0, 1), 0), ((1, 2), (0, 2), 2)]


def test_kernels_that_read_one_variable_are_made_at_the_same_time():
    """Six products of two matrices, told apart by the axes that each lies along and the one that is summed over."""
    rng = np.random.default_rng(1)
    one, other = (rng.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
    a, b = jt.array(one), jt.array(other)
    jt.sync([a, b])
    along = lambda matrix, axes: matrix.broadcast([SIZE] * 3, list(AXES - set(axes)))  # noqa: E731
    products = [(along(a, first) * along(b, second)).sum(summed) for first, second, summed in PRODUCTS]
    jt.sync(products)
    for product, (first, second, summed) in zip(products, PRODUCTS, strict=True):
        rest = sorted(AXES - {summed})
        np.testing.assert_allclose(product.numpy(), np.einsum(one, first, other, second, rest), rtol=1e-4, atol=1e-4)


def test_what_writes_them_is_ours():
    """Jittor asks this pointer who makes a kernel, and makes it itself where it is null."""
    header = "namespace jittor { extern jit_op_entry_t (*do_compile_hook)(Op*); }"
    with jt.flag_scope(use_cuda=0):
        assert jt.code([1], "int32", [], cpu_header=header, cpu_src="@out(0) = do_compile_hook != nullptr;").item() == 1


def test_there_are_threads_only_where_kernels_are_missing():
    number = time.time_ns() % 1_000_003  # no such kernel has been compiled
    jt.flags.use_parallel_op_compiler = 0
    assert jt.code([1], "int32", [jt.zeros(1)], cpu_src=f"@out(0) = {number};").item() == number
    assert jt.flags.use_parallel_op_compiler == len(os.sched_getaffinity(0))
    script = "from utils import jittor_setup; import jittor as jt; (jt.ones(3) * 2).sync(); print(jt.flags.use_parallel_op_compiler)"
    assert [subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout for _ in range(2)][1] == "0\n"
