"""Stage `style`: adapters of low rank for the UNet and the text encoder, of a style known by a few pictures (Ruiz et al. 2023, DreamBooth;
Hu et al. 2021). One after the other for all the styles of a folder, each in a folder of its own below the run's, style/<NN>/."""

from dataclasses import dataclass, replace
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.pairs import Pair
from datasets.styles import check_styles, negative_prompt, style_folders
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import Given
from models.networks.lora import adapt
from models.networks.lora_files import Adapters
from models.networks.pretrained import load_network
from models.networks.prompt_enhancement import PromptEnhancement, PromptEnhancementConfig
from models.painters.latent_diffusion import LatentDiffusion
from models.painters.text_diffusion import TextDiffusion
from models.stages.captions import all_captions, as_tokens
from models.stages.latents import cache_latents
from models.stages.unet import LatentPairs, UNetStage, options_beside, size_faults
from models.training.learner import Learner
from models.training.options import MOST_EXAMPLES, StageOptions
from utils.errors import UserError
from utils.options import option


@dataclass(frozen=True)
class StyleOptions(StageOptions):
    pictures: str = option("", "folder of the styles, each <NN>/images/<description>.png")
    rank: int = option(4, "of the adapters", least=1, fixed=True)
    steps: int = option(700, "updates, of each style", least=1)
    batch_size: int = option(1, "examples a micro-batch, of all processes together", least=1, most=MOST_EXAMPLES)
    warmup: int = option(50, "steps in which the learning rate rises; then it falls as a cosine", least=1)
    ema: float = option(0.99, "decay of the averaged weights", least=0, most=0.999999)
    text_lr: float = option(4e-5, "highest learning rate of the text encoder's adapters; --style_lr is the UNet's", least=1e-12)
    enhancement: int = option(1, "1: what the pictures' latents look like joins the prompt; 0: it does not", choices=(0, 1), fixed=True)
    enhancement_lr: float = option(1e-3, "highest learning rate of the convolutions that do that", least=1e-12)
    prior_weight: float = option(0.0, "of the loss on the run's own pictures, so that they are not forgotten", least=0)

    def __post_init__(self) -> None:
        if self.pictures:  # the next command may be given in another folder
            object.__setattr__(self, "pictures", str(Path(self.pictures).resolve()))

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        return size_faults("style", self, others["unet"])


class StyleStage(UNetStage):
    """Of one style: `folder` is style/<NN> in the run's. Learns what the UNet has learnt to predict, from that style's pictures."""

    name = "style"
    builds_on = ("unet",)
    networks = ("style",)  # in the run's folder; of each style those of __init__
    columns = ("result", "truth")
    Options = StyleOptions

    @staticmethod
    def parts(options: StyleOptions) -> list[str]:
        """The styles that there are pictures of. Raises UserError where there are none."""
        found = [folder.name for folder in style_folders(options.pictures)] if options.pictures else []
        if not found:
            raise UserError("--style_pictures must name the folder of the styles, <NN>/images/<description>.png, NN from 00 to 99")
        return found

    def __init__(self, options: StyleOptions, folder: Path):
        run, self.style, self.pictures = folder.parent.parent, folder.name, options.pictures
        self.options = replace(options_beside(run, options), empty_captions=0.0)
        self.folder, self.schedule = folder, self.options.schedule
        self.vae = load_network(AutoencoderKL, AutoencoderKLConfig, run / "vae")
        begun = LatentDiffusion.of(self.options, self.vae, run)
        self.unet, self.conditioner, self.words = adapt(begun.unet, options.rank), begun.conditioner, begun.words
        adapt(self.words.encoder, options.rank)
        networks = {"unet": self.unet, "text_encoder": self.words.encoder}
        self.adapter = Adapters(options.rank, networks, negative_prompt(self.pictures, self.style))
        trained = {"adapter": self.adapter}
        if options.enhancement:
            width, height = (side // self.vae.config.downscale for side in self.options.size)
            channels = self.words.encoder.config.hidden_size
            trained["enhancement"] = PromptEnhancement(PromptEnhancementConfig(channels, self.vae.config.latent_channels, height, width))
        self.enhancement, self.networks, self.prior_weight = trained.get("enhancement"), tuple(trained), options.prior_weight
        factors = {"adapter.lora_te_": options.text_lr / options.lr, "enhancement.": options.enhancement_lr / options.lr}
        self.learners = {"style": Learner(trained, replace(options.recipe, factors=factors))}

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple["StyleExamples", LatentPairs]:
        """Of the style's pictures alone, on which it is validated too; with those of the run beside them where they weigh something."""
        self.pairs = check_styles(self.pictures)[self.style]
        prior = train if self.prior_weight else []
        told = as_tokens(self.words, all_captions([*self.pairs, *prior]))

        def examples(pairs: list[Pair], folder: Path) -> LatentPairs:
            latents = cache_latents(self.vae, pairs, self.options.size, folder / "latents")
            return LatentPairs(pairs, latents, self.vae.config.scaling_factor, self.options, told, training=False)

        own = examples(self.pairs, self.folder)
        if self.enhancement and not self.enhancement.latents.numpy().any():
            self.enhancement.take(np.stack([own.posterior(i, flip=0) for i in range(len(own))]))
            self.learners["style"].restart_average("enhancement")
        return StyleExamples(own, examples(prior, self.folder.parent.parent) if prior else None), own  # the run has those of its pictures

    def losses(self, batch: dict[str, np.ndarray], step: int = 0) -> dict[str, jt.Var]:
        found = super().losses({name: array for name, array in batch.items() if not name.startswith("prior ")})
        prior = {name.removeprefix("prior "): array for name, array in batch.items() if name.startswith("prior ")}
        if prior:
            found["prior"] = super().losses(prior | {"plain": True})["loss"]
            found["loss"] += self.prior_weight * found["prior"]
        return found

    def given(self, batch: dict[str, np.ndarray]) -> Given:
        given = super().given(batch)
        if self.enhancement and "plain" not in batch:
            given["words"]["states"] = given["words"]["states"] + self.enhancement()
        return given

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        return super().preview(self.pairs[: len(pairs)])

    def painter(self) -> TextDiffusion:
        return TextDiffusion(self.options, self.vae, self.unet, self.conditioner, self.words, enhancement=self.enhancement)


class StyleExamples:
    """Examples of a style's pictures, each with one of the run's own beside it where there are some."""

    def __init__(self, own: LatentPairs, prior: LatentPairs | None):
        self.own, self.prior = own, prior

    def __len__(self) -> int:
        return len(self.own)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        example = self.own.example(index, rng)
        if self.prior is None:
            return example
        return example | {f"prior {name}": array for name, array in self.prior.example(int(rng.integers(len(self.prior))), rng).items()}
