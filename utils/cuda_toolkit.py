"""A CUDA toolkit as Jittor 1.3.11 wants it, made of those that are installed.

Jittor looks for everything in the folder above nvcc's and knows CUDA up to 12 and cuDNN up to 8; and it has 16-bit convolutions added up in
16 bits, which mixed precision does not stand. The folder made here has links to what nvcc's own folder, NVIDIA's packages from PyPI and the
system hold, the headers of utils/cuda_include in front of those they are named after, and the names of cuDNN 8's libraries.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError
from utils.files import built_beside

HEADERS = Path(__file__).parent / "cuda_include"
USUAL_NVCC = ("/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc")
SYSTEM_INCLUDE, SYSTEM_LIB = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu")), (Path("/usr/lib/x86_64-linux-gnu"),)

# Jittor asks for C++ 14, which the headers of CUDA 13 are beyond, and on GPUs later than it knows for nothing but sm_90's own code.
# nvcc has its parts die by Ctrl-C even where that is ignored; in a session of their own they are not in the terminal's reach.
NVCC = """\
#!/bin/sh
for word; do
    shift
    case $word in
    -std=c++14) word=-std=c++{standard} ;;
    -code=sm_90) word=-code=sm_90,compute_90 ;;
    esac
    set -- "$@" "$word"
done
folder=$(dirname "$0")/..
exec $(command -v setsid) "{nvcc}" "$@" -I"$folder/include" -L"$folder/lib64"
"""


def nvidia_packages() -> list[Path]:
    """The folders of NVIDIA's packages from PyPI: nvidia/cu13, nvidia/cudnn and the like."""
    package = importlib.util.find_spec("nvidia")
    roots = package.submodule_search_locations if package else ()
    return sorted(path for root in roots for path in Path(root).iterdir() if path.is_dir())


def nvidia_packages_of(major: int | None) -> list[Path]:
    """Those of `nvidia_packages` that belong to one major release of CUDA, or to none. Raises UserError where two releases share a folder.

    PyTorch brings packages of its own CUDA, which need not be nvcc's. Their names end in -cu12, but for those that are all in nvidia/cu13.
    """
    owners: dict[str, dict[str, str]] = {}  # folder → major → package
    for package in importlib.metadata.distributions():
        if suffix := re.fullmatch(r"nvidia-.+-cu(\d+)", package.name):
            for folder in {file.parts[1] for file in package.files or () if file.parts[0] == "nvidia" and len(file.parts) > 2}:
                owners.setdefault(folder, {})[suffix[1]] = package.name
    chosen = []
    for folder in nvidia_packages():
        named = re.fullmatch(r"cu(\d+)", folder.name)
        majors = {named[1]: folder.name} if named else owners.get(folder.name, {})
        if major is None or not majors or str(major) in majors:
            chosen.append(folder)
            if len(majors) > 1:
                wrong = [name for other, name in majors.items() if other != str(major)]
                raise UserError(
                    f"{' and '.join(majors.values())} have written over each other in {folder}: remove them by "
                    f"{sys.executable} -m pip uninstall {' '.join(majors.values())}, and install them again without {' '.join(wrong)}."
                )
    return chosen


def release(nvcc: Path) -> tuple[int, int] | None:
    """Major and minor release of CUDA that an nvcc is of; None where it does not say."""
    found = re.search(r"release (\d+)\.(\d+)", output_of(nvcc, "--version"))
    return (int(found[1]), int(found[2])) if found else None


def check_driver(nvcc: Path, driver: tuple[int, int]) -> None:
    """Raises UserError where what nvcc compiles does not run on a driver that supports CUDA up to release `driver`.

    Within a major release the driver may be older than the toolkit.
    """
    toolkit = release(nvcc)
    if toolkit is not None and toolkit[0] > driver[0]:
        raise UserError(
            f"The NVIDIA driver supports CUDA {driver[0]}.{driver[1]}, and {nvcc} is of CUDA {toolkit[0]}.{toolkit[1]}, which it "
            f"cannot run: install the CUDA toolkit {driver[0]}.{driver[1]}, or update the driver."
        )


def find_nvcc() -> Path | None:
    """The nvcc of the path, of the usual folders, or of a package from PyPI."""
    candidates = [shutil.which("nvcc"), *USUAL_NVCC]
    candidates += [package / "bin" / "nvcc" for package in nvidia_packages()]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def output_of(*command: Path | str) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout + result.stderr


