"""The system of words alone at work: the main system's painter, without masks and references."""

from dataclasses import dataclass

from datasets.text_pairs import find_prompts
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from utils.options import option


@dataclass(frozen=True)
class TextOptions(PaintingOptions):
    steps: int = option(50, "sampling steps", least=1)
    text_guidance: float = option(8.0, "scale for words, 1 for none")

    def faults(self) -> list[str]:
        strange = [
            f"--{name}" for name in ("guidance", "ref_guidance", "ref_start", "told") if getattr(self, name) != getattr(TextOptions, name)
        ]
        return super().faults() + ([f"{', '.join(strange)}: this run knows neither masks nor references"] if strange else [])


class TextDiffusion(LatentDiffusion):
    Options = TextOptions
    color_match = "none"
    find_pairs = staticmethod(find_prompts)
