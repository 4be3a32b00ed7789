"""Adapters of low rank on disk.

What is written has kohya's spelling, which diffusers, ComfyUI and others read alike:

    lora_unet_<layer, with _ for .>.lora_down.weight   [r, in]    (lora_te_… of a text encoder; [r, in, k, k] of a convolution)
    lora_unet_<layer>.lora_up.weight                   [out, r]   with all scales in it
    lora_unet_<layer>.alpha                            r, so that the scale, alpha / r, is 1

Read are that, and the spellings that diffusers and peft have had: `unet.<layer>.lora_A.weight` and `lora_B`, `….lora.down.weight` and
`lora.up`, `….processor.to_q_lora.down.weight`, `text_encoder.<layer>.lora_linear_layer.down.weight`; their scale is in the metadata.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn

from models.networks.lora import Adapter, LowRank, adapter_of
from models.networks.pretrained import fingerprint
from utils.checkpoint import read_metadata, read_weights, write_safetensors
from utils.errors import UserError

# How the names of a network's layers begin; what is written, first
PREFIXES = {"unet": ("lora_unet_", "unet_", "base_model_model_", ""), "text_encoder": ("lora_te_", "lora_te1_", "text_encoder_")}
PARTS = {
    "down": ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "lora_linear_layer.down.weight"),
    "up": ("lora_up.weight", "lora_B.weight", "lora_B.default.weight", "lora.up.weight", "lora_linear_layer.up.weight"),
    "alpha": ("alpha",),
}
PROCESSOR = re.compile(r"\.processor\.(to_\w+)_lora\.")  # as attention had it when it had "processors"


@dataclass
class AdaptersConfig:
    rank: int
    bases: dict[str, str]  # by network, the fingerprint of the weights that its adapter is added to
    negative_prompt: str = ""  # words that painting with them leads away from


class Adapters(nn.Module):
    """What `adapt` has added to networks, under the names of their files: what is trained and stored. Scales are 1."""

    def __init__(self, rank: int, networks: Mapping[str, nn.Module], negative_prompt: str = ""):
        super().__init__()
        bases = {name: base(network, adapter_of(network)) for name, network in networks.items()}
        self._config = AdaptersConfig(rank, bases, negative_prompt)
        for name, network in networks.items():
            for layer, module in network.named_modules():
                if isinstance(module, LowRank):
                    part = nn.Module()
                    part.lora_down, part.lora_up, part.alpha = module.lora_down, module.lora_up, jt.array([float(rank)]).stop_grad()
                    setattr(self, PREFIXES[name][0] + layer.replace(".", "_"), part)

    @property
    def config(self) -> AdaptersConfig:
        return self._config

    @property
    def metadata(self) -> dict[str, str]:
        """Which weights they belong to, as `write_adapter` says it."""
        return {f"base_{name}": base for name, base in self.config.bases.items()}


def write_adapter(path: Path, adapters: Mapping[str, Adapter], networks: Mapping[str, jt.Module], metadata: dict[str, str]) -> None:
    """Writes the adapters of networks, by the networks' names (keys of PREFIXES). Which weights they belong to goes into the metadata."""
    arrays = {}
    for network, adapter in adapters.items():
        for layer, (down, up) in adapter.items():
            name = PREFIXES[network][0] + layer.replace(".", "_")
            arrays |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.array(len(down), np.float32)}
    write_safetensors(path, arrays, metadata | {f"base_{name}": base(networks[name], adapter) for name, adapter in adapters.items()})


