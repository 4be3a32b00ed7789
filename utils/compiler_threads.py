"""Keeps the threads that Jittor compiles kernels in out of each other's way. They ended about one process in several hundred, by a
segmentation fault in a thread "C1", "C2" and so on, or by an error elsewhere.

Jittor 1.3.11 writes the sources of kernels and compiles them in as many threads as the memory allows, and does so for kernels that it has
compiled before as well. Two things in it are not fit for threads:

- A kernel may turn out to be a matrix product or a convolution; then a node of the graph is made for it, and entered in the list of readers
  of each of its inputs. Two such kernels can read the same variable, as the two gradients of a layer do, and change one list at the same
  time. So sources are written one after the other here, and compiled, which is what takes the time, side by side.
- A thread that finds no kernel left compares its number with a variable of the thread that started it, which may have gone on by then.
  That is rare, but happens in any process. So there are no threads but where kernels are missing, and no more than there are cores.

A third thing is mended here too: a process that ends at once may wait for its threads forever. Jittor tells them to end by a signal that is
lost on one that has not come to wait for it, as on a busy machine those that have just begun.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import jittor as jt

MOST_SECONDS = 10  # that are waited for the threads to have begun
ALL_THERE = 100  # kernels in a row that need no compiling: then the rest will be there too

HEADER = """
#include <mutex>
#include "op_compiler.h"
#include "opt/tuner_manager.h"
#include "utils/cache_compile.h"

namespace jittor {
DECLARE_FLAG(int, use_parallel_op_compiler);  // how many threads; 0: each kernel is made by who needs it
extern jit_op_entry_t (*do_compile_hook)(Op*);  // called, where it is set, for each kernel that is to be made
namespace {
std::mutex writing;
int in_a_row = 0;

jit_op_entry_t write_then_compile(Op* op) {
    std::unique_lock<std::mutex> lock(writing);
    OpCompiler compiler(op);
    for (auto type : op_types) type->post_pass(&compiler);
    string source = compiler.op ? TunerManager(&compiler).tune() : compiler.src;
    op->compile_optimize(source);
    string key = op->get_jit_key(get_jk());
    if (!jit_compiler::file_exist(Op::get_filename_from_jit_key(key, ".so")))
        in_a_row = 0, use_parallel_op_compiler = THREADS;
    else if (++in_a_row == ALL_THERE)
        use_parallel_op_compiler = 0;
    lock.unlock();
    return compiler.compile(key, source);
}
}  // namespace
}  // namespace jittor
"""


def keep_compilers_apart() -> None:
    """From here on, for this process."""
    constants = f"#define THREADS {len(os.sched_getaffinity(0))}\n#define ALL_THERE {ALL_THERE}\n"
    before = threads()
    install = "if (!do_compile_hook) do_compile_hook = write_then_compile; @out(0) = 0;"
    with jt.flag_scope(use_cuda=0):
        jt.code([1], "int32", [], cpu_header=constants + HEADER, cpu_src=install).sync()
    jt.flags.use_parallel_op_compiler = 0
    begun, until = threads() - before, time.monotonic() + MOST_SECONDS
    while any(map(runs, begun)) and time.monotonic() < until:
        time.sleep(0.001)


def threads() -> set[Path]:
    """This process's, as folders of /proc; none where the system has no such."""
    return {*Path("/proc/self/task").glob("*")}


def runs(thread: Path) -> bool:
    """Whether a thread runs, or would where a core is free, and neither waits nor has ended."""
    with suppress(OSError):
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "RD"
    return False
