"""The pictures that are scored, and what several metrics measure of them once.

What has been measured is kept in rows (utils/rows.py), so that a second scoring takes seconds and one that was killed goes on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.landscape import NUM_CLASSES, read_image, read_mask
from datasets.test_pairs import TestPair
from models.metrics.mask_accuracy import Judge, confusion
from models.networks.clip import encode_images, encode_texts, load_clip, load_tokenizer
from models.networks.efficientnet_lite import FEATURES as LITE_FEATURES
from models.networks.efficientnet_lite import lite_features, load_efficientnet_lite
from models.networks.inception import FEATURES as INCEPTION_FEATURES
from models.networks.inception import inception_features, load_inception
from models.networks.weights import INCEPTION, LITE0, SOURCES, MissingWeights, file_digest, find_any, find_weights, packaged_weights
from utils.checkpoint import weights_in
from utils.image import resize_mask
from utils.rows import Rows, digest, measured, writable_folder

SMALL = (256, 192)  # the size in which what the judge sees is kept for the report
BATCH = 16  # pictures measured at once

PREDICTORS = {  # aesthetic predictors that go with a CLIP; in both, the better comes first
    "clip-vit-large-patch14": ("sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth"),
    "clip-vit-base-patch32": ("sa_0_4_vit_b_32_linear.pth",),
}


@dataclass
class Pictures:
    """What is scored, and with what."""

    pairs: list[TestPair]
    folder: Path  # of the results, each the `file` of its pair
    photos: list[Path]  # the training pictures, which FID compares with
    truths: Path | None  # folder of true photos of the masks, of the same names
    judge: Judge | None
    weights: Path
    style_metric: str
    cache: Path
    size: tuple[int, int]  # (width, height) of every result
    photo_cache: Path = field(init=False)

    def __post_init__(self):
        # beside the photos of a data set, for all that will be scored against them
        folder = self.photos[0].parent
        self.photo_cache = writable_folder(folder.parent, self.cache) if folder.name == "imgs" else self.cache

    @property
    def results(self) -> list[Path]:
        return [self.folder / pair.file for pair in self.pairs]

    @property
    def true_photos(self) -> list[Path]:
        return [self.truths / pair.file for pair in self.pairs]

    def have(self, what: str) -> bool:
        """Whether there are masks or references, true photos ("truths"), or captions of some."""
        return {
            "masks": None not in [pair.mask for pair in self.pairs],
            "references": None not in [pair.reference for pair in self.pairs],
            "captions": any(pair.caption for pair in self.pairs),
            "truths": self.truths is not None,
        }[what]

    @property
    def likenesses(self) -> list[Path]:
        """What each is to be like: its reference, or where there are none the true photo; or nothing."""
        if self.have("references"):
            return [pair.reference for pair in self.pairs]
        return self.true_photos if self.have("truths") else []

    @cached_property
    def keys(self) -> list[bytes]:
        return [digest(path) for path in self.results]

    @cached_property
    def seen(self) -> Rows:
        """What the judge sees in each."""
        return seen_by(self.judge, self.results, [pair.mask for pair in self.pairs], self.size, self.cache)

    @cached_property
    def clip(self) -> Path:
        """The folder of the CLIP that is there, the larger one if both are."""
        (folder,) = find_any(self.weights, [[name] for name in PREDICTORS])
        return folder

    @cached_property
    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """CLIP's, of the results and of what they are to be like, [N, D] each, or [0, D] of nothing."""
        model, both = load_clip(self.clip), self.results + self.likenesses
        row, path = np.dtype((np.float32, (model.config.projection_dim,))), self.cache / f"clip-{short(weights_in(self.clip))}.rows"
        keys = self.keys + [digest(path) for path in self.likenesses]
        rows = measured(path, keys, row, lambda indices: encode_images(model, read_all([both[i] for i in indices])), BATCH, "CLIP")
        return rows[: len(self.pairs)], rows[len(self.pairs) :]

    @property
    def caption_embeddings(self) -> np.ndarray:
        """CLIP's, of the captions, [N, D]."""
        folder, texts = self.clip, [pair.caption for pair in self.pairs]
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise MissingWeights(f"{folder.name}/tokenizer.json: {SOURCES[folder.name]}{folder.name}")
        model, tokenizer = load_clip(folder), load_tokenizer(folder)
        row, path = np.dtype((np.float32, (model.config.projection_dim,))), self.cache / f"clip-{short(weights_in(folder))}-texts.rows"

        def read(indices: list[int]) -> np.ndarray:
            return encode_texts(model, tokenizer, [texts[i] for i in indices])

        return measured(path, [digest(text.encode()) for text in texts], row, read, BATCH, "CLIP, captions")[:]

    @cached_property
    def by_inception(self) -> tuple[Rows, Rows]:
        """Inception's features of the results and of the training photos."""
        (path,) = find_weights(self.weights, INCEPTION)
        network = load_inception(path)
        return self._features("Inception", path, INCEPTION_FEATURES, lambda pictures: inception_features(network, pictures))

    @cached_property
    def by_lite0(self) -> tuple[Rows, Rows]:
        """EfficientNet-lite0's."""
        path = packaged_weights(LITE0)
        network = load_efficientnet_lite("lite0", path)
        return self._features("EfficientNet-lite0", path, LITE_FEATURES, lambda pictures: lite_features(network, pictures))

    @cached_property
    def photo_keys(self) -> list[bytes]:
        return [digest(path) for path in self.photos]

    def _features(self, name: str, weights: Path, count: int, compute: Callable[[list[np.ndarray]], np.ndarray]) -> tuple[Rows, Rows]:
        """`compute` takes pictures uint8 [H, W, 3] to float32 [B, count]."""

        def rows(paths: list[Path], keys: list[bytes], cache: Path, which: str) -> Rows:
            return measured(
                cache / f"{name.lower()}-{short(weights)}.rows",
                keys,
                np.dtype((np.float32, (count,))),
                lambda indices: compute(read_all([paths[i] for i in indices])),
                BATCH,
                f"{name}, {which}",
            )

        return (
            rows(self.results, self.keys, self.cache, "results"),
            rows(self.photos, self.photo_keys, self.photo_cache, "training photos"),
        )


def seen_by(judge: Judge, pictures: list[Path], masks: list[Path], size: tuple[int, int], cache: Path) -> Rows:
    """What the judge sees in pictures, at `size`: `confusion` with their masks and, small, the `labels`. The folder `cache` keeps it."""
    row = np.dtype([("confusion", np.uint32, (NUM_CLASSES, NUM_CLASSES)), ("labels", np.uint8, SMALL[::-1])])

    def look(indices: list[int]) -> np.ndarray:
        rows = np.empty(len(indices), row)
        labels = judge.labels(read_all([pictures[i] for i in indices]), size)
        for k, i in enumerate(indices):
            rows[k]["confusion"] = confusion(read_mask(masks[i], size), labels[k])
            rows[k]["labels"] = resize_mask(labels[k], SMALL)
        return rows

    keys = [digest(digest(picture), mask) for picture, mask in zip(pictures, masks, strict=True)]
    return measured(cache / f"judge-{short(judge.weights)}.rows", keys, row, look, BATCH, "mask accuracy")


def read_all(paths: list[Path]) -> list[np.ndarray]:
    """Photos uint8 [H, W, 3], which may differ in size."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(read_image, paths))


def short(path: Path) -> str:
    """The beginning of a file's digest: rows that another network has measured have another name."""
    return file_digest(path)[:8]
