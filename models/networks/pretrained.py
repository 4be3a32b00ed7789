"""Networks on disk, a folder each as diffusers has it: `config.json` and `diffusion_pytorch_model.safetensors`."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import jittor as jt
import numpy as np

from models.diffusion.schedule import NOISE_SCHEDULES, PREDICTION_TYPES
from models.networks.layers import own_weights
from utils.checkpoint import as_array, load_strict, load_vars, module_arrays, read_metadata, read_weights, write_json, write_safetensors
from utils.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"
BESIDE = ".incomplete"  # in a run's folder, where networks are written before they are renamed
WRITTEN = "written"  # the file in it that says that all of them are
LARGEST = 1 << 16  # number in a configuration: of channels, layers, words
SCHEDULE = {  # what diffusers takes where a configuration does not say; but the betas are Stable Diffusion's, and others are refused
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
INSTEAD = "give --unet_noise_schedule, --unet_prediction_type and --unet_zero_snr yourself"
ATTEMPTS = 10  # to read networks that are just being written, a second apart


YOUNGER = {"younger": True}  # metadata of a configuration's field, None by default, that is written only where it has a value:
# the files of networks that do without stay as they were before there was such a field


def save_config(network: jt.Module, folder: Path) -> None:
    config = network.config
    absent = {each.name for each in fields(config) if each.metadata == YOUNGER and getattr(config, each.name) is None}
    values = {name: value for name, value in asdict(config).items() if name not in absent}
    write_json(folder / "config.json", {"_class_name": type(network).__name__, **values})


def save_network(network: jt.Module, weights: Mapping[str, np.ndarray | jt.Var], folder: Path, step: int | None = None) -> None:
    """Writes the network's configuration and `weights`, its own or an average of them; `step` says after which step of training. What a
    network has as `metadata` goes into the file of its weights, which may be handed on without the folder."""
    save_config(network, folder)
    write_safetensors(folder / WEIGHTS, weights, getattr(network, "metadata", {}) | ({} if step is None else {"step": str(step)}))


def save_networks(networks: Mapping[str, tuple[jt.Module, Mapping]], folder: Path, step: int | None) -> None:
    """Writes networks with their weights, by name, as folders of `folder`: first beside, and then renamed one right after the other.

    A folder that is not there yet appears whole. A kill in between leaves networks of two steps, which `load_networks` refuses, until
    `finish_saving` has put it right.
    """
    beside = folder / BESIDE
    shutil.rmtree(beside, ignore_errors=True)
    for name, (network, weights) in networks.items():
        save_network(network, weights, beside / name, step)
    beside.mkdir(exist_ok=True)
    (beside / WRITTEN).touch()
    finish_saving(folder)


def finish_saving(folder: Path) -> None:
    """Renames the networks that `save_networks` has written beside, as far as a kill has kept it from that. What it had not yet written to
    the end goes. Nobody else may be writing to `folder`."""
    beside = folder / BESIDE
    for path in [path for path in beside.iterdir() if path.is_dir()] if (beside / WRITTEN).is_file() else []:
        if not (folder / path.name).is_dir():
            os.rename(path, folder / path.name)
            continue
        for file in ("config.json", WEIGHTS):
            if (path / file).exists():
                os.replace(path / file, folder / path.name / file)
    shutil.rmtree(beside, ignore_errors=True)


def fingerprint(weights: Mapping[str, jt.Var]) -> str:
    """What weights are known by: the same for a run and for its small version in float16."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(as_array(weights[name]).astype(np.float16)).data)
    return digest.hexdigest()[:16]


def exported_step(folder: Path) -> int | None:
    """The step of training that a network's folder was written after, or None."""
    try:
        return int(read_metadata(folder / WEIGHTS)["step"])
    except (UserError, KeyError, ValueError):
        return None


def load_network(network_class: Callable[..., jt.Module], config_class: type, folder: Path) -> jt.Module:
    """The network that `save_network` wrote, network_class(config). Raises UserError where the folder or a weight is missing, damaged or
    not finite."""
    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text())
        names = {field.name for field in fields(config_class) if field.init}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items() if name in names}
        kinds = get_type_hints(config_class)
        for name, value in values.items():
            if not is_of(kinds[name], value):
                raise ValueError(f"{name} is {value!r}")
            if any(isinstance(one, int) and one > LARGEST for one in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{name} is {value}, which would take all memory")
        network = network_class(config_class(**values))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} is missing: no trained network there. Train it with MainTrain.py first.") from error
    except Exception as error:  # any value may be of another kind than it should
        raise UserError(f"{path} is damaged ({error}): copy it again, or train again with --restart") from error
    weights = read_weights(folder)
    wrong = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if wrong:
        raise UserError(
            f"{folder} holds weights that are not finite ({', '.join(wrong[:3])} ...): its training has diverged, or it is damaged"
        )
    load_vars(own_weights(network), weights, folder, type(network).__name__)
    for parameter in network.parameters():
        parameter.stop_grad()
    return network


def is_of(kind: Any, value: object) -> bool:
    """Whether a value is of a type such as float, tuple[int, ...] or str | None: whole numbers are of float."""
    if isinstance(kind, UnionType):
        return any(is_of(one, value) for one in get_args(kind))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        of_length = others == [...] or (isinstance(value, tuple) and len(value) == 1 + len(others))
        return isinstance(value, tuple) and of_length and all(is_of(first, one) for one in value)
    return type(value) in ((int, float) if kind is float else (get_origin(kind) or kind,))


