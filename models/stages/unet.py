"""Stage `unet`: the UNet and its conditioner, on the latents of the frozen autoencoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import jittor as jt
import numpy as np

from datasets.landscape import read_mask
from datasets.loader import spread
from datasets.pairs import Pair
from datasets.transforms import class_shares, random_crop
from models.diffusion.schedule import NOISE_SCHEDULES, PREDICTION_TYPES, NoiseSchedule, stratified
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import LEFT_OUT, Conditioner, ConditionerConfig, Given, as_var, denoise, reference_statistics
from models.networks.pretrained import load_network, published_schedule
from models.networks.text_encoder import LEAST_VOCABULARY, Words, load_text_encoder, small_text_encoder, text_channels
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.painters.pictures import described_rows, preview_rows
from models.stages.captions import Told, all_captions, as_states, as_tokens, check_captions, own_tokenizer
from models.stages.latents import Latents, bring_to_scale, cache_latents
from models.stages.seen_estimates import SeenEstimates
from models.training.learner import Learner
from models.training.options import StageOptions
from models.training.run import read_json
from utils import parallel
from utils.options import from_stored, option

PREVIEW = PaintingOptions(steps=15)
STATISTICS = 2000  # pictures that the linear start is measured on, at most
CONDITIONS = {0: ("mask", "reference"), 1: ("mask", "reference", "words"), 2: ("words",)}  # by --unet_words
DESCRIPTION_WEIGHT = 3.0  # of `description` in the loss: that error falls from about 0.1 to 0.01, and the noise's is about 0.3
LONELY = 0.25  # where mask or reference are left out, so large a share of the captions is left out too


@dataclass(frozen=True)
class UNetOptions(StageOptions):
    channels: tuple[int, ...] = option((320, 640, 1280, 1280), "channels of each level, finest first", least=1, fixed=True)
    layers: int = option(2, "residual blocks a level", least=1, fixed=True)
    attention: tuple[int, ...] = option((1, 1, 1, 0), "1 for each level that has attention", choices=(0, 1), fixed=True)
    heads: int = option(8, "of attention", least=1, fixed=True)
    head_channels: int = option(0, "of a head, as many heads at each level as that makes: 64 in Stable Diffusion 2", least=0, fixed=True)
    norm_groups: int = option(32, "of every group norm", least=1, fixed=True)
    cross_attention_dim: int = option(768, "channels of a reference token", least=1, fixed=True)
    mask_channels: tuple[int, ...] = option((32, 64, 128), "of the mask encoder", least=1, fixed=True)
    patch_size: int = option(4, "latent cells a side of one reference token", least=1, fixed=True)
    noise_schedule: str = option("scaled_linear", "how noise grows with the timestep", choices=NOISE_SCHEDULES, fixed=True)
    zero_snr: int = option(1, "1: the last timestep is pure noise (Lin et al. 2023); 0: it is not quite", choices=(0, 1), fixed=True)
    prediction_type: str = option("v_prediction", "what the network predicts", choices=PREDICTION_TYPES, fixed=True)
    min_snr_gamma: float = option(5.0, "bound of the Min-SNR weights (Hang et al. 2023)", least=1e-6)
    linear_start: int = option(
        2,
        "of a linear estimate, 1: learn what it leaves, for a few hundred steps; 2: learn all, but paint from there; 0: there is none",
        choices=(0, 1, 2),
        fixed=True,
    )
    whiten: int = option(1, "1: latents of unit variance in every channel; 0: one scale for all", choices=(0, 1), fixed=True)
    drop: float = option(0.05, "chance to leave out the mask, the reference, or both: for each of the three", least=0, most=1 / 3)
    words: int = option(0, "0: none; 1: captions beside mask and reference; 2: captions alone", choices=CONDITIONS, fixed=True)
    text_encoder: str = option("", "folder of a published CLIP text encoder that reads the captions; else one is trained", fixed=True)
    text_channels: int = option(256, "of the text encoder that is trained", least=1, fixed=True)
    text_layers: int = option(4, "of the same", least=1, fixed=True)
    text_vocabulary: int = option(2048, "tokens that it knows, at most, learnt from the captions", least=LEAST_VOCABULARY, fixed=True)
    words_drop: float = option(0.15, "instead of --unet_drop with words 1: they are learnt where no reference is", least=0, most=1 / 3)
    perceptual_weight: float = option(0.0, "of how different the decoded estimate looks, of an eighth of the pictures", least=0)
    perceptual_from: int = option(0, "step after which that loss sets in", least=0)
    empty_captions: float = option(0.1, "chance of an empty caption, where nothing else is left out", least=0, most=1)

    def __post_init__(self) -> None:
        if self.text_encoder:  # the next command may be given in another folder
            object.__setattr__(self, "text_encoder", str(Path(self.text_encoder).resolve()))

    @property
    def conditions(self) -> tuple[str, ...]:
        return CONDITIONS[self.words]

    @property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.make(self.noise_schedule, rescale_zero_snr=bool(self.zero_snr))

    def for_published_weights(self, weights: dict[str, Path], said: dict) -> "UNetOptions":
        # Those predict all of it, of latents as they are, and with the noise that they were trained with
        if "unet" not in weights:
            return replace(self, **said)
        known = said.keys() >= {"noise_schedule", "prediction_type", "zero_snr"}
        own = {"linear_start": 2 if self.linear_start else 0, "whiten": 0}
        return replace(self, **({} if known else published_schedule(weights["unet"])) | own | said)

    def conditioner(self, vae: AutoencoderKLConfig) -> ConditionerConfig:
        return ConditionerConfig(
            conditions=self.conditions,
            linear_start=(self.height // vae.downscale, self.width // vae.downscale) if self.linear_start else None,
            for_painting=True if self.linear_start == 2 else None,
            downscale=vae.downscale,
            mask_channels=self.mask_channels,
            level_channels=(self.channels[0], *self.channels[:-1]),
            latent_channels=vae.latent_channels,
            patch_size=self.patch_size,
            cross_attention_dim=self.cross_attention_dim,
            text_channels=(text_channels(self.text_encoder) if self.text_encoder else self.text_channels) if self.words else None,
        )

    def network(self, vae: AutoencoderKLConfig) -> UNet2DConditionConfig:
        conditioner = self.conditioner(vae)
        return UNet2DConditionConfig(
            in_channels=vae.latent_channels + (conditioner.num_classes if "mask" in self.conditions else 0),
            out_channels=vae.latent_channels,
            block_out_channels=self.channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in self.attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in self.attention[::-1]),
            layers_per_block=self.layers,
            norm_num_groups=self.norm_groups,
            cross_attention_dim=self.cross_attention_dim,
            attention_head_dim=tuple(width // self.head_channels for width in self.channels) if self.head_channels else self.heads,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=conditioner.num_statistics,
        )

    def faults(self, others: dict[str, StageOptions]) -> list[str]:
        f, levels = others["vae"].network.downscale, len(self.channels)
        cell, token = f * math.lcm(2 ** (levels - 1), self.patch_size), f * self.patch_size
        faults = [
            f"--unet_{side} {getattr(self, side)} is not a multiple of {cell}" for side in ("width", "height") if getattr(self, side) % cell
        ]
        faults += [
            f"--unet_{side} {getattr(self, side)} must be more than one reference token, {token} pixels"
            for side in ("width", "height")
            if getattr(self, side) <= token
        ]
        divide = ("head_channels", self.head_channels) if self.head_channels else ("heads", self.heads)
        for name, count in (("norm_groups", self.norm_groups), divide):
            faults += [f"--unet_channels: {width} is not a multiple of --unet_{name} {count}" for width in self.channels if width % count]
        if len(self.attention) != levels:
            faults.append(f"--unet_attention has {len(self.attention)} values for {levels} levels")
        if 2 ** len(self.mask_channels) != f:
            faults.append(f"--unet_mask_channels has {len(self.mask_channels)} values; one for each halving down to 1/{f} is needed")
        if self.prediction_type == "epsilon" and self.zero_snr:
            faults.append("--unet_prediction_type epsilon says nothing of pure noise: give --unet_zero_snr 0 too")
        return faults + self.faults_of_words(others)

    def faults_of_words(self, others: dict[str, StageOptions]) -> list[str]:
        faults = []
        if self.words != 2 and "style" in others:  # of system text, whose painter has no masks
            faults.append(f"--unet_words {self.words}: system text is of captions alone; --system diffusion trains with masks too")
        if self.words == 2 and self.linear_start:
            faults.append("--unet_words 2: the linear start is one from mask and reference; give --unet_linear_start 0 too")
        if self.text_encoder and not self.words:
            faults.append("--unet_text_encoder reads captions, which --unet_words 1 would train on")
        if self.text_encoder and not Path(self.text_encoder).is_dir():
            where = "where it has moved, put it back or change text_encoder in run.json"
            faults.append(f"--unet_text_encoder: there is no folder {self.text_encoder}; {where}")
        if self.words and not self.text_encoder and self.text_channels % self.heads:
            faults.append(f"--unet_text_channels {self.text_channels} is not a multiple of --unet_heads {self.heads}")
        return faults


def options_beside(run: Path, options: StageOptions) -> UNetOptions:
    """The UNet's options of a run, with those that every stage has taken from `options`: of a stage that trains something beside it."""
    own = {each.name: getattr(options, each.name) for each in fields(StageOptions)}
    return replace(from_stored(UNetOptions(), read_json(run)["stages"].get("unet", {})), **own)


