"""Export adapters.npz, lora-diffusers.safetensors and lora-kohya.safetensors: reference values for adapters, from diffusers and peft.

    python tests/golden/export_adapters.py

Written with Python 3.11, torch 2.13.0, diffusers 0.42.1, peft 0.21.2. Computed in float64, on the UNet "ours" of networks.py; the adapter's
layers and rank are there too, its weights are those that `weights` draws for `<layer>.lora_down.weight` and `<layer>.lora_up.weight`. Keys:

    lora [2, 4, 8, 12]             what the UNet computes with the adapter
    lora/gradients [P, 2]          networks.gradient_summary, of the adapter's weights alone
    merged/<layer>                 the weight that the layer has once the adapter is merged into it, of a linear map and of a convolution
    control/skip/<n>, control/middle    of the first picture [C, h, w], what a ControlNet beside that UNet gives for networks.control_mask
    control [2, 4, 8, 12]          what the UNet computes with it
    control/gradients [P, 2]       of the ControlNet's weights

The two files hold the adapter as diffusers writes it, and as its conversion to kohya's spelling has it, with alpha.
"""

import re
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from export_networks import set_weights, tensors
from networks import CONTROL, LORA, LORA_LAYERS, TIMESTEPS, UNETS, control_mask, gradient_summary, normal, unet_inputs, weights
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent
OURS = {".lora_A.default.": ".lora_down.", ".lora_B.default.": ".lora_up."}


def our_name(name: str) -> str:
    for theirs, ours in OURS.items():
        name = name.replace(theirs, ours)
    return name


def export_lora() -> dict[str, np.ndarray]:
    unet = set_weights(UNet2DConditionModel(**UNETS["ours"]))
    layers = "|".join(map(re.escape, LORA_LAYERS))
    unet.add_adapter(LoraConfig(r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=f"^({layers})$"))
    adapter = {name: parameter for name, parameter in unet.named_parameters() if "lora_" in name}
    assert len(adapter) == 2 * len(LORA_LAYERS)
    drawn = weights({our_name(name): tuple(parameter.shape) for name, parameter in adapter.items()})
    for name, parameter in adapter.items():
        parameter.data = torch.from_numpy(drawn[our_name(name)]).double()
    output = unet(timestep=torch.from_numpy(TIMESTEPS), **tensors(unet_inputs("ours"))).sample
    (output * torch.from_numpy(normal("lora", *output.shape))).sum().backward()
    gradients = {our_name(name): parameter.grad.numpy() for name, parameter in adapter.items()}
    arrays = {"lora": output.detach().numpy().astype(np.float32), "lora/gradients": gradient_summary(gradients)}

    state = {name: array.float().contiguous() for name, array in get_peft_model_state_dict(unet).items()}
    config = unet.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        GOLDEN, convert_state_dict_to_diffusers(state), unet_lora_adapter_metadata=config, weight_name="lora-diffusers.safetensors"
    )
    kohya = convert_state_dict_to_kohya({f"unet.{name}": array for name, array in state.items()})
    alphas = {name: torch.tensor(LORA["alpha"]) for name in kohya if name.endswith(".alpha")}
    save_file({name.replace("unet.", "lora_unet_"): array for name, array in (kohya | alphas).items()}, GOLDEN / "lora-kohya.safetensors")

    unet.fuse_lora()
    for layer in (LORA_LAYERS[0], LORA_LAYERS[-3]):
        arrays[f"merged/{layer}"] = unet.get_submodule(layer).base_layer.weight.detach().numpy().astype(np.float32)
    return arrays


def export_control() -> dict[str, np.ndarray]:
    unet, inputs, steps = set_weights(UNet2DConditionModel(**UNETS["ours"])), tensors(unet_inputs("ours")), torch.from_numpy(TIMESTEPS)
    of_unet = {name: value for name, value in UNETS["ours"].items() if name != "up_block_types"}
    control = set_weights(ControlNetModel(**of_unet, **CONTROL))
    hint = torch.from_numpy(control_mask()[:, None] == np.arange(29).reshape(1, -1, 1, 1)).double()
    skips, middle = control(timestep=steps, controlnet_cond=hint, return_dict=False, **inputs)
    output = unet(timestep=steps, down_block_additional_residuals=skips, mid_block_additional_residual=middle, **inputs).sample
    (output * torch.from_numpy(normal("control", *output.shape))).sum().backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in control.named_parameters()}
    arrays = {"control": output, "control/middle": middle[0], **{f"control/skip/{i}": skip[0] for i, skip in enumerate(skips)}}
    return {name: array.detach().numpy().astype(np.float32) for name, array in arrays.items()} | {
        "control/gradients": gradient_summary(gradients)
    }


def main():
    np.savez_compressed(GOLDEN / "adapters.npz", **export_lora(), **export_control())


if __name__ == "__main__":
    main()
