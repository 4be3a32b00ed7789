"""What there is: each system's stages in order, what paints with it, and its presets. The one place that lists them.

A new system is a network file, a stage file, a painter file, and a line in SYSTEMS.
"""

from dataclasses import replace
from pathlib import Path

from datasets.text_pairs import check_described_pairs
from models.painters.ecgan import ECGANPainter
from models.painters.latent_diffusion import LatentDiffusion
from models.painters.lggan import LGGANPainter
from models.painters.text_diffusion import TextDiffusion
from models.stages.control import ControlStage
from models.stages.decoder import DecoderStage, JointDecoderStage
from models.stages.ecgan import ECGANStage
from models.stages.joint import JointStage
from models.stages.lggan import LGGANStage
from models.stages.rcan import RCANStage
from models.stages.segformer import SegformerStage
from models.stages.style import StyleStage
from models.stages.unet import UNetStage
from models.stages.vae import VAEStage
from models.training.run import System, read_json, run_of
from utils.errors import UserError

# `base` has the shape of Stable Diffusion v1, so that its weights can start it. Steps and batches of `small` are for one card of 24 GB and
# a day, those of `tiny` for two CPU cores and minutes. Its UNet starts linearly, as it has fewer than a hundred steps: after a
# thousand, pictures are better where it predicts all. It learns fast, and without so tight a clip of its gradients it has collapsed on real
# photos after two thousand steps, with activations in the millions.
SMALL = {"width": 256, "height": 192, "ema": 0.999}
TINY = {"width": 256, "height": 192, "warmup": 25, "ema": 0.99, "validate_every": 500, "preview_every": 500, "save_every": 100}

DIFFUSION = {
    "base": {
        "vae": VAEStage.Options(),
        "unet": UNetStage.Options(steps=200_000),
        "decoder": DecoderStage.Options(steps=50_000, lr=2e-4),
        "control": ControlStage.Options(steps=50_000, lr=5e-5),
        "joint": JointStage.Options(steps=50_000, lr=5e-5),
    },
    "small": {
        "vae": VAEStage.Options(
            **SMALL, channels=(64, 128, 256, 256), steps=50_000, batch_size=16, crop_width=128, crop_height=128, lr=2e-4
        ),
        "unet": UNetStage.Options(
            **SMALL, channels=(192, 384, 576, 768), attention=(0, 1, 1, 1), cross_attention_dim=512, steps=100_000, batch_size=32, lr=2e-4
        ),
        "decoder": DecoderStage.Options(**SMALL, steps=20_000, batch_size=16, crop_width=128, crop_height=128, lr=2e-4),
        "control": ControlStage.Options(**SMALL, steps=20_000, batch_size=16, lr=1e-4),
        "joint": JointStage.Options(**SMALL, steps=20_000, batch_size=16, crop_width=128, crop_height=128, lr=1e-4, vae_lr=5e-5),
    },
    "tiny": {
        "vae": VAEStage.Options(
            **TINY, channels=(16, 32, 64, 96), layers=1, norm_groups=4, steps=100, batch_size=4, crop_width=96, crop_height=64, lr=5e-4
        ),
        "unet": UNetStage.Options(
            **TINY, channels=(64, 128, 192), layers=1, attention=(0, 0, 1), heads=4, norm_groups=4, cross_attention_dim=128,
            mask_channels=(16, 32, 64), linear_start=1, steps=85, batch_size=8, lr=1e-3, max_norm=0.3, text_channels=128,
            text_layers=2, text_vocabulary=1024,
        ),
        "decoder": DecoderStage.Options(
            **TINY, steps=190, batch_size=2, crop_width=128, crop_height=128, lr=4e-4, perceptual_weight=0.25, adversarial_weight=0.01,
            painted=32,
        ),
        "control": ControlStage.Options(**TINY, hint_channels=(8, 16, 32, 64), rank=8, steps=200, lr=5e-4),
        "joint": JointStage.Options(
            **TINY, steps=200, batch_size=4, crop_width=128, crop_height=128, lr=2e-4, vae_lr=1e-4, perceptual_weight=0.25,
            adversarial_weight=0.01,
        ),
    },
}  # fmt: skip

DIFFUSION = {  # stage joint_decoder does what stage decoder does
    preset: stages | {"joint_decoder": JointDecoderStage.Options(**vars(stages["decoder"]))} for preset, stages in DIFFUSION.items()
}

