"""The set-up that comes before Jittor, on made-up machines."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils import jittor_setup
from utils.errors import UserError
from utils.jittor_setup import jittor as jt

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prefix(tmp_path):
    """A Python prefix into which the oneDNN wheels have been installed, beside other things."""
    folder = tmp_path / "prefix"
    (folder / "include" / "oneapi" / "dnnl").mkdir(parents=True)
    (folder / "lib").mkdir()
    (folder / "lib" / "libmkldnn.so").write_bytes(b"library")
    (folder / "lib" / "libother.so").write_bytes(b"other")
    for header in ("mkldnn.hpp", "dnnl.h", "other.h", "oneapi/dnnl/dnnl.hpp"):
        (folder / "include" / header).write_text(header)
    return folder


def test_onednn_comes_from_the_wheels(prefix, tmp_path):
    cache = tmp_path / "cache"
    jittor_setup.provide_onednn(cache, prefix)
    home = cache / jittor_setup.ONEDNN
    assert sorted(path.name for path in (home / "include").iterdir()) == ["dnnl.h", "mkldnn.hpp", "oneapi"]
    assert (home / "include" / "oneapi" / "dnnl" / "dnnl.hpp").is_file()
    for name in ("libmkldnn.so", "libdnnl.so.2"):
        assert (home / "lib" / name).read_bytes() == b"library"
    assert [path.name for path in cache.iterdir()] == [jittor_setup.ONEDNN], "something unfinished stayed"


def test_onednn_that_is_there_is_left_alone(prefix, tmp_path):
    library = tmp_path / "cache" / jittor_setup.ONEDNN / "lib" / "libmkldnn.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"downloaded")
    jittor_setup.provide_onednn(tmp_path / "cache", prefix)
    assert library.read_bytes() == b"downloaded"
    assert list(library.parent.parent.iterdir()) == [library.parent]


def test_many_that_start_at_once_do_not_disturb_each_other(prefix, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: jittor_setup.provide_onednn(tmp_path / "cache", prefix), range(8)))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [jittor_setup.ONEDNN]


def test_without_the_wheels_nothing_is_written(tmp_path):
    jittor_setup.provide_onednn(tmp_path / "cache", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_broken_onednn_is_named(prefix, tmp_path):
    (tmp_path / "cache" / jittor_setup.ONEDNN / "lib").mkdir(parents=True)
    with pytest.raises(UserError, match="remove that folder"):
        jittor_setup.provide_onednn(tmp_path / "cache", prefix)


@pytest.mark.skipif(os.environ.get("cache_name") != "shanshui", reason="CUDA, another compiler, or the user's own flags")
@pytest.mark.parametrize("compiled", ["core", "kernels"])
def test_the_precompiled_headers_serve(compiled, tmp_path):
    """With the very flags that Jittor compiles with: a header that does not serve goes unnoticed, but for the time it takes."""
    (tmp_path / "source.cc").write_text('#include "var.h"\n')
    flags = jt.compiler.cc_flags if compiled == "core" else jt.flags.cc_flags
    command = f"g++ {flags} -H -S -o {tmp_path}/source.s {tmp_path}/source.cc"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert [line for line in result.stderr.splitlines() if line.startswith("! ") and line.endswith(f".gch/{compiled}")], result.stderr


def test_the_users_flags_are_left_alone(monkeypatch, tmp_path):
    for name in ("cc_flags", "kernel_flags", "cache_name"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("cc_flags", " -O3")
    before = dict(os.environ)
    jittor_setup.shorten_compiling(tmp_path / "headers")
    assert os.environ == before and not (tmp_path / "headers").exists()


def test_libraries_that_a_power_cut_has_cut_short_are_removed(tmp_path):
    whole = Path(sys.modules["jittor_core"].__file__).read_bytes()
    contents = {"whole": whole, "short": whole[:-1], "half": whole[: len(whole) // 2], "empty": b"", "zeros": bytes(4096), "young": b""}
    folder = tmp_path / "jt1.3.11" / "g++" / "shanshui" / "jit"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}.so").write_bytes(content)
        if name != "young":
            os.utime(folder / f"{name}.so", (1000, 1000))
    jittor_setup.remove_broken_libraries(tmp_path)
    assert {path.stem for path in folder.iterdir()} == {"whole", "young"}


def test_cuda_is_off_where_no_device_answers(monkeypatch, tmp_path):
    """Although `nvcc` is there: Jittor would die for want of a driver."""
    (tmp_path / "nvcc").write_text("")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("nvcc_path", raising=False)
    monkeypatch.setattr(jittor_setup, "cuda_device_count", lambda: 0)
    assert jittor_setup.choose_device(tmp_path).startswith("CPU")
    assert os.environ["nvcc_path"] == ""


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Two devices that answer, a driver for CUDA 12.4, and no nvcc. Returns a function of a release that makes one."""
    monkeypatch.setattr(jittor_setup, "cuda_device_count", lambda: 2)
    monkeypatch.setattr(jittor_setup, "cuda_driver_version", lambda: (12, 4), raising=False)
    monkeypatch.setattr(jittor_setup, "find_nvcc", lambda: None)
    monkeypatch.setattr(jittor_setup, "provide_toolkit", lambda nvcc, cache: nvcc)
    for name in ("nvcc_path", "use_cutt", "use_cutlass", "use_nccl"):
        monkeypatch.setenv(name, "")  # so that the test leaves no trace
        monkeypatch.delenv(name)

    def make(release: str) -> Path:
        (tmp_path / "nvcc").write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n")
        (tmp_path / "nvcc").chmod(0o755)
        return tmp_path / "nvcc"

    return make


