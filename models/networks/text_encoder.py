"""From captions to what the conditioner is told of them: a CLIP text tower and its tokenizer.

Either a published tower, which is frozen (`load_text_encoder`), or a small one of a run's own, which is trained together with the UNet from
the captions at hand (`TextEncoder`, `train_tokenizer`). Names of weights as in transformers' CLIPTextModel.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jittor as jt
import numpy as np
from jittor import nn
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from models.networks.clip import (
    END_OF_TEXT,
    START_OF_TEXT,
    CLIPTextConfig,
    CLIPTextModel,
    ends_of_texts,
    load_tokenizer,
    read_text_config,
    tokenize,
)
from models.networks.layers import autocast
from utils.checkpoint import load_frozen, read_weights
from utils.errors import UserError
from utils.files import atomic_write

END_ID = 1  # of the end of a text, in a tokenizer of `train_tokenizer`
LEAST_VOCABULARY = 2 + 256  # tokens of such a tokenizer: start and end of a text, and any byte


class TextEncoder(nn.Module):
    """Token ids, integers [B, 77] → the last hidden state of every token [B, 77, C], and that at the end of the text [B, C].

    The states of the tokens that fill a text up are among them: CLIP does not mask them, and Stable Diffusion's UNet attends to all 77.
    """

    def __init__(self, config: CLIPTextConfig):
        super().__init__()
        self._config = config
        self.text_model = CLIPTextModel(config)

    @property
    def config(self) -> CLIPTextConfig:
        return self._config

    def execute(self, ids: np.ndarray) -> tuple[jt.Var, jt.Var]:
        states = self.text_model(ids).float32()
        at_end = np.zeros((*ids.shape, 1), np.float32)
        at_end[np.arange(len(ids)), ends_of_texts(ids, self.config)] = 1
        return states, (states * jt.array(at_end)).sum(dim=1)


def small_text_encoder(vocabulary: int, channels: int, layers: int, heads: int) -> TextEncoder:
    """A tower to be trained, for a tokenizer of `train_tokenizer` with so many tokens at most."""
    encoder = TextEncoder(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=channels, intermediate_size=4 * channels, num_hidden_layers=layers,
            num_attention_heads=heads, eos_token_id=END_ID,
        )
    )  # fmt: skip
    embeddings = encoder.text_model.embeddings
    for embedding, deviation in ((embeddings.token_embedding, 0.3), (embeddings.position_embedding, 0.05)):
        embedding.weight.update(jt.randn(embedding.weight.shape) * deviation)  # which words there are matters more than where
    return encoder


@dataclass
class Words:
    """Captions in, what the conditioner's words take out."""

    tokenizer: Tokenizer
    encoder: TextEncoder

    def ids(self, captions: list[str]) -> np.ndarray:
        """int32 [B, 77]; what is too long is cut off."""
        return tokenize(self.tokenizer, captions)

    def told(self, captions: list[str]) -> dict[str, np.ndarray]:
        """states [B, 77, C] and pooled [B, C], float32, without gradients. The empty caption stands for one that is left out."""
        with jt.no_grad(), autocast("float32"):
            states, pooled = self.encoder(self.ids(captions))
            return {"states": states.numpy(), "pooled": pooled.numpy()}


def load_text_encoder(folder: str | Path) -> Words:
    """A published tower, whose weights take no gradients: of a folder of transformers' CLIPTextModel or CLIPModel, or of a whole Stable
    Diffusion, with its tokenizer in the same folder or in tokenizer/ in or beside it. Raises UserError."""
    folder = text_encoder_folder(folder)
    encoder = TextEncoder(read_text_config(folder / "config.json"))
    arrays = {name: array for name, array in read_weights(folder).items() if not name.endswith(".position_ids")}
    own = {name: array for name, array in arrays.items() if name.startswith("text_model.")}
    load_frozen(encoder, own or {f"text_model.{name}": array for name, array in arrays.items()}, folder)  # transformers 5 leaves it out
    places = (folder, folder / "tokenizer", folder.parent / "tokenizer")
    files = ("tokenizer.json", "vocab.json")
    return Words(load_tokenizer(next((place for place in places if any((place / file).is_file() for file in files)), folder)), encoder)


def text_encoder_folder(folder: str | Path) -> Path:
    """Where the tower is in a folder that may be a whole Stable Diffusion."""
    return Path(folder) / "text_encoder" if (Path(folder) / "text_encoder" / "config.json").is_file() else Path(folder)


def text_channels(folder: str | Path) -> int:
    """Of the states of a published tower. Raises UserError."""
    return read_text_config(text_encoder_folder(folder) / "config.json").hidden_size


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, byte pairs learnt from captions (Sennrich et al. 2016; over bytes, so that it can tell
    any text). The same captions give the same one. It fills and cuts texts as CLIP's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [START_OF_TEXT, END_OF_TEXT]  # the first two ids
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_OF_TEXT} $A {END_OF_TEXT}", special_tokens=[(START_OF_TEXT, 0), (END_OF_TEXT, END_ID)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True).encode())


def load_own_tokenizer(folder: Path) -> Tokenizer:
    """The one that `save_tokenizer` wrote. Raises UserError."""
    try:
        return load_tokenizer(folder)
    except UserError as error:
        raise UserError(f"{error}. It belongs to the run's text encoder, which understands no other") from error
