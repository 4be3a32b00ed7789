"""Export networks.npz and manifests.json: reference values for the autoencoder and the UNet of models/networks, from diffusers.

    python tests/golden/export_networks.py

Written with Python 3.11, torch 2.13.0, diffusers 0.42.1. Computed in float64. Keys of networks.npz (configurations, weights and inputs are
those of networks.py):

    vae/mean, vae/logvar [2, 4, 8, 10], vae/decoded [2, 3, 32, 40]
    unet/<case>                             [2, 4, 8, 12]
    <any of the above but vae/>/gradients   [P, 2], see networks.gradient_summary, of the sum over outputs of output · normal(<its key>)

manifests.json: names and shapes of the weights of Stable Diffusion 1's autoencoder and UNet and of Stable Diffusion 2.1's UNet.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from networks import TIMESTEPS, UNETS, VAE, gradient_summary, normal, unet_inputs, vae_inputs, weights

SD21 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}


def autoencoder(config: dict) -> AutoencoderKL:
    levels = len(config["block_out_channels"])
    return AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels, **config)


def set_weights(model):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights(shapes).items()})
    return model.double()


def tensors(inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).double() for name, array in inputs.items()}


def measured(model, outputs: dict[str, torch.Tensor], key: str) -> dict[str, np.ndarray]:
    sum((output * torch.from_numpy(normal(name, *output.shape))).sum() for name, output in outputs.items()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    arrays = {name: output.detach().numpy().astype(np.float32) for name, output in outputs.items()}
    return arrays | {f"{key}/gradients": gradient_summary(gradients)}


def main():
    model, inputs = set_weights(autoencoder(VAE)), tensors(vae_inputs())
    posterior = model.encode(inputs["x"]).latent_dist
    outputs = {"vae/mean": posterior.mean, "vae/logvar": posterior.logvar, "vae/decoded": model.decode(inputs["z"]).sample}
    arrays = measured(model, outputs, "vae")
    for case, config in UNETS.items():
        model = set_weights(UNet2DConditionModel(**config))
        key = f"unet/{case}"
        arrays |= measured(model, {key: model(timestep=torch.from_numpy(TIMESTEPS), **tensors(unet_inputs(case))).sample}, key)
    np.savez_compressed(Path(__file__).with_name("networks.npz"), **arrays)

    with torch.device("meta"):
        published = {
            "sd1 vae": autoencoder({"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}),
            "sd1 unet": UNet2DConditionModel(cross_attention_dim=768),
            "sd2.1 unet": UNet2DConditionModel(**SD21),
        }
    manifests = {key: {name: list(tensor.shape) for name, tensor in model.state_dict().items()} for key, model in published.items()}
    Path(__file__).with_name("manifests.json").write_text(json.dumps(manifests, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
