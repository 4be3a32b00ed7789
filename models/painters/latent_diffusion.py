"""The main system at work: masks and reference photos in, pictures out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.test_pairs import find_test_pairs
from datasets.transforms import color_statistics, to_array, to_image
from models.diffusion.denoiser import Denoiser, guidance_branches, guide
from models.diffusion.samplers import SAMPLERS, sampling_timesteps, seeded_noise
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.clip import CLIPTextConfig
from models.networks.conditioner import ENCODERS, LEFT_OUT, Conditioner, ConditionerConfig, denoise
from models.networks.controlnet import ControlNetModel, controlled, load_control
from models.networks.linear_start import LinearStart, noisy_start
from models.networks.lora import merge, unmerge
from models.networks.lora_files import is_adapter, read_adapter
from models.networks.pretrained import exported_step, load_network, load_networks
from models.networks.text_encoder import TextEncoder, Words, load_own_tokenizer, load_text_encoder
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.training.options import StageOptions
from models.training.run import Run, run_of
from utils.checkpoint import as_array
from utils.errors import UserError
from utils.options import option

QUICK_STEPS = 5
EachStep = Callable[[int, int, np.ndarray], None]
ADAPTER = re.compile(r"(.*?)(?::([-+]?(?:\d+\.?\d*|\.\d+)))?", re.DOTALL)  # FILE, or FILE:WEIGHT


@dataclass(frozen=True)
class PaintingOptions:
    sampler: str = option("dpm++2m", "how noise becomes a picture", choices=SAMPLERS)
    steps: int = option(25, "sampling steps", least=1, most=1000)
    guidance: float = option(3.0, "scale for the mask, 1 for none")
    ref_guidance: float = option(1.5, "scale for the reference, 1 for none")
    text_guidance: float = option(1.5, "scale for words, 1 for none; as that of the reference: it has the last word")
    prompt: str = option("", "words for all pictures, of a run that was trained with words")
    prompts: str = option("", 'JSON file with words for each picture, {"<mask>": "<words>", ...}')
    negative_prompt: str = option("", "words that guidance leads away from")
    text_tone: float = option(1.0, "how far colours and contrast are brought to what words tell, where no reference is", least=0, most=1)
    told: tuple[str, ...] = option(tuple(ENCODERS), "what of the conditions is told; the others are left out", choices=ENCODERS)
    guidance_low: float = option(0.0, "guide only above this level of noise, a share of the process", least=0, most=1)
    guidance_high: float = option(1.0, "guide only up to this level of noise", least=0, most=1)
    guidance_rescale: float = option(0.0, "how much of the contrast that guidance adds is taken back", least=0, most=1)
    ref_start: float = option(1.0, "below 1, start from the reference's latents, noised to this share of the process", least=0.001, most=1)
    prior_start: float = option(
        0.75,
        "where the run has an estimate (--unet_linear_start 2), start from that, noised to this share of the process; 1: from pure noise",
        least=0.001,
        most=1,
    )
    control_weight: float = option(1.0, "of what stage control has learnt, where the run has that; 0 for without", least=0)
    lora: tuple[str, ...] = option((), "adapters of low rank, files or folders: PATH or PATH:WEIGHT each")
    tile: int = option(0, "decode in tiles of so many pixels a side, at least 64, where memory is short; 0: at once", least=0)

    def quick(self) -> "PaintingOptions":
        """For a first look at a mask that is still being drawn: few steps, and no guidance, which takes three evaluations a step."""
        return replace(
            self, sampler="dpm++2m", steps=min(self.steps, QUICK_STEPS), guidance=1.0, ref_guidance=1.0, text_guidance=1.0, ref_start=1.0
        )

    @property
    def adapters(self) -> list[tuple[Path, float]]:
        """Files of adapters, and how much of each is wanted."""
        parts = [ADAPTER.fullmatch(word) for word in self.lora]
        return [(Path(part[1]), float(part[2] or 1)) for part in parts]

    def faults(self) -> list[str]:
        found = ["--tile must be at least 64 pixels: less is seams alone"] if 0 < self.tile < 64 else []
        found += ["--prompt and --prompts: give one of them"] if self.prompt and self.prompts else []
        both = self.ref_start < 1 and self.prior_start not in (1, type(self).prior_start)
        found += ["--ref_start and --prior_start: give one of them"] if both else []
        return found + [f"--lora: there is no adapter {path}" for path, _ in self.adapters if not is_adapter(path)]


CLASSES = {  # of networks, and of their configurations
    "vae": (AutoencoderKL, AutoencoderKLConfig),
    "unet": (UNet2DConditionModel, UNet2DConditionConfig),
    "conditioner": (Conditioner, ConditionerConfig),
}


@dataclass
class LatentDiffusion:
    Options = PaintingOptions
    marker = "unet"  # a run can be painted with once it has this network
    color_match = "histogram"  # unless another is asked for
    find_pairs = staticmethod(find_test_pairs)

    options: StageOptions  # of stage unet
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    conditioner: Conditioner
    words: Words | None = None  # what reads captions, in a run that was trained with words
    control: ControlNetModel | None = None
    adapted: tuple[str, ...] = ()  # the adapters that are merged into the UNet, and into what reads captions
    before: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # by network, its weights without them

    @classmethod
    def load(cls, run: Run, weights: Path) -> "LatentDiffusion":
        """`weights`: the run's folder, or `best` in it. The autoencoder is the run's in both cases, as the UNet has learnt its latents;
        where there is one, that of stage decoder, which has a better decoder for them. What stage joint has trained, if it has, belongs
        together and is taken instead, with the decoder that stage joint_decoder has trained for these latents; a ControlNet, which has
        learnt beside the run's own UNet, has no part in that.

        Raises UserError where something is missing or damaged.
        """
        if (weights / "joint_unet" / "config.json").is_file():
            joint = load_networks({f"joint_{name}": classes for name, classes in CLASSES.items()}, weights)
            decoder = decoder_folder(run.folder, "joint_")
            if decoder.name == "joint_decoder":
                if exported_step(run.folder / "joint_vae") == exported_step(weights / "joint_vae"):
                    joint["joint_vae"] = load_network(*CLASSES["vae"], decoder)
                else:
                    print(f"Stage joint_decoder has learnt from other latents than those of {weights}, which paints without it.")
            if (run.folder / "control" / "config.json").is_file():
                print("What stage joint has trained paints, without the ControlNet of this run: --control_weight changes nothing.")
            return cls(run.options["unet"], *joint.values())
        vae = load_network(*CLASSES["vae"], decoder_folder(run.folder))
        if vae.config.scaling_factor is None:
            raise UserError(f"{run.folder / 'vae'} has been trained anew, and the UNet not yet: go on with MainTrain.py")
        if not (weights / "control" / "config.json").is_file():
            return cls.of(run.options["unet"], vae, weights)
        painter = cls.of(run.options["unet"], vae, run.folder)  # which the ControlNet has been trained beside, that of `best` too
        painter.control = load_control(weights / "control", painter.unet)
        return painter

    @classmethod
    def of(cls, options: StageOptions, vae: AutoencoderKL, weights: Path, prefix: str = "") -> "LatentDiffusion":
        """With the UNet, the conditioner and what reads captions of a folder; `prefix` is before the names of the first two, of a
        run without words. Raises UserError where they are missing or damaged."""
        classes = {name: CLASSES[name] for name in ("unet", "conditioner")}
        if not options.words:
            return cls(options, vae, *load_networks({f"{prefix}{name}": found for name, found in classes.items()}, weights).values())
        if options.text_encoder:
            return cls(options, vae, **load_networks(classes, weights), words=load_text_encoder(options.text_encoder))
        networks = load_networks(classes | {"text_encoder": (TextEncoder, CLIPTextConfig)}, weights)
        return cls(options, vae, words=Words(load_own_tokenizer(run_of(weights)), networks.pop("text_encoder")), **networks)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        return self.options.size

    @property
    def estimate(self) -> LinearStart | None:
        """What painting starts from instead of pure noise, in a run that has measured it for that."""
        return self.conditioner.linear_start if self.conditioner.config.for_painting else None

    def paint(
        self,
        masks: np.ndarray | None,
        references: np.ndarray | None,
        captions: list[str],
        seeds: list[int],
        options: PaintingOptions,
        each_step: EachStep | None = None,
    ) -> np.ndarray:
        """Pictures uint8 [B, H, W, 3], each by its own mask, reference, caption and seed alone.

        masks: uint8 [B, H, W], values 0..28; references: uint8 [B, H, W, 3]; captions: "" for none; seeds: one a picture, not negative.
        Captions change nothing in a run that was trained without words, and one of words alone has no masks and no references: None.
        each_step(step, steps, latents): called after each sampling step, counted from 1, with the clean latents [B, 4, h, w] as they are
        estimated so far. What it raises ends the painting.
        """
        self.adapt(options)
        if self.words is None and (options.prompt or options.prompts or options.negative_prompt):
            raise UserError("--prompt, --prompts, --negative_prompt: this run was trained without words; --unet_words 1 trains with them")
        if self.words is None and "words" in options.told and options.told != type(options).told:
            raise UserError("--told words: this run was trained without words; --unet_words 1 trains with them")
        if self.control is None and options.control_weight not in (0, 1):  # for without, and as where nothing is said
            raise UserError("--control_weight: nothing that paints here is a ControlNet; --stage control trains one beside the run's UNet")
        if self.estimate is None and options.prior_start != type(options).prior_start:
            raise UserError("--prior_start: this run paints from pure noise; one that is begun with --unet_linear_start 2 has an estimate")
        with jt.no_grad():
            latents = None if references is None else self.latents_of(references)
            colors = None if references is None else np.stack([color_statistics(photo) for photo in references])
            x = self.sample(masks, latents, colors, captions, seeds, options, each_step)
            if not np.isfinite(x.numpy()).all():
                scales = "--guidance, --ref_guidance, --text_guidance"
                raise UserError(f"Sampling has left the range of numbers: take smaller scales of guidance ({scales})")
            return np.concatenate([to_image(self.decode(latent, options.tile)) for latent in x.split(1)])

    def adapt(self, options: PaintingOptions) -> None:
        """Has the networks hold the adapters that are asked for, and no others; a ControlNet of low rank has the UNet's weights. Raises
        UserError where one does not fit."""
        if options.lora == self.adapted:
            return
        networks = {"unet": self.unet} | ({"text_encoder": self.words.encoder} if self.words else {})
        for name, weights in self.before.items():
            unmerge(networks[name], weights)
        self.adapted, self.before = (), {}
        adapters = [(read_adapter(path, networks), weight) for path, weight in options.adapters]
        for name, network in networks.items():
            self.before[name] = merge(network, [(parts[name], weight) for parts, weight in adapters if name in parts])
        self.adapted = options.lora

    def latents_of(self, photos: np.ndarray) -> np.ndarray:
        """The scaled latents [B, 4, h, w] of photos uint8 [B, H, W, 3]."""
        with jt.no_grad():
            # One at a time, as pictures are decoded: full-size feature maps of a whole batch would take more memory than sampling.
            return np.concatenate([self.vae.encode(jt.array(photo[None]))[0].numpy() for photo in to_array(photos)])

    def sample(
        self,
        masks: np.ndarray | None,
        latents: np.ndarray | None,
        colors: np.ndarray | None,
        captions: list[str],
        seeds: list[int],
        options: PaintingOptions,
        each_step: EachStep | None = None,
    ) -> jt.Var:
        """Latents [B, 4, h, w] of pictures, each by its own mask, reference, caption and seed.

        masks, captions, each_step: as in `paint`; a reference is told by its scaled latents [B, 4, h, w] and the statistics of its colours
        [B, 54].
        """
        schedule = self.options.schedule
        from_estimate = self.estimate is not None and options.ref_start == 1 and options.prior_start < 1
        timesteps = sampling_timesteps(schedule, options.steps, options.prior_start if from_estimate else options.ref_start)
        told = {}
        if masks is not None:
            told["mask"] = {"mask": masks}
            told["reference"] = {"latents": latents, "colors": colors, "known": np.ones(len(seeds), np.float32)}
        untold = {name: LEFT_OUT[name](arrays) for name, arrays in told.items()}
        # Words come before the reference, so that guidance asks what they change where no reference is told: with one, that tells most of
        # it. So both weigh, even where they contradict each other.
        scales = {"mask": options.guidance, "words": options.text_guidance, "reference": options.ref_guidance}
        if self.words:
            negative = [options.negative_prompt if "words" in options.told else ""] * len(seeds)
            told["words"], untold["words"] = self.told_words(captions), self.words.told(negative)
            if captions == negative:  # nothing to lead away from: no evaluation more than without words
                scales.pop("words")
        scales = {name: scale for name, scale in scales.items() if name in told and name in options.told}
        guided, plain = guidance_branches(scales), guidance_branches(dict.fromkeys(scales, 1.0))
        given = [(branches, side_by_side([only_told(told, untold, branch.kept) for branch in branches])) for branches in (plain, guided)]
        given = [(branches, self.conditioner(arrays), self.predictor(arrays, options.control_weight)) for branches, arrays in given]

        def model(x: jt.Var, t: int) -> jt.Var:
            level = (t + 1) / schedule.num_train_timesteps
            branches, conditions, predictor = given[options.guidance_low < level <= options.guidance_high]
            timestep = np.full(len(branches) * len(seeds), t)
            inputs = jt.concat([x] * len(branches))
            outputs = denoise(predictor, inputs, timestep, conditions, schedule, self.options.prediction_type)
            return guide(branches, outputs, options.guidance_rescale)

        width, height = (side // self.vae.config.downscale for side in self.size)
        noise = seeded_noise(seeds, (self.vae.config.latent_channels, height, width))
        first = noise(0)
        if from_estimate:
            (_, conditions, _), _ = given
            x = noisy_start(jt.array(first), schedule.alpha(timesteps[0]), schedule.sigma(timesteps[0]), *conditions.estimate)
        else:
            x = jt.array(first if options.ref_start == 1 else schedule.add_noise(latents, first, timesteps[0]))
        denoiser = Denoiser(model, schedule, self.options.prediction_type)
        for step, x in enumerate(SAMPLERS[options.sampler](denoiser, x, timesteps, noise), start=1):  # noqa: B020  (each x replaces the last)
            x.sync()
            if each_step:
                each_step(step, len(timesteps), as_array(denoiser.clean))
        if self.options.words != 1 or "reference" in scales:
            return x  # a reference has told the light, or words, which stood alone, have not learnt what photos look like
        (_, conditions, _), _ = given
        return toned(x, conditions.statistics, options.text_tone)

    def told_words(self, captions: list[str]) -> dict[str, np.ndarray]:
        """What a conditioner is given of captions."""
        return self.words.told(captions)

    def predictor(self, given: dict[str, dict[str, np.ndarray]], control_weight: float) -> Callable[..., jt.Var]:
        """The UNet, with what a ControlNet adds for the masks that a conditioner is given."""
        if self.control is None or not control_weight:
            return self.unet
        return controlled(self.unet, self.control, self.control.hint(given["mask"]["mask"]), control_weight)

    def decode(self, latent: jt.Var, tile: int) -> np.ndarray:
        """One picture [1, 3, H, W], nominally −1..1."""
        if not tile:
            return self.vae.decode(latent).numpy()
        return self.vae.decode_in_tiles(latent, tile // self.vae.config.downscale)


def toned(latents: jt.Var, statistics: jt.Var, share: float) -> jt.Var:
    """Latents [B, 4, h, w] on the way, by a share of 0..1, to the mean and the spread in each channel that their captions tell of a photo,
    as `reference_statistics` [B, S]. Guidance leads away from these, dusk to night, and autumn to a glow."""
    told, before, channels = statistics.numpy(), latents.numpy(), latents.shape[1]
    mean, std = (told[:, i * channels : (i + 1) * channels, None, None] for i in range(2))
    factor = np.clip(std / (before.std(axis=(2, 3), keepdims=True) + 1e-6), 0.5, 2)  # beyond that, what grows would be noise
    after = (before - before.mean(axis=(2, 3), keepdims=True)) * factor + mean
    told_of_a_photo = told[:, -1].reshape(-1, 1, 1, 1) > 0.5  # learnt as 1 of captions, and 0 of the empty one
    return jt.array(np.where(told_of_a_photo, before + np.float32(share) * (after - before), before))


def decoder_folder(run: Path, prefix: str = "") -> Path:
    """The autoencoder that decodes: that of stage decoder, where there is one; with prefix `joint_`, of what stage joint has trained."""
    decoder = run / f"{prefix}decoder"
    return decoder if (decoder / "config.json").is_file() else run / f"{prefix}vae"


def only_told(
    told: dict[str, dict[str, np.ndarray]], untold: dict[str, dict[str, np.ndarray]], names: frozenset[str]
) -> dict[str, dict[str, np.ndarray]]:
    """What a conditioner is given where only the conditions of these names are told."""
    return {name: (told if name in names else untold)[name] for name in told}


def side_by_side(branches: list[dict[str, dict[str, np.ndarray]]]) -> dict[str, dict[str, np.ndarray]]:
    """What a conditioner is given for several branches as one batch."""
    return {
        name: {argument: np.concatenate([branch[name][argument] for branch in branches]) for argument in arrays}
        for name, arrays in branches[0].items()
    }
