import json
from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.networks.clip import CLIPTextConfig, read_text_config, tokenize
from models.networks.conditioner import Conditioner, ConditionerConfig, Conditions, joined
from models.networks.text_encoder import (
    LEAST_VOCABULARY,
    TextEncoder,
    load_own_tokenizer,
    load_text_encoder,
    save_tokenizer,
    small_text_encoder,
    text_channels,
    train_tokenizer,
)
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from tests.golden.networks import TIMESTEPS, UNETS, normal, unet_inputs, weights
from utils.checkpoint import load_strict, write_safetensors
from utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "text.npz")
TEXTS = GOLDEN["texts"].tolist()
CAPTIONS = ["a lake at dusk, first snow", "a lake in summer", "hills at dusk", "Der See im Schnee — 山水"]


def shapes(network):
    return {name: list(weight.shape) for name, weight in network.state_dict().items()}


def write_encoder(folder, prefix="text_model.", others=()):
    """The small text encoder of export_text.py; older files count positions, and those of a whole CLIPModel hold more."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(str(GOLDEN["config"]))
    arrays = weights(shapes(TextEncoder(read_text_config(folder / "config.json"))))
    arrays |= {"text_model.embeddings.position_ids": np.arange(77)[None]}
    arrays = {f"{prefix}{name.removeprefix('text_model.')}": array for name, array in arrays.items()}
    write_safetensors(folder / "model.safetensors", arrays | {name: np.ones(3, np.float32) for name in others})


def write_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in (("vocab.json", "vocab"), ("merges.txt", "merges"), ("special_tokens_map.json", "special")):
        (folder / name).write_text(str(GOLDEN[key]), encoding="utf-8")


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """A whole one, of which only the text encoder is there."""
    root = tmp_path_factory.mktemp("sd")
    write_encoder(root / "text_encoder")
    write_tokenizer(root / "tokenizer")
    return root


def agrees(value, key, tolerance=1e-5):
    expected = GOLDEN[key]
    return value.shape == expected.shape and np.abs(value - expected).max() < tolerance * np.abs(expected).max()


def test_states_agree_with_transformers_wherever_the_folder_begins(stable_diffusion):
    for folder in (stable_diffusion, stable_diffusion / "text_encoder"):
        words = load_text_encoder(folder)
        assert np.array_equal(words.ids(TEXTS), GOLDEN["ids"])  # filled with "!", as special_tokens_map.json says
        told = words.told(TEXTS)
        assert agrees(told["states"], "states") and agrees(told["pooled"], "pooled")
        assert text_channels(folder) == 24 and all(parameter.is_stop_grad() for parameter in words.encoder.parameters())


@pytest.mark.parametrize("prefix, others", [("", ()), ("text_model.", ("visual_projection.weight", "vision_model.embeddings.x"))])
def test_files_of_a_clip_model_and_of_newer_names_are_read(prefix, others, tmp_path):
    write_encoder(tmp_path / "clip", prefix, others)
    write_tokenizer(tmp_path / "clip")
    assert agrees(load_text_encoder(tmp_path / "clip").told(TEXTS)["pooled"], "pooled")


def test_attention_over_words_beside_other_tokens_agrees_with_diffusers():
    unet = UNet2DConditionModel(UNet2DConditionConfig(**UNETS["ours"]))
    load_strict(unet, weights(shapes(unet)), "networks.py")
    config = ConditionerConfig(conditions=("words",), cross_attention_dim=24, text_channels=24, num_color_statistics=3)
    assert config.num_statistics == 12
    conditioner = Conditioner(config)
    names = {f"words_encoder.{name}": array for name, array in weights(
        {"project.weight": (24, 24), "project.bias": (24,), "pooled.weight": (12, 24), "pooled.bias": (12,)}
    ).items()}  # fmt: skip
    load_strict(conditioner, names, "networks.py")
    inputs = unet_inputs("ours")
    words = conditioner({"words": {"states": GOLDEN["states"][:2], "pooled": GOLDEN["pooled"][:2]}})
    others = Conditions(tokens=jt.array(normal("reference tokens", 2, 5, 24)), statistics=jt.array(inputs["class_labels"]))
    told = joined([others, words])
    assert told.tokens.shape == (2, 5 + 77, 24)
    with jt.no_grad():
        output = unet(jt.array(inputs["sample"]), TIMESTEPS, told.tokens, class_labels=told.statistics)
    assert agrees(output.numpy(), "joined", 1e-4)


@pytest.mark.parametrize("name, config", [
    ("vit_b_32", {}),
    ("sd1", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}),
    ("sd2.1", {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23, "hidden_act": "gelu"}),
])  # fmt: skip
def test_names_and_shapes_of_published_text_encoders(name, config):
    ours = shapes(TextEncoder(CLIPTextConfig(**config)))
    assert [f"{n} {s}" for n, s in sorted(ours.items())] == str(GOLDEN[f"manifest/{name}"]).split("\n")


def test_states_start_as_they_are_where_widths_agree_and_add_nothing_to_the_statistics():
    states, pooled = normal("states", 2, 77, 24), normal("pooled", 2, 24)
    config = ConditionerConfig(conditions=("words",), cross_attention_dim=24, text_channels=24)
    told = Conditioner(config)({"words": {"states": states, "pooled": pooled}})
    np.testing.assert_allclose(told.tokens.numpy(), states, atol=1e-5)
    assert told.statistics.shape == (2, config.num_statistics) and not told.statistics.numpy().any()


def test_every_weight_of_a_text_encoder_of_ones_own_learns(tmp_path):
    save_tokenizer(train_tokenizer(CAPTIONS, 300), tmp_path)
    encoder = small_text_encoder(300, channels=16, layers=1, heads=2)
    states, pooled = encoder(tokenize(load_own_tokenizer(tmp_path), CAPTIONS))
    assert states.shape == [4, 77, 16] and pooled.shape == [4, 16]
    loss = sum((x * jt.array(normal(name, *x.shape))).sum() for name, x in (("a", states), ("b", pooled)))
    parameters = dict(encoder.named_parameters())
    for name, gradient in zip(parameters, jt.grad(loss, list(parameters.values())), strict=True):
        assert name.endswith("k_proj.bias") or np.abs(gradient.numpy()).max() > 1e-3, name  # softmax takes that away


def test_a_tokenizer_of_ones_own_is_the_same_each_time_and_knows_any_text(tmp_path):
    tokenizer = train_tokenizer(CAPTIONS * 3, 300)
    assert tokenizer.to_str() == train_tokenizer(CAPTIONS * 3, 300).to_str()
    assert LEAST_VOCABULARY < tokenizer.get_vocab_size() <= 300
    save_tokenizer(tokenizer, tmp_path)
    ids = tokenize(load_own_tokenizer(tmp_path), ["", "A lake  at\ndusk", "a lake at dusk", "瀑布 🏔", "hill " * 100])
    assert ids.shape == (5, 77) and ids[:, 0].tolist() == [0] * 5 and (ids[0, 1:] == 1).all() and np.array_equal(ids[1], ids[2])
    assert len(set(ids[3])) > 4 and ids[4, -1] == 1 and (ids[4, :-1] != 1).all()


def test_what_is_missing_or_damaged_is_told(stable_diffusion, tmp_path):
    with pytest.raises(UserError, match=r"config\.json: No such file"):
        load_text_encoder(tmp_path)
    write_encoder(tmp_path / "a")
    with pytest.raises(UserError, match=r"tokenizer\.json: No such file"):
        load_text_encoder(tmp_path / "a")
    write_tokenizer(tmp_path / "a")
    (tmp_path / "a" / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    with pytest.raises(UserError, match="<pad>"):
        load_text_encoder(tmp_path / "a")
    (tmp_path / "a" / "vocab.json").write_text("[]")
    with pytest.raises(UserError, match=r"vocab\.json is damaged"):
        load_text_encoder(tmp_path / "a")
    with pytest.raises(UserError, match="understands no other"):
        load_own_tokenizer(tmp_path / "nowhere")