def load_networks(classes: Mapping[str, tuple[type, type]], folder: Path) -> dict[str, jt.Module]:
    """Networks by name, from folders of `folder` that were written together. Raises UserError where they are not of one step.

    A run that is training may write them just now: then they are read again.
    """
    for _ in range(ATTEMPTS):
        steps = {name: exported_step(folder / name) for name in classes}
        if len({*steps.values()} - {None}) <= 1:  # a network of no known step is damaged, which loading it says, or not of our writing
            networks = {name: load_network(*network_and_config, folder / name) for name, network_and_config in classes.items()}
            if steps == {name: exported_step(folder / name) for name in classes}:
                return networks
        time.sleep(1)
    found = ", ".join(f"{name} of step {step}" for name, step in steps.items())
    raise UserError(
        f"{folder} holds networks that do not belong together ({found}), as writing them was cut off: train on, which writes them again, "
        "or paint with the other folder, the run's own or best/ in it"
    )


def published_schedule(unet: Path) -> dict[str, str | int]:
    """How a published UNet was trained, as options of stage `unet`, by scheduler/scheduler_config.json beside its folder; {} where there is
    none. Raises UserError where that is damaged, or says what there is not here."""
    path = (unet if unet.is_dir() else unet.parent).parent / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return {}
    try:
        said = SCHEDULE | json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): put it back, or {INSTEAD}") from error
    betas = () if said["beta_schedule"] == "squaredcos_cap_v2" else ("beta_start", "beta_end")
    wrong = [name for name in ("num_train_timesteps", "trained_betas", *betas) if said[name] != SCHEDULE[name]]
    schedule = {"squaredcos_cap_v2": "cosine"}.get(str(said["beta_schedule"]), said["beta_schedule"])
    wrong += ["beta_schedule"] if schedule not in NOISE_SCHEDULES else []
    wrong += ["prediction_type"] if said["prediction_type"] not in PREDICTION_TYPES else []
    if wrong:
        found = ", ".join(f"{name} {said[name]}" for name in wrong)
        raise UserError(f"{path} says of the UNet's training what there is not here ({found}): to train it on another noise, {INSTEAD}")
    return {
        "noise_schedule": schedule,
        "prediction_type": said["prediction_type"],
        "zero_snr": int(bool(said["rescale_betas_zero_snr"])),
    }


# Names of the autoencoder's attention in the weights published first, and ours (and diffusers' since 2023)
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def initialise(network: jt.Module, path: Path) -> None:
    """Starts a network from published weights of the same shape, Stable Diffusion's as a rule.

    Where our first convolution takes more channels than the published one (the mask's), the further ones start at zero. Networks that
    only we have (`class_embedding`) keep their random start, but for the last layer, which starts at zero: at first they change nothing.
    A SegFormer published for other classes, or without a decode head, keeps its own last layer or head. An RCAN whose file leaves out the
    mean of its photos has that of DIV2K. What another network has lent stays that one's.
    Raises UserError naming every other array that does not fit.
    """
    pattern = re.compile(rf"(mid_block\.attentions\.0\.)({'|'.join(RENAMED)})(?=\.(weight|bias)$)")
    arrays = {pattern.sub(lambda m: m[1] + RENAMED[m[2]], name): array for name, array in read_weights(path).items()}
    own, not_lent = module_arrays(network), own_weights(network)
    if hasattr(getattr(network, "config", None), "linear_start"):
        arrays = with_own_estimate(arrays, own, network.config, path)
    narrow, wide = arrays.get("conv_in.weight"), own.get("conv_in.weight")
    if narrow is not None and wide is not None and narrow.shape[1] < wide.shape[1]:
        arrays["conv_in.weight"] = np.pad(narrow, ((0, 0), (0, wide.shape[1] - narrow.shape[1]), (0, 0), (0, 0)))
    arrays = {name: array for name, array in arrays.items() if not name.startswith("classifier.")}  # of a SegFormer that tells photos apart
    headless = not any(name.startswith("decode_head.") for name in arrays)
    for name, array in own.items():
        other_classes = name.startswith("decode_head.classifier.") and name in arrays and arrays[name].shape != array.shape
        no_mean = name.startswith(("sub_mean.", "add_mean.")) and name not in arrays
        if name not in not_lent or other_classes or no_mean or (headless and name.startswith("decode_head.")):
            arrays[name] = array
        elif name.startswith("class_embedding.") and name not in arrays:
            arrays[name] = np.zeros_like(array) if ".linear_2." in name else array
        elif name in arrays and array.shape[:2] == arrays[name].shape[:2] and array.size == arrays[name].size:
            arrays[name] = arrays[name].reshape(array.shape)  # a 1x1 convolution and a linear map hold the same weights
    load_strict(network, arrays, path)


def with_own_estimate(arrays: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], config: object, path: Path) -> dict[str, np.ndarray]:
    """A conditioner's arrays from a file, but the linear estimate that painting alone starts from: that is of other photos, and measured
    anew. Raises UserError where the UNet beside the file has learnt what the estimate leaves, and this one's learns all, or the other way
    round."""

    def learns_the_rest(values: dict) -> bool:
        return bool(values.get("linear_start")) and not values.get("for_painting")

    learnt, stored = learns_the_rest(vars(config)), None
    with suppress(OSError, ValueError):  # of weights without it, it is not known
        stored = json.loads(((path if path.is_dir() else path.parent) / "config.json").read_text())
    if isinstance(stored, dict) and learnt != learns_the_rest(stored):
        predicts = "all" if learnt else "what the linear start leaves"
        raise UserError(f"The UNet beside {path} predicts {predicts}: give --unet_linear_start {2 if learnt else 1}")
    if learnt:
        return dict(arrays)
    kept = {name: array for name, array in arrays.items() if not name.startswith("linear_start.")}
    return kept | {name: array for name, array in own.items() if name.startswith("linear_start.")}
