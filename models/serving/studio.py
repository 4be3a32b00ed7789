"""What the page in the browser asks for: pictures, and the masks of photos. The code that paints is MainTest.py's: the same mask,
reference, name, seed and options give the same bytes.

The methods that return work for a `Worker` are called by any thread; what they return uses Jittor, and is run by one thread alone.
"""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm import tqdm

from datasets.landscape import CHINESE, CLASSES, read_image
from datasets.test_pairs import TestPair, find_photos
from models.metrics.mask_accuracy import Judge
from models.painters.latent_diffusion import LatentDiffusion
from models.painters.pictures import SIZE, finished, picture_seed, usual_color, words_of
from models.serving.preview import LatentColors
from utils.image import COLOR_MATCHES, PALETTE, encode, jpeg
from utils.options import faults, from_stored, is_of, several_and_kind

PREVIEWS = 8  # of one picture, about
FITTED_ON = 12  # photos
MOST_EXAMPLES, MOST_PHOTOS = 24, 60  # to choose from
KEPT = 16  # photos that were sent and may be painted after
TEXTS = ("prompt", "negative_prompt")  # options that are any text and that the page may set: others might name files
NEEDS = dict.fromkeys(("prompt", "negative_prompt", "text_guidance", "text_tone"), "words")  # of a painter, by option
NEEDS |= {"control_weight": "control", "prior_start": "estimate"}
MOST_TEXT = 1000
MOST_WEIGHT = 4  # of an adapter

Work = Callable[[Callable[[dict], None]], dict]


class Unknown(Exception):
    """A request names something that there is not, or asks for what cannot be; says what."""


class Forgotten(Exception):
    """A request names a photo that was sent and is not kept any more."""


