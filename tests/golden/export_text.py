"""Export text.npz: reference values for models/networks/text_encoder.py and for a UNet that attends to words beside other tokens, from
transformers and diffusers.

    python tests/golden/export_text.py

Written with Python 3.11, torch 2.13.0, transformers 5.24.0, diffusers 0.42.1, tokenizers 0.23.3. Computed in float64. Weights are
networks.weights', under the names of the keys here.

    config                      config.json of a small CLIPTextModel with gelu, as Stable Diffusion 2's has it
    vocab, merges, special      vocab.json, merges.txt and special_tokens_map.json of its tokenizer, which fills texts with "!"
    texts [6], ids [6, 77]      texts and their ids, cut and filled to 77
    states [6, 77, 24], pooled [6, 24]   its last hidden states, and those at the end of each text
    joined [2, 4, 8, 12]        what the UNet `ours` of networks.py makes of normal("reference tokens", 2, 5, 24) side by side with the
                                states of the first two texts after a linear map, `project`; the pooled states after another, `pooled`,
                                are added to its class labels
    manifest/<encoder>          names and shapes of the weights of published text encoders, a line each
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from networks import TIMESTEPS, UNETS, normal, unet_inputs, weights
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TINY = {
    "vocab_size": 528, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu",
    "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "projection_dim": 16,
}  # fmt: skip
PUBLISHED = {
    "vit_b_32": {},
    "sd1": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
    "sd2.1": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23, "hidden_act": "gelu",
    },
}  # fmt: skip
MERGES = ["l a", "la k", "lak e</w>", "a t</w>", "h i", "l l", "hi ll", "o v", "e r</w>", "a n", "an d</w>"]
TEXTS = ["a lake at dusk", "", "A LAKE,  over\n the hills and 27 piers!!", "don't — 山水 🏔", "hill " * 100, "two<|endoftext|>texts"]


def set_weights(model):
    """Those of networks.py under the names that files have, which begin with text_model."""
    named = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    arrays = weights({published(name): shape for name, shape in named.items()})
    model.load_state_dict({name: torch.from_numpy(arrays[published(name)]) for name in named})
    return model.double().eval()


def published(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def linear(name: str, x: torch.Tensor, width: int) -> torch.Tensor:
    arrays = weights({f"{name}.weight": (width, x.shape[-1]), f"{name}.bias": (width,)})
    return torch.nn.functional.linear(x, *(torch.from_numpy(array).double() for array in arrays.values()))


def tokenizer_files() -> dict[str, str]:
    alphabet = sorted(ByteLevel.alphabet())
    entries = [*alphabet, *(f"{c}</w>" for c in alphabet), *(merge.replace(" ", "") for merge in MERGES)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    special = {"bos_token": {"content": "<|startoftext|>"}, "eos_token": {"content": "<|endoftext|>"}, "pad_token": "!"}
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    return {"vocab": json.dumps(vocabulary), "merges": "\n".join(["#version: 0.2", *MERGES, ""]), "special": json.dumps(special)}


def main():
    files = tokenizer_files()
    vocabulary, merges = json.loads(files["vocab"]), [tuple(line.split()) for line in files["merges"].split("\n")[1:-1]]
    tokenizer = CLIPTokenizer(vocabulary, merges, model_max_length=77, pad_token="!")
    ids = np.array(tokenizer(TEXTS, padding="max_length", truncation=True)["input_ids"])
    model = set_weights(CLIPTextModel(CLIPTextConfig(**TINY)))
    with torch.no_grad():
        output = model(torch.from_numpy(ids))
        states, pooled = output.last_hidden_state, output.pooler_output
        unet_weights = UNet2DConditionModel(**UNETS["ours"])
        shapes = {name: tuple(tensor.shape) for name, tensor in unet_weights.state_dict().items()}
        unet_weights.load_state_dict({name: torch.from_numpy(array) for name, array in weights(shapes).items()})
        inputs = {name: torch.from_numpy(array).double() for name, array in unet_inputs("ours").items()}
        reference = torch.from_numpy(normal("reference tokens", 2, 5, 24)).double()
        inputs["encoder_hidden_states"] = torch.cat([reference, linear("project", states[:2], 24)], dim=1)
        inputs["class_labels"] = inputs["class_labels"] + linear("pooled", pooled[:2], 12)
        joined = unet_weights.double()(timestep=torch.from_numpy(TIMESTEPS), **inputs).sample
    arrays = {"states": states, "pooled": pooled, "joined": joined}
    arrays = {name: tensor.numpy().astype(np.float32) for name, tensor in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        CLIPTextConfig(**TINY).save_pretrained(folder)
        arrays["config"] = (Path(folder) / "config.json").read_text()
    with torch.device("meta"):
        for name, config in PUBLISHED.items():
            encoder = CLIPTextModel(CLIPTextConfig(**config))
            lines = sorted(f"{published(key)} {list(tensor.shape)}" for key, tensor in encoder.state_dict().items())
            arrays[f"manifest/{name}"] = "\n".join(lines)
    arrays |= files | {"texts": np.array(TEXTS), "ids": ids.astype(np.int32)}
    np.savez_compressed(Path(__file__).with_name("text.npz"), **arrays)


if __name__ == "__main__":
    main()
