"""Export clip.npz: reference values for models/networks/clip.py and models/metrics/aesthetic.py, from transformers and PyTorch.

    python tests/golden/export_clip.py

Written with Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, Pillow 13.0.0. Networks computed in float64. Keys:

    config                      config.json of a small CLIPModel whose weights are networks.weights'; its hidden_act is quick_gelu in
                                the text tower and gelu in the vision tower
    image_features [2, 16]      of normal("pixels", 2, 3, 32, 32)
    ids [3, 12]                 token ids, with text_states [3, 12, 24], and text_features/<i> [3, 16] for eos_token_id 50 and 2

    tokenizer                   tokenizer.json as transformers' CLIPTokenizer writes it: CLIP's alphabet, a few merges
    texts [7], text_ids [7, 77] texts and their ids, cut and filled to 77
    embeddings [7, 16]          of unit length, of the texts

    picture/<i>, crop/<i>       pictures uint8 [H, W, 3] and what OpenAI's preprocessing makes of them at size 32, float32 [3, 32, 32]:
                                torchvision's transforms of Pillow images. (transformers' CLIPImageProcessorPil cuts the same where an even
                                number of pixels goes; CLIPImageProcessor also resizes differently, up to 20 of 255 levels here.)

    aesthetic/linear [4], aesthetic/improved [4]   scores of unit_length(normal("embeddings", 4, 768)); weights are networks.weights'
    manifest/<model>            names and shapes of CLIP's weights, a line each
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from networks import normal, weights
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.networks.clip.image_processing_pil_clip import CLIPImageProcessorPil

TINY = {
    "text_config": {
        "vocab_size": 528, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "hidden_act": "quick_gelu", "eos_token_id": 2, "bos_token_id": 0,
    },
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
    },
    "projection_dim": 16,
}  # fmt: skip
PUBLISHED = {
    "vit_b_32": {},
    "vit_l_14": {
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
        },
        "projection_dim": 768,
    },
}  # fmt: skip
MERGES = ["l a", "la k", "lak e</w>", "a t</w>", "d u", "s k</w>", "du sk</w>", "h i", "l l", "hi ll", "o v", "e r</w>", "a n", "an d</w>"]
TEXTS = [
    "a lake at dusk",
    "A LAKE,  over\n the hills and 27 piers!!",
    "don't paint it's lake's we've hills",
    "Dämmerung über dem See — 山水 🏔",
    "",
    "hill " * 100,
    "two<|endoftext|>texts",
]


def shapes(model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def set_weights(model):
    arrays = weights(shapes(model))
    model.load_state_dict({name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()})
    return model.double().eval()


def tokens() -> dict[str, np.ndarray]:
    alphabet = sorted(ByteLevel.alphabet())
    entries = [*alphabet, *(f"{c}</w>" for c in alphabet), *(merge.replace(" ", "") for merge in MERGES)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(merge.split()) for merge in MERGES]
    tokenizer = CLIPTokenizer({entry: i for i, entry in enumerate(entries)}, merges, model_max_length=77)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        stored = json.loads((Path(folder) / "tokenizer.json").read_text())
    ids = tokenizer(TEXTS, padding="max_length", truncation=True)["input_ids"]
    return {"tokenizer": json.dumps(stored, separators=(",", ":")), "texts": np.array(TEXTS), "text_ids": np.array(ids, np.int32)}


def towers() -> dict[str, np.ndarray]:
    config = CLIPConfig(**TINY)
    ids = np.random.RandomState(0).randint(51, 500, (3, 12))
    ids[0, [4, 5, 9]] = 50  # the first of several ends a text
    ids[1, 7] = 50
    ids[2, 11] = 50
    ids[:, 3] = 527  # the highest id
    model = set_weights(CLIPModel(config))
    arrays = {"config": config.to_json_string(), "ids": ids.astype(np.int32)}
    arrays["image_features"] = model.get_image_features(torch.from_numpy(normal("pixels", 2, 3, 32, 32)).double()).pooler_output
    for eos in (50, 2):  # 2: older files' way to say that the highest id ends a text
        model.text_model.eos_token_id = eos
        outputs = model.get_text_features(torch.from_numpy(ids))
        arrays |= {"text_states": outputs.last_hidden_state, f"text_features/{eos}": outputs.pooler_output}
    arrays |= (tokenized := tokens())
    arrays["embeddings"] = model(torch.from_numpy(tokenized["text_ids"]).long(), torch.zeros(1, 3, 32, 32).double()).text_embeds
    return {name: value.numpy().astype(np.float32) if torch.is_tensor(value) else value for name, value in arrays.items()}


def pictures() -> dict[str, np.ndarray]:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    bicubic = InterpolationMode.BICUBIC
    transform = Compose([Resize(32, bicubic), CenterCrop(32), ToTensor(), Normalize(processor.image_mean, processor.image_std)])
    arrays = {}
    for i, (height, width) in enumerate(((45, 60), (101, 37), (20, 27))):  # 10 columns are cut off, 55 rows, 11 columns
        picture = np.uint8((128 + 60 * normal(f"picture {i}", height, width, 3)).clip(0, 255))
        arrays |= {f"picture/{i}": picture, f"crop/{i}": transform(Image.fromarray(picture)).numpy()}
    assert np.allclose(arrays["crop/0"], processor(arrays["picture/0"], return_tensors="np")["pixel_values"][0], atol=1e-5)
    return arrays


class Improved(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear, dropout = torch.nn.Linear, torch.nn.Dropout
        self.layers = torch.nn.Sequential(
            linear(768, 1024), dropout(0.2), linear(1024, 128), dropout(0.2), linear(128, 64), dropout(0.1), linear(64, 16), linear(16, 1)
        )

    def forward(self, x):
        return self.layers(x)


def aesthetics() -> dict[str, np.ndarray]:
    embeddings = torch.from_numpy(normal("embeddings", 4, 768)).double()
    embeddings = embeddings / embeddings.norm(dim=1, keepdim=True)
    predictors = {"linear": torch.nn.Linear(768, 1), "improved": Improved()}
    return {f"aesthetic/{name}": set_weights(model)(embeddings)[:, 0].detach().numpy() for name, model in predictors.items()}


def manifests() -> dict[str, str]:
    with torch.device("meta"):
        models = {name: CLIPModel(CLIPConfig(**config)) for name, config in PUBLISHED.items()}
    return {f"manifest/{name}": "\n".join(f"{n} {list(s)}" for n, s in sorted(shapes(model).items())) for name, model in models.items()}


def main():
    with torch.no_grad():
        arrays = towers() | pictures() | aesthetics() | manifests()
    np.savez_compressed(Path(__file__).with_name("clip.npz"), **arrays)


if __name__ == "__main__":
    main()