@pytest.mark.parametrize("named", [True, False])
def test_cuda_is_on_where_a_device_answers(gpus, monkeypatch, tmp_path, named):
    monkeypatch.setenv("use_cutt", "1")  # the user's word
    nvcc = gpus("12.9")  # runs on any driver of CUDA 12
    if named:
        monkeypatch.setenv("nvcc_path", str(nvcc))
    else:
        monkeypatch.setattr(jittor_setup, "find_nvcc", lambda: nvcc)
    assert jittor_setup.choose_device(tmp_path) == "CUDA (2 devices)"
    assert os.environ["nvcc_path"] == str(nvcc)
    assert (os.environ["use_cutt"], os.environ["use_cutlass"]) == ("1", "0")


@pytest.mark.parametrize("named", [True, False])
def test_a_toolkit_beyond_the_driver_is_named(gpus, monkeypatch, tmp_path, named):
    nvcc = gpus("13.0")
    if named:
        monkeypatch.setenv("nvcc_path", str(nvcc))
    monkeypatch.setattr(jittor_setup, "find_nvcc", lambda: nvcc)
    with pytest.raises(UserError, match=r"supports CUDA 12\.4, and .*/nvcc is of CUDA 13\.0.*: install .* 12\.4, or update the driver\.$"):
        jittor_setup.choose_device(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_a_device_without_nvcc_is_not_passed_over(gpus, monkeypatch, tmp_path, named):
    """A run on the CPU that was meant for the GPU takes days to be noticed."""
    if named:
        monkeypatch.setenv("nvcc_path", str(tmp_path / "nowhere"))
    with pytest.raises(
        UserError, match="nowhere.* is missing" if named else r"nvcc, .* is missing: install the CUDA toolkit .*nvcc_path= before"
    ):
        jittor_setup.choose_device(tmp_path)
    monkeypatch.setenv("nvcc_path", "")
    assert jittor_setup.choose_device(tmp_path).startswith("CPU")


def test_devices_that_are_hidden_are_not_asked_for(tmp_path):
    """CUDA_VISIBLE_DEVICES= asks for the CPU: on a machine with a GPU too no device answers then."""
    script = "from utils import jittor_setup; print(jittor_setup.cuda_device_count())"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "nvcc_path": ""}
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout == "0\n", result.stderr


