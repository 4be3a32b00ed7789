"""CLIP (Radford et al. 2021): pictures and texts as vectors whose angle says how well they go together.

Names and `config.json` as transformers' CLIPModel: `openai/clip-vit-base-patch32` and `openai/clip-vit-large-patch14` load from their
folders. OpenAI's own .pt files are TorchScript programs with other names, and are not read.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from models.networks.layers import LayerNorm, Linear, check_parts
from models.networks.recompute import recomputed
from models.ops.attention import scaled_dot_product_attention
from models.ops.transpose import swap_last_axes
from utils.checkpoint import load_frozen, read_weights
from utils.errors import UserError

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # of the RGB values, 0..1, that CLIP was trained on
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
CONTEXT_LENGTH = 77  # tokens of every text, with the first and the last
START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"


@dataclass
class CLIPTextConfig:
    """`text_config` of transformers' config.json. The defaults are ViT-B/32's."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = CONTEXT_LENGTH
    hidden_act: str = "quick_gelu"  # a key of ACTIVATIONS
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407  # end of text; 2 in older files, where the highest id of a text is meant


@dataclass
class CLIPVisionConfig:
    """`vision_config` of transformers' config.json. The defaults are ViT-B/32's."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224  # pixels a side
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclass
class CLIPConfig:
    text_config: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    vision_config: CLIPVisionConfig = field(default_factory=CLIPVisionConfig)
    projection_dim: int = 512  # numbers of an embedding


VIT_B_32 = CLIPConfig()
VIT_L_14 = CLIPConfig(
    CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12),
    CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14),
    projection_dim=768,
)

ACTIVATIONS = {
    "quick_gelu": lambda x: x * jt.sigmoid(1.702 * x),  # OpenAI's (Hendrycks & Gimpel 2016, section 2)
    "gelu": nn.gelu,
}

# ------------------------------------------------------------------------------------------------------------- networks


def causal_attention(q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
    """Attention of each position to itself and those before it: q, k, v [B, heads, N, D] → [B, heads, N, D].

    In plain Jittor: the fused kernel knows no mask, and a text has few tokens.
    """
    n = q.shape[2]
    later = jt.array(np.triu(np.full((n, n), -1e9, np.float32), 1))  # finite, as the kernels compute with -ffast-math
    rows_q, rows_k, rows_v = (t.float32().reshape(-1, *t.shape[2:]) for t in (q, k, v))
    scores = jt.matmul(rows_q, swap_last_axes(rows_k)) / math.sqrt(q.shape[-1])  # [B·heads, N, N]
    return jt.matmul(nn.softmax(scores + later, dim=-1), rows_v).reshape(q.shape).cast(q.dtype)


class CLIPAttention(nn.Module):
    """Multi-head self-attention of [B, N, C]."""

    def __init__(self, channels: int, heads: int, causal: bool):
        super().__init__()
        check_parts(channels, heads, "heads")
        self.q_proj = Linear(channels, channels)
        self.k_proj = Linear(channels, channels)
        self.v_proj = Linear(channels, channels)
        self.out_proj = Linear(channels, channels)
        self._heads = heads
        self._attend = causal_attention if causal else scaled_dot_product_attention

    def execute(self, x: jt.Var) -> jt.Var:
        q, k, v = (project(x) for project in (self.q_proj, self.k_proj, self.v_proj))  # [B, N, C] each
        q, k, v = (t.reshape(t.shape[0], t.shape[1], self._heads, -1).transpose(0, 2, 1, 3) for t in (q, k, v))
        y = self._attend(q, k, v)  # [B, heads, N, C/heads]
        return self.out_proj(y.transpose(0, 2, 1, 3).reshape(x.shape))


class CLIPMLP(nn.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig):
        super().__init__()
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)
        self._activation = ACTIVATIONS[config.hidden_act]

    def execute(self, x: jt.Var) -> jt.Var:
        return self.fc2(self._activation(self.fc1(x)))


class CLIPEncoderLayer(nn.Module):
    """Self-attention, then two linear maps; each with layer norm before and residual after."""

    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool):
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = CLIPAttention(config.hidden_size, config.num_attention_heads, causal)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = CLIPMLP(config)

    def execute(self, x: jt.Var) -> jt.Var:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nn.Module):
    def __init__(self, config: CLIPTextConfig | CLIPVisionConfig, causal: bool):
        super().__init__()
        self.layers = nn.ModuleList([CLIPEncoderLayer(config, causal) for _ in range(config.num_hidden_layers)])

    def execute(self, x: jt.Var) -> jt.Var:
        for layer in self.layers:
            x = recomputed(layer, x)
        return x


class CLIPTextEmbeddings(nn.Module):
    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def execute(self, ids: jt.Var) -> jt.Var:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class CLIPTextModel(nn.Module):
    """Token ids, integers [B, N], → last hidden states [B, N, C] after the final norm. Padding is not masked: the causal mask
    keeps it from the tokens before it."""

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self.embeddings = CLIPTextEmbeddings(config)
        self.encoder = CLIPEncoder(config, causal=True)
        self.final_layer_norm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def execute(self, ids: np.ndarray) -> jt.Var:
        return self.final_layer_norm(self.encoder(self.embeddings(jt.array(ids))))


class CLIPVisionEmbeddings(nn.Module):
    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        positions = (config.image_size // config.patch_size) ** 2 + 1
        self.class_embedding = jt.zeros(config.hidden_size)
        self.patch_embedding = nn.Conv(3, config.hidden_size, config.patch_size, config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(positions, config.hidden_size)

    def execute(self, x: jt.Var) -> jt.Var:
        patches = swap_last_axes(self.patch_embedding(x).flatten(2))  # [B, (S/P)², C]
        first = self.class_embedding.expand(x.shape[0], 1, -1)
        return jt.concat([first, patches], dim=1) + self.position_embedding.weight  # [B, 1 + (S/P)², C]


class CLIPVisionModel(nn.Module):
    """Pictures [B, 3, S, S] as `preprocess` makes them → the class token's last hidden state [B, C], normalised."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)  # the published spelling
        self.encoder = CLIPEncoder(config, causal=False)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def execute(self, x: jt.Var) -> jt.Var:
        x = self.encoder(self.pre_layrnorm(self.embeddings(x)))
        return self.post_layernorm(x[:, 0])