def size_faults(stage: str, options: StageOptions, unet: StageOptions) -> list[str]:
    """Where such a stage is of another size than the UNet."""
    return [
        f"--{stage}_{side} {getattr(options, side)}, but the UNet's is {getattr(unet, side)}: give that"
        for side in ("width", "height")
        if getattr(options, side) != getattr(unet, side)
    ]


class LatentPairs:
    """Latents, masks and references of photos, and everything random in a training example. A photo is its own reference."""

    def __init__(self, pairs: list[Pair], latents: Latents, scaling_factor: float, options: UNetOptions, told: Told | None, training: bool):
        """told: of a caption, what an example has of it; None without words. training: whether conditions are left out."""
        self.pairs, self.latents, self.scaling_factor = pairs, latents, np.float32(scaling_factor)
        self.options, self.told = options, told
        self.drop = (options.words_drop if options.words else options.drop) if training else 0
        self.empty = options.empty_captions if training else 0

    def __len__(self) -> int:
        return len(self.pairs)

    def posterior(self, index: int, flip: int) -> np.ndarray:
        """Mean and standard deviation, float32 [2, 4, h, w], of the scaled latents of a photo or of its mirror image."""
        return self.latents.posterior(index, flip) * self.scaling_factor

    def for_statistics(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Latents [4, h, w] and class shares [29, h, w] of up to STATISTICS of the pictures, an even spread."""
        for i in spread(len(self), STATISTICS):
            mean, _ = self.posterior(int(i), flip=0)
            yield mean, class_shares(read_mask(self.pairs[i].mask, self.options.size), self.options.height // mean.shape[1])

    def example(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """latent and noise: float32 [4, h, w]; time: 0..1, for `stratified`; what `mask_and_reference` gives; and what the text encoder
        takes of one of the picture's captions, or of the empty one, and described: 1, or 0 where it is the empty one."""
        flip = int(rng.integers(2))
        mean, std = self.posterior(index, flip)
        given, alone = ({}, False) if self.options.words == 2 else self.mask_and_reference(index, flip, rng)
        example = {
            "latent": mean + std * rng.standard_normal(mean.shape, np.float32),
            "noise": rng.standard_normal(mean.shape, np.float32),
            "time": np.array(rng.random()),
        }
        if self.told is None:
            return example | given
        caption = self.caption(index, alone, rng)
        return example | given | self.told(caption) | {"described": np.array(float(caption != ""), np.float32)}

    def mask_and_reference(self, index: int, flip: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], bool]:
        """mask: uint8 [H, W]; reference: float32 [4, h', w']; colors: [54]; known: 1, or 0 where the reference is left out. A mask that is
        left out is UNKNOWN everywhere. And whether one of the two is."""
        p = self.options.patch_size
        mask = read_mask(self.pairs[index].mask, self.options.size)
        mask = np.ascontiguousarray(mask[:, ::-1] if flip else mask)
        # The reference must not give the layout away: a crop whose patches lie elsewhere than the picture's, flipped on its own account.
        # The patches need not be shuffled: the reference encoder has no positions.
        reference, _ = self.posterior(index, int(rng.integers(2)))
        reference = random_crop(reference, reference.shape[1] - p, reference.shape[2] - p, rng)
        given = {
            "mask": mask,
            "reference": np.ascontiguousarray(reference),
            "colors": self.latents.colors(index),
            "known": np.array(1.0, np.float32),
        }
        return with_some_left_out(given, self.drop, rng)

    def caption(self, index: int, alone: bool, rng: np.random.Generator) -> str:
        """One of a picture's captions; the empty one where it has none or words are left out, more often where they would stand `alone`."""
        chance, captions = rng.random(), self.pairs[index].captions
        if not captions or chance < (LONELY if alone else self.empty):
            return ""
        return captions[int(rng.integers(len(captions)))]