# `base` is the shape and the training of the published system, 300 epochs of 43,294 pictures; its text encoder is CLIP ViT-B/32
# (--unet_text_encoder), its autoencoder Stable Diffusion v1's (--init_vae). The way up attends where the way down does.
ALONE = {"words": 2, "linear_start": 0}
TEXT = {
    "base": {
        "vae": VAEStage.Options(width=256, height=256),
        "unet": UNetStage.Options(
            **ALONE, width=256, height=256, channels=(256, 384, 512, 768), attention=(1, 0, 1, 0), cross_attention_dim=512,
            text_channels=512, text_layers=6, steps=101_000, batch_size=64, accumulate=2,
        ),
        "style": StyleStage.Options(width=256, height=256),
    },
    "small": {
        "vae": DIFFUSION["small"]["vae"],
        "unet": replace(DIFFUSION["small"]["unet"], **ALONE),
        "style": StyleStage.Options(width=256, height=192),
    },
    "tiny": {
        "vae": DIFFUSION["tiny"]["vae"],
        "unet": replace(DIFFUSION["tiny"]["unet"], **ALONE, steps=400),
        "style": StyleStage.Options(**TINY, steps=300, batch_size=4, lr=2e-3, text_lr=1e-3),
    },
}  # fmt: skip

JUDGE = {
    "base": {"segformer": SegformerStage.Options(steps=80_000, batch_size=16, lr=2e-4)},
    "small": {"segformer": SegformerStage.Options(**SMALL, network="b1", steps=40_000, batch_size=16, lr=2e-4)},
    "tiny": {"segformer": SegformerStage.Options(**TINY, network="b0", steps=200, lr=1e-3)},
}

ECGAN = {
    "base": {"ecgan": ECGANStage.Options(steps=200_000, batch_size=4)},
    "small": {
        "ecgan": ECGANStage.Options(
            **SMALL, channels=(512, 512, 512, 256, 128, 64), hidden=64, style_channels=(64, 128, 256, 512, 512), style_size=128,
            steps=100_000, batch_size=8,
        ),
    },
    "tiny": {
        "ecgan": ECGANStage.Options(
            **TINY | {"width": 128, "height": 96}, channels=(64, 64, 48, 32, 16), hidden=24, style=32, style_channels=(16, 32, 64),
            style_size=64, discriminator_channels=16, steps=400, batch_size=2, lr=2e-3, l1_weight=50.0, feature_weight=2.0, kl_weight=0.01,
            projected_weight=1.0,
        ),
    },
}  # fmt: skip

LGGAN = {
    "base": {"lggan": LGGANStage.Options()},
    "small": {"lggan": LGGANStage.Options(steps=150_000, batch_size=4, lr=2e-4, ema=0.999)},
    "tiny": {
        "lggan": LGGANStage.Options(
            **TINY | {"width": 128, "height": 96}, channels=8, blocks=3, discriminator_channels=16, steps=400, batch_size=2, lr=1e-3,
        ),
    },
}  # fmt: skip

# `base` is the published network and its training. All but `tiny` learn to double 256x192, which is what the small painters make.
SUPER_RESOLUTION = {
    "base": {"rcan": RCANStage.Options()},
    "small": {"rcan": RCANStage.Options(groups=5, blocks=10, steps=20_000, halve_every=5000)},
    "tiny": {
        "rcan": RCANStage.Options(
            **TINY, groups=2, blocks=4, channels=32, reduction=4, patch=64, steps=1500, batch_size=8, lr=1e-3, halve_every=500
        )
    },
}  # fmt: skip

SYSTEMS = {
    "diffusion": System(
        (VAEStage, UNetStage, DecoderStage, ControlStage, JointStage, JointDecoderStage),
        LatentDiffusion,
        DIFFUSION,
        optional=("control", "joint", "joint_decoder"),
    ),
    "text": System((VAEStage, UNetStage, StyleStage), TextDiffusion, TEXT, check=check_described_pairs, optional=("style",)),
    "ecgan": System((ECGANStage,), ECGANPainter, ECGAN),
    "lggan": System((LGGANStage,), LGGANPainter, LGGAN),
    "judge": System((SegformerStage,), None, JUDGE),  # of the score's mask accuracy
    "sr": System((RCANStage,), None, SUPER_RESOLUTION),  # enlarges what any painter paints
}
DEFAULT = "diffusion"


def system_of(folder: Path, restart: bool) -> str:
    """The system of the run in a folder; the default one where there is no run, or one that cannot be read is begun anew."""
    try:
        name = read_json(folder)["system"] if (folder / "run.json").is_file() else DEFAULT
    except UserError:
        if not restart:
            raise
        return DEFAULT
    if name not in SYSTEMS:
        raise UserError(f"{folder / 'run.json'} names system {name}, which does not exist: choose {', '.join(SYSTEMS)}")
    return name


def painter_file(folder: Path) -> Path | None:
    """The file that a run has when it can be painted with."""
    system = SYSTEMS.get(read_json(folder)["system"])
    return folder / system.painter.marker / "config.json" if system and system.painter else None


def painting_system(checkpoint: Path | None) -> str:
    """The system that paints with a run or its `best`; the default one where there is no run. Raises UserError where it paints nothing."""
    folder = run_of(checkpoint) if checkpoint else None
    name = read_json(folder)["system"] if folder and (folder / "run.json").is_file() else DEFAULT
    if name not in SYSTEMS or SYSTEMS[name].painter is None:
        raise UserError(f"{folder} is a run of system {name}, which does not paint: name another run with --checkpoint")
    return name
