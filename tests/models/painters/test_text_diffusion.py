"""What has been learnt of a style is painted with where a caption names it, beside the weights that it was learnt beside."""

import jittor as jt
import numpy as np
import pytest

from models.networks.lora import adapt
from models.networks.lora_files import Adapters
from models.networks.pretrained import load_network, save_network
from models.networks.prompt_enhancement import PromptEnhancement, PromptEnhancementConfig
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.painters.text_diffusion import TextDiffusion, TextOptions, enhancement_in, in_its_style
from models.systems import SYSTEMS
from models.training.run import read_run
from tests.test_style_commands import write_small_text_run
from utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of words alone with a style, and with a best UNet and a best style of other steps."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    write_small_text_run(folder, ["a lake"])
    run = read_run(folder, SYSTEMS)
    unet = load_network(UNet2DConditionModel, UNet2DConditionConfig, folder / "unet")
    adapters = Adapters(2, {"unet": adapt(unet, rank=2)}, "a dark night")
    enhancement = PromptEnhancement(PromptEnhancementConfig(16, 4, 8, 12))
    enhancement.to_channels.bias.update(jt.ones(16))
    for number, place in enumerate(("style/01", "style/01/best")):
        adapters.lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight.update(jt.ones(32, 2) * number)
        save_network(adapters, adapters.state_dict(), folder / place / "adapter", number)
        save_network(enhancement, enhancement.state_dict(), folder / place / "enhancement", number)
    other = UNet2DConditionModel(unet.config)
    save_network(other, other.state_dict(), folder / "best" / "unet", 1)
    return run


def test_the_best_of_a_style_stands_beside_the_runs_own_unet(run):
    ups = []
    for place in (run.folder, run.folder / "best"):
        painter = TextDiffusion.load(run, place)
        adapter = painter.style_folder("a lake, style01") / "adapter"
        options = in_its_style(TextOptions(), adapter)
        assert options.negative_prompt == "a dark night" and adapter.is_relative_to(place) == (place == run.folder)
        before = painter.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.numpy()
        painter.adapt(options)  # which refuses one that was learnt beside another UNet
        ups.append(painter.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.numpy() - before)
    assert not ups[0].any() and ups[1].any()
    with pytest.raises(UserError, match=r"style02.* of which .*style/02/best holds nothing learnt"):
        painter.style_folder("a lake, style02")
    assert painter.style_folder("a lake") is None


def test_what_pictures_look_like_joins_the_words_that_are_told(run):
    painter = TextDiffusion.load(run, run.folder)
    plain = painter.told_words(["a lake"])
    painter.enhancement = enhancement_in(run.folder / "style" / "01")
    told = painter.told_words(["a lake"])
    np.testing.assert_allclose(told["states"] - plain["states"], painter.enhancement().numpy(), atol=1e-6)
    assert (told["states"] != plain["states"]).any() and np.array_equal(told["pooled"], plain["pooled"])


def test_options_of_masks_and_references_are_refused():
    assert TextOptions().faults() == []
    (fault,) = TextOptions(guidance=2.0, control_weight=2.0).faults()
    assert fault == "--guidance, --control_weight: this run knows neither masks nor references"
