"""The captions of training pairs, as a text encoder takes them or has read them."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from datasets.pairs import Pair
from models.networks.clip import CONTEXT_LENGTH
from models.networks.text_encoder import Words, load_own_tokenizer, save_tokenizer, train_tokenizer
from utils.checkpoint import latest_training_state, module_arrays
from utils.errors import UserError
from utils.rows import digest, measured

BATCH = 8  # captions read at once
Told = Callable[[str], dict[str, np.ndarray]]  # of a caption, what an example of it has


def all_captions(pairs: Iterable[Pair]) -> list[str]:
    """All of them, each once, in a fixed order; the empty one is always among them."""
    return sorted({"", *(caption for pair in pairs for caption in pair.captions)})


def check_captions(pairs: list[Pair]) -> str:
    """How many pictures have captions, in words. Raises UserError where none has."""
    described = sum(bool(pair.captions) for pair in pairs)
    if not described:
        raise UserError(
            "None of the training pictures has a caption, and --unet_words trains on them: put captions.json beside the photos' folder "
            '({"<photo>": "…", …}), or give --unet_words 0'
        )
    return f"{described} of {len(pairs)} pictures"


def own_tokenizer(run: Path, stage: str, pairs: list[Pair], vocabulary: int) -> Tokenizer:
    """The tokenizer of a run's own text encoder: the run's, where the stage has begun, else one that is trained on the captions of pairs
    and kept in the run. Raises UserError where it is gone."""
    if latest_training_state(run / "state" / stage) is None:
        save_tokenizer(train_tokenizer([text for pair in pairs for text in pair.captions], vocabulary), run)
    return load_own_tokenizer(run)


def as_tokens(words: Words, captions: list[str]) -> Told:
    """For a text encoder that is trained: the ids of a caption's tokens, int32 [77]."""
    ids = dict(zip(captions, words.ids(captions), strict=True))
    return lambda text: {"ids": ids[text]}


def as_states(words: Words, captions: list[str], folder: Path) -> Told:
    """For one that is frozen: states float32 [77, C] and pooled [C] of a caption, read once and kept in `folder` (utils/rows.py).

    The file is named after the text encoder's weights; those of others are removed.
    """
    identity = hashlib.sha256(words.tokenizer.to_str().encode())
    for name, array in sorted(module_arrays(words.encoder).items()):
        identity.update(name.encode() + array.tobytes())
    path = folder / f"{identity.hexdigest()[:16]}.words"
    for other in folder.glob("*.words"):
        if other != path:
            other.unlink(missing_ok=True)
    channels = words.encoder.config.hidden_size
    row = np.dtype([("states", "<f2", (CONTEXT_LENGTH, channels)), ("pooled", "<f4", (channels,))])

    def read(indices: list[int]) -> np.ndarray:
        told = words.told([captions[i] for i in indices])
        rows = np.empty(len(indices), row)
        rows["states"], rows["pooled"] = told["states"], told["pooled"]
        return rows

    rows = measured(path, [digest(text.encode()) for text in captions], row, read, BATCH, "reading captions")
    places = {text: i for i, text in enumerate(captions)}

    def told(text: str) -> dict[str, np.ndarray]:
        stored = rows[places[text]]
        return {"states": stored["states"].astype(np.float32), "pooled": np.array(stored["pooled"])}

    return told