def files_to_merge(nvcc: Path, major: int | None) -> tuple[list[Path], list[Path]]:
    """Headers and libraries: nvcc's own, then those of NVIDIA's packages of its major release, and if neither has cuDNN the system's."""
    root = nvcc.parent.parent
    roots = [root, root / "targets" / "x86_64-linux", *nvidia_packages_of(major)]
    include = [folder for root in roots for folder in (root / "include", root / "include" / "cccl")]
    headers = [path for folder in include for path in sorted(folder.glob("*"))]
    libraries = [path for root in roots for name in ("lib64", "lib") for path in sorted((root / name).glob("lib*"))]
    if not any(path.name == "cudnn.h" for path in headers):
        headers += [path for folder in SYSTEM_INCLUDE for path in sorted(folder.glob("cudnn*"))]
        libraries += [path for folder in SYSTEM_LIB for path in sorted(folder.glob("libcudnn*"))]
    return headers, libraries


def link_all(paths: Iterable[Path], target: Path) -> None:
    """Links the paths into `target`, unless something of that name is there."""
    for path in paths:
        if path.exists() and not (target / path.name).exists():
            (target / path.name).symlink_to(path.resolve())


def link_headers(headers: list[Path], target: Path) -> None:
    """Links headers into `target`, behind those of `HEADERS`, which find what they replace in `target`/original."""
    for name in sorted(path.relative_to(HEADERS) for path in HEADERS.rglob("*.*h")):
        original = next((path.parent / name for path in headers if path.name == name.parts[0] and (path.parent / name).is_file()), None)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HEADERS / name, target / name)
        if original is not None:
            (target / "original" / name).parent.mkdir(parents=True, exist_ok=True)
            (target / "original" / name).symlink_to(original.resolve())
            if name.parent.name:
                link_all(sorted(original.parent.glob("*")), target / name.parent)
    link_all(headers, target)


def link_libraries(libraries: list[Path], target: Path) -> None:
    """Links libraries into `target`, also under the names without a version that Jittor links with, and cuDNN 9's under cuDNN 8's."""
    link_all(libraries, target)
    for path in sorted(target.glob("lib*.so.*")):
        plain = target / (path.name.partition(".so")[0] + ".so")
        if not plain.exists():
            plain.symlink_to(path.name)
    for part in ("ops", "cnn"):
        for half in ("infer", "train"):
            name = target / f"libcudnn_{part}_{half}.so"
            if not name.exists() and (target / f"libcudnn_{part}.so").exists():
                name.symlink_to(f"libcudnn_{part}.so")


def provide_toolkit(nvcc: Path, cache: Path) -> Path:
    """Merges what is installed into a folder of `cache`, once until something is installed anew; returns the nvcc to give to Jittor.

    Debian's own package spreads over /usr, where nothing can be told apart: its nvcc is returned as it is.
    """
    if nvcc.parent in (Path("/usr/bin"), Path("/bin")):
        return nvcc
    here = re.search(r"_HERE_=(.+)", output_of(nvcc, "--dryrun", "-c", "-x", "cu", "/dev/null", "-o", "/dev/null"))
    nvcc = Path(here[1]).resolve() / "nvcc" if here else nvcc.resolve()  # the nvcc of the path may be a script that calls another
    version = output_of(nvcc, "--version")
    major, _ = release(nvcc) or (None, None)
    headers, libraries = files_to_merge(nvcc, major)
    ours = [path.read_text() for path in (Path(__file__), *sorted(HEADERS.rglob("*.*h")))]
    folder = cache / hashlib.sha256(f"{nvcc} {version} {headers} {libraries} {ours}".encode()).hexdigest()[:16]
    if not folder.is_dir():
        with built_beside(folder) as building:
            for name in ("bin", "include", "lib64"):
                (building / name).mkdir()
            link_headers(headers, building / "include")
            link_libraries(libraries, building / "lib64")
            standard = 17 if major is not None and major >= 13 else 14
            (building / "bin" / "nvcc").write_text(NVCC.format(nvcc=nvcc, standard=standard))
            (building / "bin" / "nvcc").chmod(0o755)
    return folder / "bin" / "nvcc"
