"""Export segformer.npz: reference values for models/networks/segformer.py, from transformers.

    python tests/golden/export_segformer.py

Written with Python 3.11, torch 2.13.0, transformers 5.23.0. Configuration, weights and inputs are those of networks.py; the weights have
the names of published files. Keys: logits, trained [2, 29, 12, 16] (in evaluation and in training mode), running_mean, running_var [24]
after the latter, gradients [P, 2] (networks.gradient_summary) of the sum of trained · normal("trained"), and names: the weights' names and
shapes in b0 and b5, as JSON.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from networks import SEGFORMER, gradient_summary, normal, segformer_input, weights
from transformers import SegformerConfig, SegformerForSemanticSegmentation

# transformers 5 has other names in memory than published files have; each pair turns one of its names into a published one.
PUBLISHED = [
    (r"segformer\.stages\.(\d+)\.patch_embeddings\.", r"segformer.encoder.patch_embeddings.\1."),
    (r"segformer\.stages\.(\d+)\.layer_norm\.", r"segformer.encoder.layer_norm.\1."),
    (r"segformer\.stages\.(\d+)\.blocks\.(\d+)\.", r"segformer.encoder.block.\1.\2."),
    (r"\.layernorm_before\.", ".layer_norm_1."),
    (r"\.layernorm_after\.", ".layer_norm_2."),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attention.self.sr."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".attention.self.layer_norm."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
    (r"decode_head\.linear_projections\.", "decode_head.linear_c."),
]


def published(name: str) -> str:
    for pattern, replacement in PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def shapes(model) -> dict[str, list[int]]:
    return {published(name): list(tensor.shape) for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def main():
    model = SegformerForSemanticSegmentation(
        SegformerConfig(num_labels=29, drop_path_rate=0, classifier_dropout_prob=0, **SEGFORMER)
    ).double()
    drawn = weights(shapes(model))
    drawn["decode_head.batch_norm.running_var"] = np.abs(drawn["decode_head.batch_norm.running_var"]) + np.float32(0.5)
    state = model.state_dict()
    model.load_state_dict({name: torch.from_numpy(drawn[published(name)]) if published(name) in drawn else state[name] for name in state})

    pixels = torch.from_numpy(segformer_input()).double()
    arrays = {"logits": model.eval()(pixels).logits}
    arrays["trained"] = model.train()(pixels).logits
    (arrays["trained"] * torch.from_numpy(normal("trained", *arrays["trained"].shape))).sum().backward()
    norm = model.decode_head.batch_norm
    arrays |= {"running_mean": norm.running_mean, "running_var": norm.running_var}
    arrays = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in arrays.items()}
    gradients = {published(name): parameter.grad.numpy() for name, parameter in model.named_parameters()}
    arrays["gradients"] = gradient_summary(gradients)

    wide = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 6, 40, 3], "decoder_hidden_size": 768}
    with torch.device("meta"):
        b0, b5 = (SegformerForSemanticSegmentation(SegformerConfig(num_labels=29, **changed)) for changed in ({}, wide))
    arrays["names"] = np.array(json.dumps({"b0": shapes(b0), "b5": shapes(b5)}))
    np.savez_compressed(Path(__file__).with_name("segformer.npz"), **arrays)


if __name__ == "__main__":
    main()
