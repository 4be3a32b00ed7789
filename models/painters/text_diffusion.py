"""The system of words alone at work: the main system's painter, without masks and references."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.styles import find_style_prompts, style_folders, style_of
from datasets.text_pairs import find_prompts
from models.networks.lora_files import stored_metadata
from models.networks.pretrained import load_network
from models.networks.prompt_enhancement import PromptEnhancement, PromptEnhancementConfig
from models.painters.latent_diffusion import EachStep, LatentDiffusion, PaintingOptions
from models.training.run import Run
from utils.errors import UserError
from utils.options import option


@dataclass(frozen=True)
class TextOptions(PaintingOptions):
    steps: int = option(50, "sampling steps", least=1, most=1000)
    text_guidance: float = option(8.0, "scale for words, 1 for none")

    def faults(self) -> list[str]:
        others = ("guidance", "ref_guidance", "ref_start", "prior_start", "told", "text_tone", "control_weight")
        strange = [f"--{name}" for name in others if getattr(self, name) != getattr(TextOptions, name)]
        return super().faults() + ([f"{', '.join(strange)}: this run knows neither masks nor references"] if strange else [])


def find_pairs(input_path, *others, prompt="", prompts=""):
    """What is to be painted: in the styles of a folder of styles (datasets/styles.py), or by prompts (datasets/text_pairs.py)."""
    if not prompt and not prompts and Path(input_path).is_dir() and style_folders(input_path):
        return find_style_prompts(input_path)
    return find_prompts(input_path, *others, prompt=prompt, prompts=prompts)


@dataclass
class TextDiffusion(LatentDiffusion):
    """A caption that ends in ", style07" is painted with what stage `style` has learnt of style 07, where it has."""

    Options = TextOptions
    color_match = "none"
    find_pairs = staticmethod(find_pairs)

    styles: Path | None = None  # the folder of what has been learnt of them, <NN>/adapter and <NN>/enhancement
    best: bool = False  # whether of each what validation has found best is wanted, <NN>/best/adapter and so on
    enhancement: PromptEnhancement | None = None  # of the style that is painted in

    @classmethod
    def load(cls, run: Run, weights: Path) -> "TextDiffusion":
        """As `LatentDiffusion.load`. Where styles have been learnt, beside the run's own UNet, that paints with the best of them too."""
        styles = run.folder / "style"
        painter = super().load(run, run.folder if styles.is_dir() else weights)
        painter.styles, painter.best = styles, weights != run.folder
        return painter

    def paint(
        self, masks: None, references: None, captions: list[str], seeds: list[int], options: TextOptions, each_step: EachStep | None = None
    ) -> np.ndarray:
        if self.styles is None:
            return super().paint(masks, references, captions, seeds, options, each_step)
        pictures, folders = {}, [self.style_folder(caption) for caption in captions]
        for folder in dict.fromkeys(folders):
            some = [i for i, other in enumerate(folders) if other == folder]
            self.enhancement = enhancement_in(folder)
            own = in_its_style(options, folder / "adapter") if folder else options
            painted = super().paint(None, None, [captions[i] for i in some], [seeds[i] for i in some], own, each_step)
            pictures |= dict(zip(some, painted, strict=True))
        return np.stack([pictures[i] for i in range(len(captions))])

    def told_words(self, captions: list[str]) -> dict[str, np.ndarray]:
        told = super().told_words(captions)
        return told if self.enhancement is None else told | {"states": told["states"] + self.enhancement().numpy()}

    def style_folder(self, caption: str) -> Path | None:
        """What has been learnt of the style that a caption names; None where it names none, or none has been learnt. Raises UserError
        where others have, and it has not."""
        style = style_of(caption)
        if style is None or not self.styles.is_dir():
            return None
        folder = self.styles / style / ("best" if self.best else "")
        if not (folder / "adapter" / "config.json").is_file():
            raise UserError(f'"{caption}" is of a style of which {folder} holds nothing learnt: train it with MainTrain.py --stage style')
        return folder


def in_its_style(options: TextOptions, adapter: Path) -> TextOptions:
    """With an adapter besides those that are asked for, and its negative prompt where none is asked for."""
    negative = options.negative_prompt or stored_metadata(adapter)["negative_prompt"]
    return replace(options, lora=(*options.lora, str(adapter)), negative_prompt=negative)


def enhancement_in(folder: Path | None) -> PromptEnhancement | None:
    if folder is None or not (folder / "enhancement" / "config.json").is_file():
        return None
    return load_network(PromptEnhancement, PromptEnhancementConfig, folder / "enhancement")