@dataclass
class Studio:
    painter: object  # as the head of models/painters/pictures.py says
    options: object  # the painter's, as the command gave them
    color: str  # a key of COLOR_MATCHES
    seed: int
    resized: Callable[..., np.ndarray]  # brings what is painted in another size than SIZE to that
    judge: Judge | None
    examples: list[TestPair]
    photos: list[Path]  # references to choose from
    run: str  # what is painted with, to show
    shipped: bool  # whether that came with the program
    sent: OrderedDict[str, np.ndarray] = field(default_factory=OrderedDict)  # photos at the painter's size, by digest, oldest first
    colors: LatentColors | None = None
    lock: Lock = field(default_factory=Lock)

    @property
    def adapters(self) -> list[tuple[Path, float]]:
        """The adapters that the command has named, with their weights: the page may weigh them otherwise, and name no others."""
        return getattr(self.options, "adapters", [])

    @property
    def in_steps(self) -> bool:
        """Whether a picture comes step by step: there are previews then, and it can be made quickly, and given up half-way."""
        return isinstance(self.painter, LatentDiffusion)

    def warm_up(self) -> None:
        """Compiles all kernels that painting needs, by painting the first example, and learns what latents look like."""
        with tqdm(total=3, desc="getting ready (the first time, kernels are compiled)", bar_format="{desc}: {n_fmt} of {total_fmt}") as bar:
            if self.in_steps:
                chosen = self.photos[:: -(-len(self.photos) // FITTED_ON)]
                self.colors = LatentColors.fitted(self.painter, np.stack([read_image(photo, self.painter.size) for photo in chosen]))
            bar.update()
            reference = read_image(self.photos[0], self.painter.size)
            mask = np.zeros((1, *self.painter.size[::-1]), np.uint8)
            for quick in (True, False):
                if self.in_steps or not quick:
                    self.painting(mask[0], reference, "", self.seed, self.options, self.color, quick)(lambda event: None)
                bar.update()
        if self.judge:
            self.judging(reference)(lambda event: None)

    # ------------------------------------------------------------------------------------------------------- what there is

    def facts(self) -> dict:
        """What the page shows of this studio, for JSON."""
        names, usual = [photo.stem for photo in self.photos], usual_color(self.painter, self.options)
        return {
            "run": self.run,
            "shipped": self.shipped,
            "size": self.painter.size,
            "canvas": SIZE,
            "classes": [
                {"en": english, "zh": chinese, "color": color.tolist()}
                for english, chinese, color in zip(CLASSES, CHINESE, PALETTE, strict=True)
            ],
            "options": [self.described(each) for each in fields(self.options) if self.may_set(each)],
            "adapters": [{"name": path.stem, "weight": weight} for path, weight in self.adapters],
            "color_match": {"choices": ["", *COLOR_MATCHES], "default": "" if self.color == usual else self.color},
            "seed": self.seed,
            "references": names,
            "examples": [{"name": pair.stem, "reference": self.photos.index(pair.reference)} for pair in self.examples],
            "in_steps": self.in_steps,
            "judge": self.judge is not None,
        }

    def described(self, each: Field) -> dict:
        kind = several_and_kind(each)[1].__name__
        return {"name": each.name, "kind": kind, "default": getattr(self.options, each.name), **each.metadata}

    def may_set(self, each: Field) -> bool:
        if each.name in NEEDS and getattr(self.painter, NEEDS[each.name], None) is None:
            return False
        several, kind = several_and_kind(each)
        return not several and (kind in (int, float) or bool(each.metadata["choices"]) or each.name in TEXTS)

    # ---------------------------------------------------------------------------------------------------- what is asked for

    def keep(self, content: bytes, photo: np.ndarray) -> str:
        """Keeps a photo that was sent, at the painter's size, and returns the name to ask for it by."""
        name = sha256(content).hexdigest()[:32]
        with self.lock:
            self.sent[name] = photo
            self.sent.move_to_end(name)
            while len(self.sent) > KEPT:
                self.sent.popitem(last=False)
        return name

    def reference(self, name: int | str) -> np.ndarray:
        """A photo uint8 [H, W, 3] at the painter's size: one of `photos`, by number, or one that was sent. Raises Unknown, Forgotten."""
        if isinstance(name, int):
            if not 0 <= name < len(self.photos):
                raise Unknown("there is no such reference")
            return read_image(self.photos[name], self.painter.size)
        with self.lock:
            if name not in self.sent:
                raise Forgotten("this photo is not here any more: send it again")
            return self.sent[name]

    def chosen(self, given: dict, weights: list[float]) -> object:
        """The painter's options with those that a request gives, and with these weights of the adapters. Raises Unknown."""
        own = [weight for _, weight in self.adapters]
        if len(weights) != len(own) or not all(is_of(float, weight) and abs(weight) <= MOST_WEIGHT for weight in weights):
            raise Unknown(f"a weight from {-MOST_WEIGHT} to {MOST_WEIGHT} is needed for each of the {len(own)} adapters")
        allowed = {each.name for each in fields(self.options) if self.may_set(each)}
        if not given.keys() <= allowed:
            raise Unknown(f"there is no such option; there are {', '.join(sorted(allowed))}")
        if any(isinstance(value, str) and len(value) > MOST_TEXT for value in given.values()):
            raise Unknown(f"a text may have {MOST_TEXT} characters")
        options = from_stored(self.options, given)
        if weights != own:
            options = replace(options, lora=tuple(f"{path}:{weight:.4f}" for (path, _), weight in zip(self.adapters, weights, strict=True)))
        found = faults(options, "") or options.faults()
        if found:
            raise Unknown("; ".join(found))
        return options

    # ------------------------------------------------------------------------------------------------------------- the work

    def painting(self, mask: np.ndarray, reference: np.ndarray, name: str, seed: int, options: object, color: str, quick: bool) -> Work:
        """The work that paints a mask uint8 [H, W], of the painter's size as the reference uint8 [H, W, 3] is. `name` and `seed` seed it as
        they do in MainTest.py, where the name is the mask's file. `color`: a key of COLOR_MATCHES, or "" for the usual one. `quick`: a
        first look only."""

        def work(tell: Callable[[dict], None]) -> dict:
            start = time.perf_counter()

            def each_step(step: int, steps: int, latents: np.ndarray) -> None:
                event = {"event": "step", "step": step, "steps": steps}
                if not quick and self.colors is not None and step < steps and step % max(1, steps // PREVIEWS) == 0:
                    event["picture"] = text(jpeg(self.colors(latents[0])))
                tell(event)

            tell({"event": "begun"})
            observed = {"each_step": each_step} if self.in_steps else {}
            how = options.quick() if quick and self.in_steps else options
            captions = [words_of(how).get("prompt", "")]
            pictures = self.painter.paint(mask[None], reference[None], captions, [picture_seed(seed, name, 0)], how, **observed)
            (result,) = finished(pictures, reference[None], color or usual_color(self.painter, options), self.resized)
            return {"event": "picture", "picture": text(jpeg(result)), "quick": quick, "seconds": round(time.perf_counter() - start, 3)}

        return work

    def judging(self, photo: np.ndarray) -> Work:
        """The work that finds the mask of a photo uint8 [H, W, 3]: what the judge sees in it."""

        def work(tell: Callable[[dict], None]) -> dict:
            tell({"event": "begun"})
            (labels,) = self.judge.labels(photo[None], SIZE)
            return {"event": "mask", "mask": text(encode(labels.astype(np.uint8), "PNG"))}

        return work


def to_choose_from(pairs: list[TestPair], img_path: Path) -> tuple[list[TestPair], list[Path]]:
    """The first of the pairs, and photos: their references, and an even spread of all."""
    examples, photos = pairs[:MOST_EXAMPLES], find_photos(img_path)
    references = {pair.reference for pair in examples}
    return examples, sorted(references | {*photos[:: -(-len(photos) // MOST_PHOTOS)]})


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()
