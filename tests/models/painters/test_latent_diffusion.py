"""Guidance costs only where it is wanted, and adapters are there as long as they are."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from models.diffusion.samplers import seeded_noise
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.conditioner import Conditioner
from models.networks.linear_start import noisy_start
from models.networks.lora import adapt, adapter_of
from models.networks.lora_files import write_adapter
from models.networks.unet_2d_condition import UNet2DConditionModel
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions
from models.painters.lggan import LGGANPainter
from models.painters.pictures import usual_color
from tests.small import OPTIONS
from utils.checkpoint import module_arrays
from utils.errors import UserError


@pytest.fixture(scope="module")
def painter():
    jt.set_global_seed(0)
    vae, options = AutoencoderKL(OPTIONS["vae"].network), OPTIONS["unet"]
    vae.config.scaling_factor = 1.0
    return LatentDiffusion(options, vae, UNet2DConditionModel(options.network(vae.config)), Conditioner(options.conditioner(vae.config)))


@pytest.mark.parametrize("options, expected", [
    ({}, [6, 6, 6, 6]),
    ({"guidance": 1.0, "ref_guidance": 1.0}, [2, 2, 2, 2]),
    ({"guidance_low": 0.5}, [6, 6, 2, 2]),
    ({"guidance_low": 0.3, "guidance_high": 0.8}, [2, 6, 6, 2]),
])  # fmt: skip
def test_branches_are_evaluated_only_inside_the_interval(painter, monkeypatch, options, expected):
    """Pictures at once, at levels of noise 1, 0.75, 0.5 and 0.25."""
    seen, execute = [], UNet2DConditionModel.execute
    monkeypatch.setattr(UNet2DConditionModel, "execute", lambda self, x, *a, **k: seen.append(len(x)) or execute(self, x, *a, **k))
    rng = np.random.default_rng(0)
    masks, references = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8)
    pictures = painter.paint(
        masks, references, ["", ""], [1, 2], PaintingOptions(steps=4, **{"guidance_low": 0.0, "guidance_high": 1.0} | options)
    )
    assert seen == expected and pictures.shape == references.shape and pictures.dtype == np.uint8


def test_painting_starts_from_what_its_mask_and_reference_let_one_expect(painter, monkeypatch):
    options = replace(OPTIONS["unet"], linear_start=2)
    painter = replace(painter, options=options, conditioner=Conditioner(options.conditioner(painter.vae.config)))
    rng = np.random.default_rng(0)
    for name, size in (("mean", 4), ("classes", (8, 29)), ("power", (4, 4, 8, 12))):
        getattr(painter.conditioner.linear_start, name).update(jt.array(rng.uniform(0.1, 2, size).astype(np.float32))).stop_grad()
    masks, references = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8)
    seen, execute = [], UNet2DConditionModel.execute
    monkeypatch.setattr(
        UNet2DConditionModel, "execute", lambda self, x, *a, **k: seen.append(x[:, :4].numpy()) or execute(self, x, *a, **k)
    )

    def first(masks=masks, references=references, **changed):
        """What the UNet sees first of the two pictures, without guidance unless that is changed."""
        seen.clear()
        options = {"steps": 2, "guidance": 1.0, "ref_guidance": 1.0} | changed
        painter.paint(masks, references, ["", ""], [1, 2], PaintingOptions(**options))
        return seen[0]

    noise, latents = seeded_noise([1, 2], (4, 8, 12))(0), painter.latents_of(references)
    colors = np.zeros((2, 54), np.float32)
    told = {"mask": {"mask": masks}, "reference": {"latents": latents, "colors": colors, "known": np.ones(2, np.float32)}}
    alpha, sigma = (float(part(599)) for part in (painter.options.schedule.alpha, painter.options.schedule.sigma))
    expected = noisy_start(jt.array(noise), alpha, sigma, *painter.conditioner(told).estimate).numpy()
    np.testing.assert_allclose(first(prior_start=0.6), expected, atol=1e-5)
    assert np.array_equal(first(prior_start=1.0), noise)
    assert np.array_equal(first(ref_start=0.6), painter.options.schedule.add_noise(latents, noise, 599))  # has the last word
    others = np.zeros_like(masks)
    assert np.abs(first(others, prior_start=0.6) - expected).max() > 0.1
    assert np.abs(first(references=references // 2, prior_start=0.6) - expected).max() > 1e-4  # rounding is 1e-6
    guided = first(prior_start=0.6, guidance=3.0, ref_guidance=1.5)
    np.testing.assert_allclose(guided, np.concatenate([expected] * 3), atol=1e-5)  # of all that is told, in every branch
    assert PaintingOptions(ref_start=0.6, prior_start=0.6).faults() == ["--ref_start and --prior_start: give one of them"]
    alone = {"told": ("reference",), "prior_start": 0.6}
    assert np.array_equal(first(**alone), first(others, **alone))  # a mask that is not told changes nothing


def test_colours_are_not_matched_to_the_reference_where_words_say_what_they_are():
    for options, expected in (
        (PaintingOptions(), "histogram"),
        (PaintingOptions(prompt="a lake at dusk"), "none"),
        (PaintingOptions(prompts="file.json"), "none"),
        (PaintingOptions(told=("mask", "words")), "none"),
    ):
        assert usual_color(LatentDiffusion, options) == expected
    assert usual_color(LGGANPainter, LGGANPainter.Options()) == "lab"


def test_an_option_that_would_do_nothing_is_refused(painter):
    masks, references = np.zeros((1, 64, 96), np.uint8), np.zeros((1, 64, 96, 3), np.uint8)
    for options, words in (
        ({"prompt": "a lake"}, "--prompt, "),
        ({"control_weight": 2.0}, "--control_weight: nothing that paints"),
        ({"prior_start": 0.9}, "--prior_start: this run paints from pure noise"),
    ):
        with pytest.raises(UserError, match=words):
            painter.paint(masks, references, [""], [1], PaintingOptions(**options))


def test_adapters_are_merged_for_as_long_as_they_are_asked_for(painter, tmp_path):
    other = UNet2DConditionModel(painter.unet.config)
    adapt(other, rank=2)
    adapter = {name: (down, np.ones_like(up)) for name, (down, up) in adapter_of(other).items()}
    write_adapter(tmp_path / "a:b.safetensors", {"unet": adapter}, {"unet": painter.unet}, {})
    before = module_arrays(painter.unet)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8), ["", ""], [1, 2]
    file, small = str(tmp_path / "a:b.safetensors"), {"steps": 2, "guidance": 1.0, "ref_guidance": 1.0}

    def painted(*lora):
        options = PaintingOptions(**small, lora=lora)
        assert options.faults() == []
        return painter.paint(*inputs, options)

    plain, whole, half = painted(), painted(file), painted(f"{file}:0.5")
    assert not np.array_equal(plain, whole) and not np.array_equal(whole, half)
    assert np.array_equal(painted(f"{file}:0.25", f"{file}:0.25"), half)
    assert np.array_equal(painted(), plain)
    after = module_arrays(painter.unet)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert PaintingOptions(lora=(f"{file}:0,5", "", "\n")).faults() == [
        f"--lora: there is no adapter {file}:0,5",
        "--lora: there is no adapter .",
        "--lora: there is no adapter \n",
    ]
