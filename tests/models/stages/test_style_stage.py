"""Styles are learnt one after the other by one command, each for itself, and painted by what a caption says."""

import math
from dataclasses import replace

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

from datasets.styles import check_styles
from datasets.synthetic.write_styles import write_styles
from models.networks.pretrained import load_network, save_network
from models.networks.prompt_enhancement import PromptEnhancement, PromptEnhancementConfig
from models.painters.text_diffusion import TextDiffusion, TextOptions
from models.stages.style import StyleStage
from models.stages.unet import UNetStage
from models.training.loop import save, train
from models.training.run import Run, begun_stages, parts, write_run
from tests.models.stages.test_stages import untrained_autoencoder
from tests.models.stages.test_text_alone import TEXT
from tests.small import OPTIONS
from utils.checkpoint import module_arrays, read_weights
from utils.errors import UserError
from utils.stop import Stop


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of words alone whose UNet has learnt nothing, and two styles that have been learnt a little."""
    folder, pictures = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("styles") / "drawn"
    write_styles(pictures, styles=2, pictures=3, prompts=1, size=(96, 64))
    (pictures / "02" / "negative_prompt.txt").write_text("a dark \n night")
    jt.set_global_seed(0)
    vae = untrained_autoencoder()
    save_network(vae, module_arrays(vae), folder / "vae")
    unet = UNetStage(TEXT, folder)
    all_pairs = [pair for pairs in check_styles(pictures).values() for pair in pairs]
    unet.datasets(all_pairs, all_pairs)
    save(unet, folder, 1, 2)
    style = replace(OPTIONS["style"], pictures=str(pictures), lr=1e-2, text_lr=1e-3, prior_weight=0.5)
    run = Run(folder, "text", "tiny", {"vae": OPTIONS["vae"], "unet": TEXT, "style": style})
    write_run(run)
    run_styles(run, all_pairs)
    return run


def run_styles(run, pairs):
    for part in parts(StyleStage, run):
        jt.set_global_seed(0)
        assert train(StyleStage(run.options["style"], part.folder), (pairs, pairs[:2]), part, [], 0, Stop(math.inf))


def test_each_style_has_adapters_of_its_own_and_the_run_is_left(run):
    assert [part.folder.name for part in parts(StyleStage, run)] == ["01", "02"]
    assert begun_stages(run.folder) == {"unet", "style"}
    first, second = (read_weights(run.folder / "style" / number / "adapter") for number in ("01", "02"))
    assert first.keys() == second.keys() and {name.split(".")[0].split("_")[1] for name in first} == {"unet", "te"}
    assert all(np.abs(array).max() > 0 and not np.array_equal(array, second[name]) for name, array in first.items() if "lora_up" in name)
    state = load_file(run.folder / "style" / "01" / "state" / "style" / "step-00000004.safetensors")
    assert {name.split(".")[2] for name in state if name.startswith("style.model.")} == {"adapter", "enhancement"}
    assert (run.folder / "style" / "02" / "previews" / "style-00000004.png").is_file()


def test_the_text_encoder_learns_at_its_own_rate(run):
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    stage = StyleStage(replace(run.options["style"], warmup=1, weight_decay=0.0), parts(StyleStage, run)[0].folder)
    training_set, _ = stage.datasets([], [])
    ups = {name: var for name, var in stage.adapter.named_parameters() if "lora_up" in name}
    batch = {name: np.stack([array]) for name, array in training_set.example(0, np.random.default_rng(0)).items()}
    lr = stage.train_step([batch], 0)["lr"]
    for name, var in ups.items():
        expected = lr * (0.1 if name.startswith("lora_te") else 1)
        assert 0.5 * expected < np.abs(var.numpy()).max() < 1.01 * expected, name


@pytest.mark.bit_for_bit
def test_styles_go_on_to_the_same_bytes_and_are_painted_by_what_the_caption_says(run):
    last = run.folder / "style" / "02" / "state" / "style" / "step-00000004.safetensors"
    before = last.read_bytes()
    last.unlink()
    all_pairs = [pair for pairs in check_styles(run.options["style"].pictures).values() for pair in pairs]
    run_styles(run, all_pairs)
    assert last.read_bytes() == before

    painter = TextDiffusion.load(run, run.folder)

    def painted(*captions, **options):
        return painter.paint(None, None, list(captions), [1] * len(captions), TextOptions(steps=2, text_guidance=2.0, **options))

    with pytest.raises(UserError, match=r"style03.* holds nothing learnt"):
        painted("a lake, style03")
    captions = ("a lake, style01", "a lake, style02", "a lake", "a lake, style01")
    together = painted(*captions)
    assert np.abs(together[0].astype(int) - together[3]).max() <= 1
    alone = [painted(caption)[0] for caption in captions[:3]]
    assert all(np.abs(one.astype(int) - other).max() <= 1 for one, other in zip(alone, together, strict=False))
    assert not np.array_equal(alone[0], alone[1]) and not np.array_equal(alone[1], alone[2])
    assert np.array_equal(painted(captions[1], negative_prompt="a dark night")[0], alone[1])
    assert not np.array_equal(painted(captions[1], negative_prompt="people")[0], alone[1])


def test_the_enhancement_knows_no_picture_at_first_and_goes_round(tmp_path):
    enhancement = PromptEnhancement(PromptEnhancementConfig(16, 4, 8, 12))
    posteriors = np.random.default_rng(0).standard_normal((3, 2, 4, 8, 12)).astype(np.float32)
    before = enhancement().numpy()
    enhancement.take(posteriors)
    assert before.shape == (1, 77, 16) and np.array_equal(enhancement().numpy(), before)
    np.testing.assert_allclose(enhancement.latents.numpy()[0, :4], posteriors[:, 0].mean(axis=0), atol=1e-6)
    enhancement.conv1.weight.update(jt.ones_like(enhancement.conv1.weight))
    save_network(enhancement, module_arrays(enhancement), tmp_path)
    again = load_network(PromptEnhancement, PromptEnhancementConfig, tmp_path)
    assert not np.array_equal(again().numpy(), before) and np.array_equal(again().numpy(), enhancement().numpy())
    square = PromptEnhancement(PromptEnhancementConfig(1024, 4, 64, 64))
    assert square.to_channels is None and tuple(square().shape) == (1, 77, 1024)