class CLIPModel(nn.Module):
    """Both towers and their maps into one space of D = `config.projection_dim` numbers."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self._config = config
        self.logit_scale = jt.array([math.log(1 / 0.07)])  # of the training loss; unused here
        self.text_model = CLIPTextModel(config.text_config)
        self.vision_model = CLIPVisionModel(config.vision_config)
        self.visual_projection = Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = Linear(config.text_config.hidden_size, config.projection_dim, bias=False)

    @property
    def config(self) -> CLIPConfig:
        return self._config

    def image_features(self, x: jt.Var) -> jt.Var:
        """Pictures [B, 3, S, S] as `preprocess` makes them → [B, D], of any length."""
        return self.visual_projection(self.vision_model(x))

    def text_features(self, ids: np.ndarray) -> jt.Var:
        """Token ids, integers [B, N] → [B, D], of any length: the last hidden state at the end of the text."""
        end = ends_of_texts(ids, self.config.text_config)
        return self.text_projection(self.text_model(ids)[np.arange(len(ids)), end])


def ends_of_texts(ids: np.ndarray, config: CLIPTextConfig) -> np.ndarray:
    """Where the texts of token ids, integers [B, N], end: [B]."""
    eos = config.eos_token_id
    return ids.argmax(axis=1) if eos == 2 else (ids == eos).argmax(axis=1)  # the first of several


# ---------------------------------------------------------------------------------------------------------------- files


def load_clip(folder: str | Path) -> CLIPModel:
    """The network of a folder in transformers' layout, config.json and weights. Its weights take no gradients. Raises UserError."""
    folder = Path(folder)
    model = CLIPModel(read_config(folder / "config.json"))
    # Older files hold the numbers 0, 1, 2, … beside the embeddings that they count.
    arrays = {name: array for name, array in read_weights(folder).items() if not name.endswith(".position_ids")}
    load_frozen(model, arrays, folder)
    return model


def read_config(path: Path) -> CLIPConfig:
    """The configuration of a CLIPModel from transformers' config.json. Raises UserError."""

    def read(stored: dict) -> CLIPConfig:
        text, vision = stored["text_config"], stored["vision_config"]
        parts = {
            "text_config": CLIPTextConfig(**known(CLIPTextConfig, text)),
            "vision_config": CLIPVisionConfig(**known(CLIPVisionConfig, vision)),
        }
        return CLIPConfig(**known(CLIPConfig, stored) | parts)

    config = reading_config(path, "CLIPModel", read)
    check_activations(path, config.text_config, config.vision_config)
    return config


def read_text_config(path: Path) -> CLIPTextConfig:
    """The configuration of the text tower from transformers' config.json of a CLIPTextModel, or of a CLIPModel. Raises UserError."""
    config = reading_config(
        path, "CLIPTextModel", lambda stored: CLIPTextConfig(**known(CLIPTextConfig, stored.get("text_config", stored)))
    )
    check_activations(path, config)
    return config


def known(config_class: type, stored: dict) -> dict:
    """The fields of a configuration that there are here."""
    return {name: stored[name] for name in (field.name for field in fields(config_class)) if name in stored}


