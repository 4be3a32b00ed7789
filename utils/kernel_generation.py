"""Has Jittor write the sources of its kernels one after the other, and compile them, which is what takes the time, side by side.

Jittor 1.3.11 does both in as many threads as the memory allows, and the first of the two is not fit for that. While the source of a
kernel is written that turns out to be a matrix product or a convolution, a node of the graph is made for it, and entered in the list of
readers of each of its inputs. Two such kernels that read the same variable, as the two gradients of a layer do, change one list at the
same time. That ended about one process in several hundred by a segmentation fault in a thread "C1", "C2" and so on, or by an error
elsewhere (tests/utils/test_kernel_generation.py has six kernels that read one variable: 8 of 200 processes died of it, now 0 of 400).
"""

import jittor as jt

HEADER = """
#include <mutex>
#include "op_compiler.h"
#include "opt/tuner_manager.h"

namespace jittor {
extern jit_op_entry_t (*do_compile_hook)(Op*);  // called, where it is set, for each kernel that is to be made
namespace {
std::mutex writing;

jit_op_entry_t write_then_compile(Op* op) {
    std::unique_lock<std::mutex> lock(writing);
    OpCompiler compiler(op);
    for (auto type : op_types) type->post_pass(&compiler);
    string source = compiler.op ? TunerManager(&compiler).tune() : compiler.src;
    op->compile_optimize(source);
    string key = op->get_jit_key(get_jk());
    lock.unlock();
    return compiler.compile(key, source);
}
}  // namespace
}  // namespace jittor
"""


def write_kernels_one_by_one() -> None:
    """From here on, for this process."""
    with jt.flag_scope(use_cuda=0):
        jt.code([1], "int32", [], cpu_header=HEADER, cpu_src="do_compile_hook = write_then_compile; @out(0) = 0;").sync()
