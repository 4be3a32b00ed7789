"""The merged CUDA toolkit, made of files that only look like one."""

import os
import subprocess
from pathlib import Path

import pytest

from utils import cuda_toolkit
from utils.cuda_toolkit import find_nvcc, provide_toolkit
from utils.errors import UserError

NVCC = """\
#!/bin/sh
case $1 in
--dryrun) echo '#$ _HERE_={here}' >&2 ;;
--version) echo 'Cuda compilation tools, release {release}, V{release}.88' ;;
--session) cut -d ' ' -f 6 /proc/$$/stat ;;
*) echo "$@" ;;
esac
"""


def write(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A toolkit without cuDNN and NPP, called by a script elsewhere, and cuDNN 9 as a package. Returns a function of the release."""
    root, package = tmp_path / "cuda", tmp_path / "site" / "nvidia" / "cudnn"
    write(root / "include", cuda_runtime__h="the runtime", cublas_v2__h="the products", curand__h="chance")
    write(root / "include" / "cccl" / "cub", cub__cuh="the blocks", version__cuh="3")
    write(root / "lib64", **{"libcudart__so__13": "", "libcublas__so__13": "", "libcublas__so": "its own link"})
    write(package / "include", cudnn__h="the networks", cudnn_version__h="9")
    write(package / "lib", libcudnn__so__9="", libcudnn_ops__so__9="", libcudnn_cnn__so__9="")
    monkeypatch.setattr(cuda_toolkit, "nvidia_packages", lambda: [package])
    monkeypatch.setattr(cuda_toolkit, "SYSTEM_INCLUDE", ())
    monkeypatch.setattr(cuda_toolkit, "SYSTEM_LIB", ())

    def make(release):
        for path in (root / "bin" / "nvcc", tmp_path / "local" / "nvcc"):
            write(path.parent, nvcc=NVCC.format(here=root / "bin", release=release))
            path.chmod(0o755)
        return tmp_path / "local" / "nvcc"

    return make


def test_headers_stand_before_those_they_are_named_after(install, tmp_path):
    include = provide_toolkit(install("13.0"), tmp_path / "cache").parent.parent / "include"
    for name, original in {"cuda_runtime.h": "the runtime", "cudnn.h": "the networks", "cub/cub.cuh": "the blocks"}.items():
        assert f'#include "original/{name}"' in (include / name).read_text()
        assert (include / "original" / name).read_text() == original
    assert (include / "curand.h").read_text() == "chance" and (include / "cudnn_version.h").read_text() == "9"
    assert (include / "cub" / "version.cuh").read_text() == "3"
    assert "NPP_MAX_32S" in (include / "npp.h").read_text() and not (include / "original" / "npp.h").exists()


def test_libraries_have_the_names_that_jittor_links_with(install, tmp_path):
    lib = provide_toolkit(install("13.0"), tmp_path / "cache").parent.parent / "lib64"
    for name in ("cudart", "cublas", "cudnn", "cudnn_ops_infer", "cudnn_ops_train", "cudnn_cnn_infer", "cudnn_cnn_train"):
        assert (lib / f"lib{name}.so").is_file(), name
    assert (lib / "libcublas.so").read_text() == "its own link"


@pytest.mark.parametrize(("release", "standard"), [("12.4", 14), ("13.0", 17)])
def test_nvcc_is_called_with_the_merged_folders(install, tmp_path, release, standard):
    nvcc = provide_toolkit(install(release), tmp_path / "cache")
    command = [nvcc, "-std=c++14", "two words", "-code=sm_90", "-o", "x.so"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" -I")[0]
    assert words == f"-std=c++{standard} two words -code=sm_90,compute_90 -o x.so"
    include, lib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" -I")[1].split(" -L")
    assert (Path(include) / "curand.h").is_file() and (Path(lib.strip()) / "libcudart.so").is_file()


def test_nvcc_is_out_of_reach_of_ctrl_c(install, tmp_path):
    nvcc = provide_toolkit(install("13.0"), tmp_path / "cache")
    session = int(subprocess.run([nvcc, "--session"], capture_output=True, text=True, check=True).stdout)
    assert session != os.getsid(0)


def test_it_is_made_once_until_something_is_installed(install, tmp_path):
    nvcc = provide_toolkit(install("12.4"), tmp_path / "cache")
    stamp = nvcc.stat().st_mtime_ns
    assert provide_toolkit(install("12.4"), tmp_path / "cache") == nvcc and nvcc.stat().st_mtime_ns == stamp
    assert provide_toolkit(install("13.0"), tmp_path / "cache") != nvcc
    write(tmp_path / "cuda" / "lib64", libcufft__so="")
    later = provide_toolkit(install("12.4"), tmp_path / "cache")
    assert later != nvcc and (later.parent.parent / "lib64" / "libcufft.so").is_file()


def test_the_systems_cudnn_serves_where_there_is_no_other(install, tmp_path, monkeypatch):
    """Of two versions, the header must not be of one and the library of the other."""
    write(tmp_path / "usr" / "include", cudnn__h="8")
    write(tmp_path / "usr" / "lib", libcudnn__so="8", libcudnn_ops_infer__so="8")
    monkeypatch.setattr(cuda_toolkit, "SYSTEM_INCLUDE", (tmp_path / "usr" / "include",))
    monkeypatch.setattr(cuda_toolkit, "SYSTEM_LIB", (tmp_path / "usr" / "lib",))

    def versions():
        folder = provide_toolkit(install("12.4"), tmp_path / "cache").parent.parent
        names = ("include/original/cudnn.h", "lib64/libcudnn.so", "lib64/libcudnn_ops_infer.so")
        return [(folder / name).read_text() for name in names]

    assert versions() == ["the networks", "", ""]
    monkeypatch.setattr(cuda_toolkit, "nvidia_packages", lambda: [])
    assert versions() == ["8", "8", "8"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that installs NVIDIA's packages by name and folder."""
    root = tmp_path / "packages"
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(cuda_toolkit, "nvidia_packages", lambda: sorted((root / "nvidia").iterdir()))

    def install(name, folder, library):
        write(root / "nvidia" / folder / "lib", **{library: name})
        information = root / f"{name.replace('-', '_')}-1.0.dist-info"
        record = f"nvidia/{folder}/lib/{library.replace('__', '.')},,\n"
        write(information, METADATA=f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", RECORD=record)

    return install


@pytest.mark.parametrize(("release", "expected"), [("12.4", "nvidia-cufft-cu12"), ("13.0", "nvidia-cufft")])
def test_packages_of_another_cuda_are_left_out(install, site, tmp_path, release, expected):
    """Those of PyTorch for CUDA 12, for one, beside an nvcc of CUDA 13."""
    site("nvidia-cufft", "cu13", "libcufft__so")
    site("nvidia-cufft-cu12", "cufft", "libcufft__so")
    site("nvidia-of-both", "common", "libcommon__so")
    lib = provide_toolkit(install(release), tmp_path / "cache").parent.parent / "lib64"
    assert (lib / "libcufft.so").read_text() == expected
    assert (lib / "libcommon.so").is_file()


def test_packages_that_have_written_over_each_other_are_named(install, site, tmp_path):
    for major in (12, 13):
        site(f"nvidia-cudnn-cu{major}", "cudnn", "libcudnn__so")
    with pytest.raises(UserError, match=r"nvidia-cudnn-cu1\d and nvidia-cudnn-cu1\d have written .*again without nvidia-cudnn-cu12\.$"):
        provide_toolkit(install("13.0"), tmp_path / "cache")


def test_a_link_to_nothing_is_passed_over(install, tmp_path):
    (tmp_path / "cuda" / "lib64" / "libnothing.so").symlink_to("nowhere.so")
    assert not (provide_toolkit(install("12.4"), tmp_path / "cache").parent.parent / "lib64" / "libnothing.so").is_symlink()


def test_the_nvcc_of_debians_package_is_left_alone(tmp_path):
    assert provide_toolkit(Path("/usr/bin/nvcc"), tmp_path / "cache") == Path("/usr/bin/nvcc")
    assert not (tmp_path / "cache").exists()


def test_an_nvcc_from_pypi_is_found(monkeypatch, tmp_path):
    write(tmp_path / "bin", nvcc="")
    monkeypatch.setattr(cuda_toolkit, "nvidia_packages", lambda: [tmp_path])
    monkeypatch.setattr(cuda_toolkit, "USUAL_NVCC", ())
    monkeypatch.setenv("PATH", "")
    assert find_nvcc() == tmp_path / "bin" / "nvcc"