def reading_config(path: Path, network: str, read: Callable[[dict], CLIPConfig | CLIPTextConfig]) -> CLIPConfig | CLIPTextConfig:
    """read(what the JSON file at `path` holds). Raises UserError."""
    try:
        return read(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; a folder of transformers' {network} is expected") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the configuration of transformers' {network} ({error!r}): give the folder of one") from error


def check_activations(path: Path, *parts: CLIPTextConfig | CLIPVisionConfig) -> None:
    for part in parts:
        if part.hidden_act not in ACTIVATIONS:
            raise UserError(f"{path}: hidden_act {part.hidden_act} is not known here, only {', '.join(ACTIVATIONS)}")


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder, its tokenizer.json or vocab.json and merges.txt, cutting and filling texts to 77 tokens. Raises UserError.

    Texts are filled with the token that special_tokens_map.json beside it names, as Stable Diffusion 2's does, else with the end-of-text
    token, as for OpenAI's models and Stable Diffusion 1.
    """
    folder = Path(folder)
    path = folder / "tokenizer.json"
    apart = folder / "vocab.json", folder / "merges.txt"
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8")) if path.is_file() or not apart[0].is_file() else of_merges(*apart)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; copy it there from where the weights come from") from error
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path if path.is_file() else apart[0]} is damaged ({error}): download or copy it again") from error
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise UserError(f"{path} is not CLIP's: it has no token {END_OF_TEXT}")
    padding = padding_token(folder / "special_tokens_map.json")
    if tokenizer.token_to_id(padding) is None:
        raise UserError(f"{folder / 'special_tokens_map.json'} fills texts with {padding}, which {path} does not know: copy both again")
    tokenizer.add_special_tokens([AddedToken(padding, normalized=False, special=True)])  # wherever a text has it, as transformers does
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(length=CONTEXT_LENGTH, pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    return tokenizer


def of_merges(vocabulary: Path, merges: Path) -> Tokenizer:
    """CLIP's tokenizer from the two files that it was published as. Raises what the library raises."""
    bpe = models.BPE.from_file(str(vocabulary), str(merges), unk_token=END_OF_TEXT, end_of_word_suffix="</w>", continuing_subword_prefix="")
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(words, behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (START_OF_TEXT, END_OF_TEXT)])
    start, end = ((token, tokenizer.token_to_id(token)) for token in (START_OF_TEXT, END_OF_TEXT))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def padding_token(path: Path) -> str:
    """The token that special_tokens_map.json fills texts with; the end-of-text token where there is no such file. Raises UserError."""
    try:
        token = json.loads(path.read_text("utf-8")).get("pad_token", END_OF_TEXT) if path.is_file() else END_OF_TEXT
        return token["content"] if isinstance(token, dict) else str(token)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): download or copy it again") from error


# ----------------------------------------------------------------------------------------------------------- embeddings


def preprocess(pictures: Sequence[np.ndarray], size: int = 224) -> np.ndarray:
    """Pictures uint8 [H, W, 3] → float32 [B, 3, size, size]: shorter side to `size`, middle cut out, CLIP's mean and deviation taken off.

    As OpenAI's: resized by Pillow's bicubic filter, which is widened (antialiased) to shrink. The pictures may differ in size.
    """
    crops = np.empty((len(pictures), size, size, 3), np.uint8)
    for crop, picture in zip(crops, pictures, strict=True):
        height, width = picture.shape[:2]
        short = min(height, width)
        width, height = size * width // short, size * height // short
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        crop[:] = resized[top : top + size, left : left + size]
    return ((crops / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2)


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Texts → token ids, int32 [B, 77]. What is too long is cut off."""
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(texts)], np.int32)


def encode_images(model: CLIPModel, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """A batch of pictures uint8 [B, H, W, 3] (or a list of different sizes) → embeddings of unit length, float32 [B, D]."""
    with jt.no_grad():
        features = model.image_features(jt.array(preprocess(pictures, model.config.vision_config.image_size)))
    return unit_length(features.numpy())


def encode_texts(model: CLIPModel, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """A batch of texts → embeddings of unit length, float32 [B, D]. For hidden states: `model.text_model(tokenize(tokenizer, texts))`."""
    with jt.no_grad():
        features = model.text_features(tokenize(tokenizer, texts))
    return unit_length(features.numpy())


def unit_length(x: np.ndarray) -> np.ndarray:
    """Rows [B, D] divided by their lengths."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clip_i(pictures: np.ndarray, references: np.ndarray) -> float:
    """CLIP-I: mean cosine of the angles between pictures and their references, both embeddings of unit length [B, D].

    −1..1, not times 100 as some report it. Raises ValueError if the shapes differ.
    """
    if pictures.shape != references.shape:
        raise ValueError(f"embeddings {pictures.shape} and {references.shape} are no pairs")
    return float((pictures * references).sum(axis=1).mean())


clip_t = clip_i  # CLIP-T: the same of pictures and their texts
