"""A trained run made small enough to be handed on: what painting needs of it, in float16.

    python3 -m models.painters.ship checkpoints/diffusion checkpoints/demo

Painting reads it as any other run. It cannot be trained on.
"""

import argparse
import shutil
from pathlib import Path

from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np

from models.painters.latent_diffusion import decoder_folder
from models.training.run import read_json
from utils.checkpoint import read_safetensors, write_json, write_safetensors
from utils.errors import UserError, or_exit
from utils.files import whole_folder

OF_TRAINING = ("best", "state", "latents", "previews", "tensorboard", "rehearsal")
SMALL = 2**10  # numbers: arrays of no more keep float32. Biases and norms weigh nothing, and the last digits count there
EXACT = "linear_start."  # as do these: powers, of which the smallest count most


def ship(run: Path, target: Path) -> int:
    """Writes the small version of a run to the new folder `target`; returns its size in bytes.

    Raises UserError where `run` is no run, `target` is there, or a weight is too large for float16.
    """
    stored = read_json(run) | dict.fromkeys(("input_path", "val_path", "leave_out"))  # nobody else has those files
    networks = {path.parent.relative_to(run) for path in run.rglob("config.json")}  # of a style too, two folders further down
    needed = {path: path for path in networks if not {*OF_TRAINING, ".incomplete"} & {*path.parts}}
    if Path("joint_unet") in needed:  # what stage joint has trained takes the places of what it began with, and nothing else paints
        sources = {"vae": decoder_folder(run, "joint_").name, "unet": "joint_unet", "conditioner": "joint_conditioner"}
        needed = {Path(source): Path(name) for name, source in sources.items()}
    elif decoder_folder(run).name != "vae":
        needed.pop(Path("vae"), None)  # the other one has its encoder too
    with whole_folder(target) as folder:
        write_json(folder / "run.json", stored)
        if (run / "tokenizer.json").is_file():  # of a run's own text encoder
            shutil.copyfile(run / "tokenizer.json", folder / "tokenizer.json")
        for source in (path for name in sorted(needed) for path in sorted((run / name).iterdir()) if path.is_file()):
            copy = folder / needed[source.parent.relative_to(run)] / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".safetensors":
                arrays, metadata = read_safetensors(source)
                write_safetensors(copy, {name: halved(array, name, source) for name, array in arrays.items()}, metadata)
            else:
                shutil.copyfile(source, copy)
    if text_encoder := stored["stages"].get("unet", {}).get("text_encoder"):
        print(f"Painting needs {text_encoder} too: hand that on as well, and say where it is as text_encoder in {target / 'run.json'}.")
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def halved(array: np.ndarray, name: str, source: Path) -> np.ndarray:
    """The array in float16, unless it is small, exact, or none of float32."""
    if array.dtype != np.float32 or array.size <= SMALL or name.startswith(EXACT):
        return array
    if not np.abs(array).max() <= np.finfo(np.float16).max:
        raise UserError(f"{source}: {name} holds numbers that float16 has not: this run cannot be made small")
    return array.astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a trained run")
    parser.add_argument("target", type=Path, help="a folder that is made")
    args = parser.parse_args()
    print(f"{args.target}: {ship(args.run, args.target) / 1e6:.1f} MB")


if __name__ == "__main__":
    or_exit(main)