def with_some_left_out(example: dict[str, np.ndarray], drop: float, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], bool]:
    """An example with a chance of `drop` without its mask, as often without its reference, and as often without both; and whether it lacks
    one of them."""
    chance = rng.random()
    drop_mask, drop_reference = chance < 2 * drop, drop <= chance < 3 * drop  # below `drop` the mask alone, up to twice that both
    for name, dropped in (("mask", drop_mask), ("reference", drop_reference)):
        example = example | (LEFT_OUT[name](example) if dropped else {})
    return example, drop_mask or drop_reference


class UNetStage:
    name = "unet"
    builds_on = ("vae",)
    networks = ("unet", "conditioner", "text_encoder")  # the last in a run that trains its own
    columns = ("mask", "reference", "result", "truth")
    Options = UNetOptions
    describes = False  # whether words learn to tell what a reference would
    seen = None  # the loss on what estimates look like; it takes the autoencoder that `datasets` has brought to scale

    def __init__(self, options: UNetOptions, folder: Path):
        self.options, self.folder = options, folder
        self.vae = load_network(AutoencoderKL, AutoencoderKLConfig, folder / "vae")
        self.unet = UNet2DConditionModel(options.network(self.vae.config))
        self.conditioner = Conditioner(options.conditioner(self.vae.config))
        trained = {"unet": self.unet, "conditioner": self.conditioner}
        self.words = load_text_encoder(options.text_encoder) if options.text_encoder else None
        if options.words and not self.words:
            o = options
            trained["text_encoder"] = small_text_encoder(o.text_vocabulary, o.text_channels, o.text_layers, o.heads)
        self.networks = tuple(trained)
        self.columns = UNetStage.columns[-2:] if options.words == 2 else UNetStage.columns
        self.learners = {"unet": Learner(trained, options.recipe)}
        self.schedule, self.describes = options.schedule, options.words == 1

    def datasets(self, train: list[Pair], validation: list[Pair]) -> tuple[LatentPairs, LatentPairs]:
        """Brings the autoencoder's latents to unit variance if nobody has, encodes what is not in the cache, which takes minutes the first
        time, and measures the linear start."""
        self.vae = bring_to_scale(self.folder, train, self.options.size, bool(self.options.whiten))
        latents, val_latents = (cache_latents(self.vae, pairs, self.options.size, self.folder / "latents") for pairs in (train, validation))
        scale = self.vae.config.scaling_factor
        if self.options.perceptual_weight:
            self.seen = SeenEstimates(self.vae, self.schedule, self.options.prediction_type, self.name)
        told = self.read_captions(train, validation) if self.options.words else None
        training_set = LatentPairs(train, latents, scale, self.options, told, training=True)
        measures = self.conditioner.config.linear_start and "unet" in self.learners
        if measures and not self.conditioner.linear_start.is_measured():
            self.conditioner.linear_start.measure(training_set.for_statistics)
            self.learners["unet"].restart_average("conditioner")
        return training_set, LatentPairs(validation, val_latents, scale, self.options, told, training=False)

    def read_captions(self, train: list[Pair], validation: list[Pair]) -> Told:
        """What the text encoder takes of each caption, or what it has made of it; and a line that says which text encoder it is."""
        o, captions = self.options, all_captions([*train, *validation])
        described = check_captions(train)
        if o.text_encoder:
            print(f"Stage unet: {described} have captions, read by the text encoder of {o.text_encoder}, as it is")
            return as_states(self.words, captions, self.folder / "latents")
        print(f"Stage unet: {described} have captions, read by a text encoder of {o.text_layers} layers that is trained with the UNet")
        tokenizer = own_tokenizer(self.folder, self.name, train, o.text_vocabulary)
        self.words = Words(tokenizer, self.learners["unet"].networks["text_encoder"])
        return as_tokens(self.words, captions)

    def train_step(self, batches: list[dict], step: int) -> dict[str, float]:
        (learner,) = self.learners.values()
        return learner.step(partial(self.losses, step=step), batches, step)

    def losses(self, batch: dict[str, np.ndarray], step: int = 0) -> dict[str, jt.Var]:
        """Scalars by name; `loss` is what is minimised: the squared error of the prediction with Min-SNR weights (Hang et al. 2023), with
        words beside references the error of what they tell of these, and from a step on the distance of what it would look like."""
        t = stratified(batch["time"], self.schedule.num_train_timesteps, parallel.RANK, parallel.SIZE)
        given = self.given(batch)
        noisy, output = self.prediction(batch, given, t)
        error = self.squared_errors(output, batch, t)
        parts = {"loss": (error * jt.array(self.weights(t))).mean(), "mse": error.mean()}
        if self.describes:
            parts["description"] = self.description_error(batch, given)
            parts["loss"] += (DESCRIPTION_WEIGHT * parts["description"]).sum()  # summed: Jittor fails to fuse two bare numbers
        if self.seen and step >= self.options.perceptual_from:
            parts["perceptual"] = self.seen(noisy, output, batch["latent"], t, parallel.RANK, parallel.SIZE)
            parts["loss"] += self.options.perceptual_weight * parts["perceptual"]
        return parts

    def errors(self, batch: dict[str, np.ndarray], t: np.ndarray) -> jt.Var:
        """Mean squared error of the prediction, [B], for latents noised to timesteps t [B]."""
        return self.squared_errors(self.prediction(batch, self.given(batch), t)[1], batch, t)

    def description_error(self, batch: dict[str, np.ndarray], given: Given) -> jt.Var:
        """Mean square of how far the statistics of photos are from those that their captions tell. The empty caption tells of no photo."""
        photos = reference_statistics(*(jt.array(batch[name]) for name in ("reference", "colors", "described")))
        return (self.conditioner.words_encoder.told_statistics(as_var(given["words"]["pooled"])) - photos).sqr().mean()

    def prediction(self, batch: dict[str, np.ndarray], given: Given, t: np.ndarray) -> tuple[jt.Var, jt.Var]:
        """Latents noised to timesteps t [B], and what is predicted of them where the conditioner is `given` this, [B, 4, h, w] each."""
        conditions = self.conditioner(given)
        noisy = jt.array(self.schedule.add_noise(batch["latent"], batch["noise"], t))
        return noisy, denoise(self.unet, noisy, t, conditions, self.schedule, self.options.prediction_type)

    def squared_errors(self, output: jt.Var, batch: dict[str, np.ndarray], t: np.ndarray) -> jt.Var:
        target = jt.array(self.schedule.target(batch["latent"], batch["noise"], t, self.options.prediction_type))
        return (output - target).sqr().mean(dims=(1, 2, 3))

    def given(self, batch: dict[str, np.ndarray]) -> Given:
        """What the conditioner takes of a batch, by condition."""
        given = {}
        if "mask" in batch:
            given["mask"] = {"mask": batch["mask"]}
            given["reference"] = {"latents": batch["reference"], "colors": batch["colors"], "known": batch["known"]}
        if "ids" in batch:
            given["words"] = dict(zip(("states", "pooled"), self.words.encoder(batch["ids"]), strict=True))
        if "states" in batch:
            given["words"] = {"states": batch["states"], "pooled": batch["pooled"]}
        return given

    def weights(self, t: np.ndarray) -> np.ndarray:
        return self.schedule.min_snr_weight(t, self.options.prediction_type, self.options.min_snr_gamma).reshape(-1)

    def validate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The loss with the right conditions, and with another picture's mask, reference or words; with mask and words alone, and so with
        other words; where estimates are looked at, how different they look; how far off is what words tell of photos; and with the right
        conditions the squared error by tenths of the timesteps, val_mse_0 to val_mse_9."""
        t = stratified(batch["time"], self.schedule.num_train_timesteps)
        weights = self.weights(t)

        def loss(batch: dict[str, np.ndarray], *others: str) -> np.ndarray:
            changed = {name: np.roll(batch[name], 1, axis=0) for name in others if name in batch}
            return self.errors(batch | changed, t).numpy() * weights

        words = ("ids", "states", "pooled")
        given = self.given(batch)
        noisy, output = self.prediction(batch, given, t)
        right = self.squared_errors(output, batch, t).numpy()
        metrics = {"val_loss": right * weights}
        if self.seen:
            metrics["val_perceptual"] = self.seen(noisy, output, batch["latent"], t).item()
        if self.describes:
            metrics["val_description"] = self.description_error(batch, given).item()
        if len(t) > 1 and "mask" in batch:  # a single picture has no other
            metrics["val_loss_other_mask"] = loss(batch, "mask")
            metrics["val_loss_other_reference"] = loss(batch, "reference", "colors")
        if len(t) > 1 and self.options.words:
            metrics["val_loss_other_words"] = loss(batch, *words)
        if len(t) > 1 and self.options.words == 1:  # the reference tells most of what words could
            without = batch | LEFT_OUT["reference"](batch)
            metrics["val_loss_no_reference"], metrics["val_loss_no_reference_other_words"] = loss(without), loss(without, *words)
        tenths = t * 10 // self.schedule.num_train_timesteps
        return metrics | {f"val_mse_{tenth}": right[tenths == tenth] for tenth in range(10)}

    def to_minimise(self, metrics: dict[str, float]) -> float:
        return metrics["val_loss"]

    def preview(self, pairs: list[Pair]) -> list[list[np.ndarray]]:
        """Rows of pictures, uint8 [H, W, 3], under `columns`. The reference of a picture is the next one's photo; its words are its own."""
        return (described_rows if self.options.words == 2 else preview_rows)(self.painter(), pairs, PREVIEW)

    def painter(self) -> LatentDiffusion:
        return LatentDiffusion(self.options, self.vae, self.unet, self.conditioner, self.words)