def read_adapter(path: Path, networks: Mapping[str, jt.Module]) -> dict[str, Adapter]:
    """The adapters in a file, or in the folder of `Adapters`, by network, for these networks.

    Raises UserError where it is damaged, where any array is for none of their layers or does not fit its layer, and where it was written
    here for other weights than the networks have.
    """
    arrays = read_weights(path)
    metadata = stored_metadata(path)
    own = {name: layers_of(network) for name, network in networks.items()}
    layers = {prefix + layer.replace(".", "_"): (name, layer) for name in own for layer in own[name] for prefix in PREFIXES[name]}
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    wrong = []
    for key, array in arrays.items():
        layer, part = layer_and_part(key)
        if layer in layers and part:
            found.setdefault(layers[layer], {})[part] = array
        else:
            wrong.append(key)
    adapters: dict[str, Adapter] = {}
    for (name, layer), parts in found.items():
        down, up = parts.get("down"), parts.get("up")
        alpha = parts["alpha"] if "alpha" in parts else stored_alpha(metadata, name, layer)
        if down is None or up is None or not fits(own[name][layer].shape, down, up) or not np.isfinite(scale := scale_of(alpha, len(down))):
            wrong.append(f"{name} {layer}")
            continue
        adapters.setdefault(name, {})[layer] = (down, up * np.float32(scale))
    others = [name for name, adapter in adapters.items() if metadata.get(f"base_{name}", same := base(networks[name], adapter)) != same]
    if wrong or others or not adapters:
        reason = f"these do not fit: {', '.join(sorted(wrong)[:5])}{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}"
        if not wrong:
            reason = f"it was trained on other weights of {', '.join(others)}" if others else "it holds none"
        raise UserError(f"{path} is no adapter for {' and '.join(networks)} of this run, and nothing of it is used: {reason}")
    return adapters


def is_adapter(path: Path) -> bool:
    """Whether something is there that may be one."""
    return path.is_file() or (path / "config.json").is_file()


def stored_metadata(path: Path) -> dict[str, str]:
    """What is said beside the weights of a file or a folder."""
    if path.is_dir():
        try:
            stored = json.loads((path / "config.json").read_text())
            said = {f"base_{name}": base for name, base in stored["bases"].items()} | {"negative_prompt": stored["negative_prompt"]}
            if not all(isinstance(text, str) for text in said.values()):
                raise ValueError("what should be text is none")
            return said
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{path / 'config.json'} is missing or damaged ({error!r}): copy it again, or train again") from error
    return read_metadata(path) if path.suffix == ".safetensors" else {}


def layers_of(network: jt.Module) -> dict[str, jt.Var]:
    """The weights of a network's linear maps and convolutions, by layer."""
    return {name.removesuffix(".weight"): var for name, var in network.state_dict().items() if name.endswith(".weight") and var.ndim > 1}


def layer_and_part(key: str) -> tuple[str, str | None]:
    """A key of a file as the layer, spelt with _ for ., and a key of PARTS."""
    key = PROCESSOR.sub(lambda match: f".{'to_out.0' if match[1] == 'to_out' else match[1]}.lora.", key)
    for part, endings in PARTS.items():
        for ending in endings:
            if key.endswith(f".{ending}"):
                return key.removesuffix(f".{ending}").replace(".", "_"), part
    return key, None


def fits(shape: tuple[int, ...], down: np.ndarray, up: np.ndarray) -> bool:
    """Whether up · down can be added to a weight of this shape; so it can where one is of a linear map, the other of a 1x1 convolution."""
    outputs, inputs = shape[0], math.prod(shape[1:])
    if not down.size or not up.ndim or not down.ndim:
        return False
    finite = np.isfinite(down).all() and np.isfinite(up).all()
    return bool(finite and up.shape[0] == outputs and up.size == outputs * len(down) and down.size == inputs * len(down))


def stored_alpha(metadata: dict[str, str], network: str, layer: str) -> object:
    """A layer's alpha as diffusers stores it beside peft's spelling; None where it does not, and nan where that is damaged."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        own = [alpha for name, alpha in config.get(f"{network}.alpha_pattern", {}).items() if f".{layer}".endswith(f".{name}")]
        return own[0] if own else config.get(f"{network}.lora_alpha")
    except (ValueError, AttributeError, RecursionError):
        return math.nan


def scale_of(alpha: object, rank: int) -> float:
    """alpha / rank; 1 where there is no alpha, and nan where what a file has for one is no number."""
    if alpha is None:
        return 1.0
    try:
        return float(np.asarray(alpha).item()) / rank
    except (TypeError, ValueError, OverflowError):
        return math.nan


def base(network: jt.Module, adapter: Adapter) -> str:
    """Fingerprint of the weights that an adapter is added to."""
    layers = layers_of(network)
    return fingerprint({layer: layers[layer] for layer in adapter})
