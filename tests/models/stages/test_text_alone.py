"""Pictures of words alone."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets import test_pairs
from datasets.loader import stack
from models.networks.pretrained import save_network
from models.painters.pictures import painted
from models.painters.text_diffusion import TextDiffusion, TextOptions
from models.stages.unet import UNetStage
from models.systems import SYSTEMS
from models.training.loop import save
from tests.models.stages.test_stages import untrained_autoencoder
from tests.small import COMMON, OPTIONS, OWN
from utils.checkpoint import module_arrays

TEXT = replace(SYSTEMS["text"].presets["tiny"]["unet"], **COMMON | OWN["unet"], text_channels=16, text_layers=1, text_vocabulary=300)


def test_a_run_of_words_alone_has_neither_masks_nor_references(pairs, tmp_path):
    assert TEXT.faults({"vae": OPTIONS["vae"]}) == []
    described = [replace(pair, mask=None, captions=(f"picture {i}",)) for i, pair in enumerate(pairs)]
    jt.set_global_seed(0)
    vae = untrained_autoencoder()
    save_network(vae, module_arrays(vae), tmp_path / "vae")
    stage = UNetStage(TEXT, tmp_path)
    training_set, validation_set = stage.datasets(described, described[:2])
    assert training_set.example(0, np.random.default_rng(0)).keys() == {"latent", "noise", "time", "ids", "described"}
    empty = [(training_set.example(0, np.random.default_rng((5, i)))["ids"] != 1).sum() == 1 for i in range(600)]
    assert 0.06 < np.mean(empty) < 0.14
    stage.train_step([stack([training_set.example(i, np.random.default_rng(i)) for i in range(2)])], 0)
    found = stage.validate(stack([validation_set.example(i, np.random.default_rng(i)) for i in range(2)]))
    assert {name for name in found if "mse" not in name} == {"val_loss", "val_loss_other_words"}
    rows = stage.preview(described[:2])
    assert [len(row) for row in rows] == [2, 2] == [len(stage.columns)] * 2
    assert stage.unet.config.in_channels == 4
    save(stage, tmp_path, 1, 2)

    painter = TextDiffusion.of(TEXT, stage.vae, tmp_path)
    asked = [test_pairs.TestPair(name, None, None, text) for name, text in (("a", "picture 1"), ("b", "picture 2"), ("c", "picture 1"))]
    pictures = painted(painter, asked, TextOptions(steps=2), seed=0, candidate=0, color="none")
    assert pictures.shape == (3, 64, 96, 3)
    assert not np.array_equal(pictures[0], pictures[2])  # each has a seed of its own
    (alone,) = painted(painter, asked[1:2], TextOptions(steps=2), seed=0, candidate=0, color="none")
    assert np.abs(alone.astype(int) - pictures[1]).max() <= 1
    other = painted(painter, [replace(asked[0], caption="picture 3")], TextOptions(steps=2), seed=0, candidate=0, color="none")
    assert not np.array_equal(other[0], pictures[0])


@pytest.mark.parametrize("given", [{"guidance": 2.0}, {"ref_start": 0.5}, {"prior_start": 0.5}, {"told": ("words",)}])
def test_options_of_masks_and_references_are_refused(given):
    assert TextOptions().faults() == [] and next(iter(given)) in TextOptions(**given).faults()[0]
