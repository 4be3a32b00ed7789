"""Stage `control`: a ControlNet beside a trained UNet, for more of the mask; whole, or of low rank and small."""

from dataclasses import dataclass, replace
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.pairs import Pair
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import Given, denoise
from models.networks.controlnet import control_config, control_of, controlled
from models.networks.pretrained import load_network
from models.painters.latent_diffusion import LatentDiffusion
from models.stages.captions import Told, all_captions, as_states
from models.stages.unet import UNetStage, options_beside, size_faults
from models.training.learner import Learner
from models.training.options import StageOptions
from utils.options import option

FORMS = ("full", "low_rank")


@dataclass(frozen=True)
class ControlOptions(StageOptions):
    form: str = option("full", "a whole second encoder, or the UNet's with adapters of low rank", choices=FORMS, fixed=True)
    rank: int = option(16, "of the adapters in the low-rank form", least=1, fixed=True)
    hint_channels: tuple[int, ...] = option((16, 32, 96, 256), "of the hint's encoder", least=1, fixed=True)

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        unet, f = others["unet"], others["vae"].network.downscale
        faults = size_faults("control", self, unet)
        if "mask" not in unet.conditions:
            faults.append(f"stage control is for runs with masks, and --unet_words is {unet.words}")
        if 2 ** (len(self.hint_channels) - 1) != f:
            faults.append(f"--control_hint_channels has {len(self.hint_channels)} values; {f.bit_length()} are needed, for 1 to 1/{f}")
        return faults


class ControlStage(UNetStage):
    """Learns what the UNet has learnt to predict, from the same examples: all but what is trained is that stage's."""

    name = "control"
    builds_on = ("unet",)
    networks = ("control",)
    Options = ControlOptions

    def __init__(self, options: ControlOptions, folder: Path):
        self.options = replace(options_beside(folder, options), perceptual_from=0)  # the UNet is past that step
        self.folder, self.schedule = folder, self.options.schedule
        self.vae = load_network(AutoencoderKL, AutoencoderKLConfig, folder / "vae")
        trained = LatentDiffusion.of(self.options, self.vae, folder)
        self.unet, self.conditioner, self.words = trained.unet, trained.conditioner, trained.words
        classes = self.conditioner.config.num_classes
        rank = options.rank if options.form == "low_rank" else 0
        self.control = control_of(control_config(self.unet, classes, options.hint_channels, rank), self.unet)
        self.learners = {"control": Learner({"control": self.control}, options.recipe)}

    def read_captions(self, train: list[Pair], validation: list[Pair]) -> Told:
        """What the run's text encoder has made of each caption."""
        return as_states(self.words, all_captions([*train, *validation]), self.folder / "latents")

    def prediction(self, batch: dict[str, np.ndarray], given: Given, t: np.ndarray) -> tuple[jt.Var, jt.Var]:
        with jt.no_grad():
            conditions = self.conditioner(given)
        noisy = jt.array(self.schedule.add_noise(batch["latent"], batch["noise"], t))
        predictor = controlled(self.unet, self.control, self.control.hint(batch["mask"]))
        return noisy, denoise(predictor, noisy, t, conditions, self.schedule, self.options.prediction_type)

    def painter(self) -> LatentDiffusion:
        return replace(super().painter(), control=self.control)
