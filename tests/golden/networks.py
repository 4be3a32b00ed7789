"""The small networks that export_networks.py measures in diffusers and the tests measure here: configurations, weights, inputs.

Weights and inputs are drawn from a generator seeded by their names, so that they need not be stored.
"""

import math
import zlib

import numpy as np

VAE = {"block_out_channels": (32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8}
UNETS = {
    "sd1": {  # attention at all levels but the last, one number of heads, 1x1 convolutions around the transformers
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "sd2": {  # a number of heads for each level, linear maps around the transformers, two residual blocks a level
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 2,
        "cross_attention_dim": 24,
        "attention_head_dim": (2, 8),
        "use_linear_projection": True,
        "norm_num_groups": 8,
    },
    "ours": {  # no attention at the finest level, a vector beside the timestep, further input channels
        "in_channels": 7,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 12,
    },
}
TIMESTEPS = np.array([3, 871])


def normal(name: str, *shape: int) -> np.ndarray:
    """Standard normal numbers that the name decides. (RandomState: the one generator whose numbers NumPy promises to keep.)"""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights by name: matrices that keep variances, norms near 1, biases that matter."""

    def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
        array = normal(name, *shape)
        if len(shape) > 1:
            return array / np.float32(math.sqrt(math.prod(shape[1:])))
        return np.float32(0.1) * array + np.float32(name.endswith("weight"))

    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def vae_inputs() -> dict[str, np.ndarray]:
    return {"x": normal("x", 2, 3, 32, 40), "z": normal("z", 2, 4, 8, 10)}


def unet_inputs(case: str) -> dict[str, np.ndarray]:
    """The arguments of the UNet's forward pass in tensors."""
    config = UNETS[case]
    inputs = {"sample": normal("sample", 2, config.get("in_channels", 4), 8, 12), "encoder_hidden_states": normal("context", 2, 7, 24)}
    if "class_embed_type" in config:
        inputs["class_labels"] = normal("labels", 2, config["projection_class_embeddings_input_dim"])
    return inputs


def gradient_summary(gradients: dict[str, np.ndarray]) -> np.ndarray:
    """[P, 2]: for each parameter in order of names, the gradient's product with a random direction, and its norm."""
    pairs = ((name, gradients[name].astype(np.float64)) for name in sorted(gradients))
    return np.array([((g * normal(f"direction of {name}", *g.shape)).sum(), np.sqrt((g * g).sum())) for name, g in pairs])


SEGFORMER = {
    "hidden_sizes": (8, 16, 16, 24), "depths": (1, 2, 1, 1), "num_attention_heads": (1, 2, 2, 3), "sr_ratios": (8, 4, 2, 1),
    "decoder_hidden_size": 24,
}  # fmt: skip


def segformer_input() -> np.ndarray:
    return normal("photo", 2, 3, 48, 64)


def inception_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """`weights`, with positive variances, and convolutions that keep the scale through ReLU."""
    arrays = weights(shapes)
    for name, array in arrays.items():
        if name.endswith("running_var"):
            array[:] = 1 + np.abs(array)
        elif array.ndim == 4:
            array *= np.float32(math.sqrt(2))
    return arrays


def lite_pictures(name: str) -> np.ndarray:
    """Patches of colour with grain, uint8 [2, 3, H, W]."""
    height, width = {"even": (64, 96), "odd": (77, 99)}[name]
    patches = normal(f"{name} patches", 2, 3, 5, 7).repeat(16, 2).repeat(16, 3)[:, :, :height, :width]
    return np.uint8((128 + 50 * patches + 20 * normal(f"{name} grain", 2, 3, height, width)).clip(0, 255))


RCAN = {"n_resgroups": 2, "n_resblocks": 3, "n_feats": 16, "reduction": 4}


def rcan_input() -> np.ndarray:
    """Patches of colour with grain, float32 [2, 3, 12, 20] in 0..255, not whole numbers."""
    patches = normal("rcan patches", 2, 3, 3, 5).repeat(4, 2).repeat(4, 3)
    return (128 + 50 * patches + 10 * normal("rcan grain", 2, 3, 12, 20)).clip(0, 255)


GAN = {
    "size": (48, 32), "channels": (12, 12, 8, 16), "hidden": 6, "norm": "group", "style": 5, "style_channels": (8, 6, 8),
    "style_size": 16, "style_norm": "group",
}  # fmt: skip


def gan_inputs() -> dict[str, np.ndarray]:
    """Masks with few classes, photos, edges and references, and noise."""
    mask = np.random.RandomState(3).choice([0, 3, 7, 11], (2, 8, 12)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    pictures = {name: np.tanh(normal(name, 2, 3, 32, 48)) for name in ("image", "edge")}
    return {"mask": mask, "reference": np.tanh(normal("reference", 2, 3, 16, 16)), "z": normal("z", 2, 5), **pictures}


LGGAN = {"channels": 8, "blocks": 2}


def lggan_inputs() -> dict[str, np.ndarray]:
    """mask: uint8 [2, 64, 96], six classes in small patches; image: float32 [2, 3, 64, 96].

    Instance norm divides by the little that differs in a large patch of one class, and multiplies the rounding of float32 by that.
    """
    mask = np.uint8(np.abs(normal("patches", 2, 16, 24) * 3)) % 6 * 5
    return {"mask": mask.repeat(4, 1).repeat(4, 2), "image": np.tanh(normal("photo", 2, 3, 8, 12)).repeat(8, 2).repeat(8, 3)}


# Layers of the UNet "ours" that a low-rank adapter is beside: one of every kind
LORA_LAYERS = (
    *(f"down_blocks.1.attentions.0.transformer_blocks.0.{end}" for end in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")),
    *(f"down_blocks.1.attentions.0.transformer_blocks.0.{end}" for end in ("attn2.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj")),
    "down_blocks.1.attentions.0.proj_in",  # a 1x1 convolution
    "down_blocks.1.resnets.0.conv1",  # one of 3x3
    "down_blocks.0.downsamplers.0.conv",  # one with a stride
)
LORA = {"rank": 2, "alpha": 3.0}
CONTROL = {"conditioning_channels": 29, "conditioning_embedding_out_channels": (8, 8, 16)}  # beside the UNet "ours"


def control_mask() -> np.ndarray:
    """uint8 [2, 32, 48], four times the size of the UNet's inputs; in some places no class is told."""
    mask = np.random.RandomState(5).choice([0, 3, 11, 28, 255], (2, 8, 12)).astype(np.uint8)
    return mask.repeat(4, 1).repeat(4, 2)