@pytest.fixture
def second_of_two(monkeypatch, tmp_path):
    """A process that mpirun has started, with nothing set by the user."""
    (tmp_path / "mpicc").write_text("")
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "nccl_include_path", "SHANSHUI_RESTARTED"):
        monkeypatch.setenv(name, "")  # so that the test leaves no trace
        monkeypatch.delenv(name)
    for name, value in {"mpicc_path": tmp_path / "mpicc", "OMPI_COMM_WORLD_LOCAL_RANK": 1, "OMPI_COMM_WORLD_LOCAL_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


@pytest.mark.parametrize(("users", "own"), [(None, "1"), ("4,6", "6"), ("3", ""), ("", "")])
def test_each_process_gets_a_gpu_of_its_own(second_of_two, users, own):
    if users is not None:
        second_of_two.setenv("CUDA_VISIBLE_DEVICES", users)
    jittor_setup.prepare_for_mpi()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    second_of_two.setenv("SHANSHUI_RESTARTED", "1")
    jittor_setup.prepare_for_mpi()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == own, "what was chosen has been chosen from once more"


def test_processes_share_the_cores(second_of_two):
    second_of_two.setattr(os, "cpu_count", lambda: 16)
    second_of_two.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    jittor_setup.prepare_for_mpi()
    assert os.environ["OMP_NUM_THREADS"] == "8"
    second_of_two.setenv("OMP_NUM_THREADS", "3")
    jittor_setup.prepare_for_mpi()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_with_nccl_jittor_chooses_the_gpu(second_of_two):
    second_of_two.setenv("nccl_include_path", "/usr/include")
    jittor_setup.prepare_for_mpi()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_missing_mpicc_is_named(second_of_two, tmp_path):
    second_of_two.setenv("mpicc_path", str(tmp_path / "nowhere"))
    second_of_two.setenv("PATH", str(tmp_path / "nothing"))
    second_of_two.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UserError, match="libopenmpi-dev"):
        jittor_setup.prepare_for_mpi()


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.delenv("cc_path", raising=False)
        with pytest.raises(UserError, match=r"apt-get install g\+\+"):
            jittor_setup.check_toolchain()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match=r"Python\.h.*-dev"):
        jittor_setup.check_toolchain()


def test_a_missing_compiler_ends_the_scripts_with_a_sentence(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "cc_path"} | {"PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, ROOT / "MainTest.py"], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "g++" in result.stderr and "Traceback" not in result.stderr


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_compilers():
    """A compiler that died by it would hold the lock they share, and this process would never end."""
    script = (
        "import os, signal, time\n"
        "from utils import jittor_setup\n"
        "import jittor_utils\n"
        "jittor_utils.run_cmds([], '', '')  # starts them, with nothing to compile\n"
        "time.sleep(1)\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "os.killpg(0, signal.SIGINT)\n"
        "time.sleep(1)\n"
        "print([worker.is_alive() for worker in jittor_utils.p._pool])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100, start_new_session=True)
    assert result.returncode == 0 and "True" in result.stdout and "False" not in result.stdout, result.stderr


def test_a_signal_to_all_processes_lets_this_one_end():
    """As of a batch system, or pkill: the compilers die, and one of them holds the lock they share."""
    script = (
        "import os, signal, time\n"
        "from utils import jittor_setup\n"
        "import jittor_utils\n"
        "jittor_utils.run_cmds([], '', '')\n"
        "time.sleep(1)\n"
        "for worker in jittor_utils.p._pool: os.kill(worker.pid, signal.SIGTERM)\n"
        "time.sleep(0.5)\n"
        "print('end')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout.splitlines()[-1], result.stderr) == (0, "end", "")


SLOW_JITTOR = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:  # as Jittor's own set-up does here and there
        pass
"""


def test_ctrl_c_while_jittor_is_compiled_ends_with_a_sentence(tmp_path):
    (tmp_path / "jittor.py").write_text(SLOW_JITTOR)
    (tmp_path / "jittor_utils.py").write_text("pool_initializer = pool_cleanup = None\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "cache_name": "default"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from utils import jittor_setup"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "importing\n", process.communicate()[1]
    os.killpg(process.pid, signal.SIGINT)
    try:
        assert process.communicate(timeout=20) == ("", jittor_setup.STOPPED + "\n")
    finally:
        process.kill()
    assert process.returncode == 130


def test_ctrl_c_before_that_ends_with_the_same_sentence(tmp_path):
    """While g++ reads the headers, for instance."""
    (tmp_path / "g++").write_text("#!/bin/sh\necho begun >&2\nexec sleep 60\n")
    (tmp_path / "g++").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("cc_path", "cc_flags", "kernel_flags", "cache_name")}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", "from utils import jittor_setup"],
        cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while not any("sleep" in path.read_text() for path in children_of(process.pid)):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[1] == jittor_setup.STOPPED + "\n"
    assert process.returncode == 130


def children_of(pid: int) -> list[Path]:
    """The command lines of a process's children."""
    return [Path("/proc", child, "cmdline") for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
