"""Check that diffusers loads the networks of a run, and computes with them what we do.

Twice, once in each environment, since PyTorch and Jittor are not installed in one:

    python tests/golden/check_with_diffusers.py checkpoints/<run> values.npz --export     # with Jittor: writes values.npz
    python tests/golden/check_with_diffusers.py checkpoints/<run> values.npz              # with PyTorch and diffusers: compares

The autoencoder in <run>/vae, the UNet in <run>/unet and a ControlNet in its full form in <run>/control (any may be absent) run on random
inputs, the UNet also with an adapter of low rank (--lora FILE in both commands). Printed is the largest error of each output, in shares of
its largest value. The exit status is 1 where one is above 1e-4, or where diffusers misses or does not know a weight.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from networks import TIMESTEPS

TOLERANCE = 1e-4


def inputs(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Random arguments by the names of the networks that `folder` holds."""
    rng, arguments = np.random.default_rng(0), {}

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    for name in ("vae", "unet", "control"):
        path = folder / name / "config.json"
        if not path.exists():
            continue
        config = json.loads(path.read_text())
        cell = 2 ** (len(config["block_out_channels"]) - 1)
        if name == "vae":
            arguments[name] = {"x": normal(2, 3, 6 * cell, 8 * cell), "z": normal(2, config["latent_channels"], 6, 8)}
        else:
            arguments[name] = {
                "sample": normal(2, config["in_channels"], 2 * cell, 4 * cell),
                "encoder_hidden_states": normal(2, 5, config["cross_attention_dim"]),
            }
            if config["class_embed_type"]:
                arguments[name]["class_labels"] = normal(2, config["projection_class_embeddings_input_dim"])
        if name == "control":
            times = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
            arguments[name]["mask"] = rng.integers(0, config["conditioning_channels"], (2, 2 * cell * times, 4 * cell * times), np.uint8)
    if not arguments:
        sys.exit(f"{folder} holds none of vae/config.json, unet/config.json and control/config.json")
    return arguments


def ours(folder: Path, lora: Path | None) -> dict[str, np.ndarray]:
    """Outputs of our networks by name."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

    # isort: split
    import jittor as jt

    from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
    from models.networks.controlnet import ControlNetConfig, ControlNetModel
    from models.networks.lora import merge
    from models.networks.lora_files import read_adapter
    from models.networks.pretrained import load_network
    from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel

    outputs = {}
    for name, arguments in inputs(folder).items():
        arguments = {key: jt.array(array) for key, array in arguments.items()}
        if name == "vae":
            vae = load_network(AutoencoderKL, AutoencoderKLConfig, folder / name)
            outputs["vae mean"], outputs["vae logvar"] = vae.posterior(arguments["x"])
            outputs["vae decoded"] = vae.reconstruct(arguments["z"])
        elif name == "control":
            control = load_network(ControlNetModel, ControlNetConfig, folder / name)
            skips, outputs["control middle"] = control(timestep=TIMESTEPS, hint=control.hint(arguments.pop("mask").numpy()), **arguments)
            outputs |= {f"control skip {i}": skip for i, skip in enumerate(skips)}
        else:
            unet = load_network(UNet2DConditionModel, UNet2DConditionConfig, folder / name)
            outputs["unet"] = unet(timestep=TIMESTEPS, **arguments)
            if lora:
                merge(unet, [(read_adapter(lora, {"unet": unet})["unet"], 1.0)])
                outputs["unet with the adapter"] = unet(timestep=TIMESTEPS, **arguments)
    return {key: output.numpy() for key, output in outputs.items()}


def theirs(folder: Path, lora: Path | None) -> dict[str, np.ndarray]:
    """Outputs of diffusers' networks by name. Exits where a weight is missing or unexpected."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel

    outputs, classes = {}, {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "control": ControlNetModel}
    for name, arguments in inputs(folder).items():
        arguments = {key: torch.from_numpy(array) for key, array in arguments.items()}
        model, info = classes[name].from_pretrained(folder / name, output_loading_info=True)
        faults = {kind: keys for kind, keys in info.items() if keys}
        if faults:
            sys.exit(f"diffusers on {folder / name}: {faults}")
        with torch.no_grad():
            if name == "vae":
                posterior = model.encode(arguments["x"]).latent_dist
                outputs["vae mean"], outputs["vae logvar"] = posterior.mean, posterior.logvar
                outputs["vae decoded"] = model.decode(arguments["z"]).sample
            elif name == "control":
                hint = (arguments.pop("mask")[:, None] == torch.arange(model.config.conditioning_channels).reshape(1, -1, 1, 1)).float()
                told = {"timestep": torch.from_numpy(TIMESTEPS), "controlnet_cond": hint, "return_dict": False}
                skips, outputs["control middle"] = model(**told, **arguments)
                outputs |= {f"control skip {i}": skip for i, skip in enumerate(skips)}
            else:
                outputs["unet"] = model(timestep=torch.from_numpy(TIMESTEPS), **arguments).sample
                if lora:
                    state, alphas = StableDiffusionPipeline.lora_state_dict(lora.resolve(), unet_config=model.config)
                    StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=model)
                    outputs["unet with the adapter"] = model(timestep=torch.from_numpy(TIMESTEPS), **arguments).sample
    return {key: output.numpy() for key, output in outputs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that holds vae/ and unet/")
    parser.add_argument("values", type=Path, help=".npz file of our outputs")
    parser.add_argument("--export", action="store_true", help="write our outputs instead of comparing them with diffusers'")
    parser.add_argument("--lora", type=Path, help="an adapter of the UNet")
    args = parser.parse_args()
    if args.export:
        np.savez(args.values, **ours(args.run, args.lora))
        return
    values = np.load(args.values)
    errors = {key: np.abs(values[key] - output).max() / np.abs(output).max() for key, output in theirs(args.run, args.lora).items()}
    for key, error in errors.items():
        print(f"{key:22} {error:.1e}")
    if not all(error <= TOLERANCE for error in errors.values()):  # NaN fails too
        sys.exit(f"above {TOLERANCE}")


if __name__ == "__main__":
    main()
