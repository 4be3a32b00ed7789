"""Adapters of low rank compute what peft's do, in whatever way they come to the network, and leave it as it was."""

import json
import shutil

import jittor as jt
import numpy as np
import pytest

from models.networks.layers import autocast
from models.networks.lora import adapt, adapter_of, merge, unmerge
from models.networks.lora_files import Adapters, read_adapter, write_adapter
from models.networks.pretrained import WEIGHTS, save_network
from models.networks.text_encoder import small_text_encoder
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from models.training.learner import unfrozen
from tests.golden.networks import LORA, LORA_LAYERS, TIMESTEPS, UNETS, gradient_summary, normal, weights
from tests.models.networks.test_unet_2d_condition import GOLDEN, tiny_unet
from utils.checkpoint import load_vars, module_arrays, read_metadata, read_weights, write_safetensors
from utils.errors import UserError


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "adapters.npz")


def adapted_unet():
    """The UNet "ours" with the adapter that the reference values were measured with."""
    unet, inputs = tiny_unet("ours")
    adapt(unet, LORA["rank"], LORA["alpha"] / LORA["rank"], LORA_LAYERS)
    own = unfrozen(unet)
    load_vars(own, weights({name: tuple(var.shape) for name, var in own.items()}), "networks.py", "the adapter")
    return unet, inputs


def close(a, b, tolerance=1e-5):
    return np.abs(a - b).max() < tolerance * np.abs(b).max()


def test_output_and_gradients_agree_with_peft_and_the_rest_is_frozen(golden):
    unet, inputs = adapted_unet()
    own = unfrozen(unet)
    assert {name.rsplit(".", 2)[0] for name in own} == {*LORA_LAYERS} and len(own) == 2 * len(LORA_LAYERS)
    assert {name for name, var in unet.named_parameters() if not var.is_stop_grad()} == own.keys()
    output = unet(timestep=TIMESTEPS, **inputs)
    gradients = jt.grad((output * jt.array(normal("lora", *output.shape))).sum(), list(own.values()))
    assert close(output.numpy(), golden["lora"])
    expected = golden["lora/gradients"]
    summary = gradient_summary({name: gradient.numpy() for name, gradient in zip(own, gradients, strict=True)})
    assert (np.abs(summary - expected).max(axis=1) < 1e-4 * expected[:, 1]).all()


@pytest.mark.parametrize("file", ["lora-kohya", "lora-diffusers"])
def test_files_of_others_are_read_merged_and_taken_back_to_the_last_bit(golden, file):
    unet, inputs = tiny_unet("ours")
    before = module_arrays(unet)
    adapter = read_adapter(GOLDEN / f"{file}.safetensors", {"unet": unet})["unet"]
    assert adapter.keys() == {*LORA_LAYERS}
    originals = merge(unet, [(adapter, 1.0)])
    with jt.no_grad():
        assert close(unet(timestep=TIMESTEPS, **inputs).numpy(), golden["lora"])
    for layer in (LORA_LAYERS[0], LORA_LAYERS[-3]):
        assert close(module_arrays(unet)[f"{layer}.weight"], golden[f"merged/{layer}"])
    unmerge(unet, originals)
    after = module_arrays(unet)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_ours_go_round_and_say_their_base(tmp_path):
    unet, _ = adapted_unet()
    write_adapter(tmp_path / "ours.safetensors", {"unet": adapter_of(unet)}, {"unet": unet}, {"step": "7"})
    theirs, ours = (read_weights(path) for path in (GOLDEN / "lora-kohya.safetensors", tmp_path / "ours.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == LORA["rank"]).all() for name in ours if name.endswith(".alpha"))  # the scale is in `up`
    plain, _ = tiny_unet("ours")
    again = read_adapter(tmp_path / "ours.safetensors", {"unet": plain})["unet"]
    original = read_adapter(GOLDEN / "lora-kohya.safetensors", {"unet": plain})["unet"]
    for layer, (down, up) in original.items():
        assert np.array_equal(again[layer][0], down) and close(again[layer][1], up)

    plain.down_blocks[1].resnets[0].conv1.weight.update(plain.down_blocks[1].resnets[0].conv1.weight * 1.01)
    with pytest.raises(UserError, match=r"ours\.safetensors .*it was trained on other weights of unet"):
        read_adapter(tmp_path / "ours.safetensors", {"unet": plain})
    assert read_metadata(tmp_path / "ours.safetensors")["step"] == "7"


def test_what_a_stage_exports_says_its_base_wherever_it_is_copied_to(tmp_path):
    unet, _ = tiny_unet("ours")
    adapters = Adapters(2, {"unet": adapt(unet, rank=2)})
    save_network(adapters, adapters.state_dict(), tmp_path / "adapter", step=7)
    shutil.copy(tmp_path / "adapter" / WEIGHTS, tmp_path / "copy.safetensors")
    places = (tmp_path / "adapter", tmp_path / "copy.safetensors")
    assert all(read_adapter(place, {"unet": tiny_unet("ours")[0]})["unet"].keys() == adapter_of(unet).keys() for place in places)
    other, _ = tiny_unet("ours")
    layer = other.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
    layer.weight.update(layer.weight * 1.01)
    for place in places:
        with pytest.raises(UserError, match="it was trained on other weights of unet"):
            read_adapter(place, {"unet": other})
    (tmp_path / "adapter" / "config.json").write_text(json.dumps({"bases": {}, "negative_prompt": 3}))
    with pytest.raises(UserError, match=r"config.json is missing or damaged"):
        read_adapter(tmp_path / "adapter", {"unet": other})


def test_a_text_encoder_is_adapted_too(tmp_path):
    networks = {"unet": tiny_unet("ours")[0], "text_encoder": small_text_encoder(300, 16, 1, 2)}
    for network in networks.values():
        adapt(network, rank=2)
    adapters = {name: adapter_of(network) for name, network in networks.items()}
    projections = [f"text_model.encoder.layers.0.self_attn.{name}_proj" for name in ("k", "out", "q", "v")]
    assert sorted(adapters["text_encoder"]) == projections
    write_adapter(tmp_path / "both.safetensors", adapters, networks, {})
    names = {name.partition(".")[0] for name in read_weights(tmp_path / "both.safetensors") if name.startswith("lora_te_")}
    assert sorted(names) == [f"lora_te_{name.replace('.', '_')}" for name in projections]
    again = read_adapter(tmp_path / "both.safetensors", networks)
    assert {name: adapter.keys() for name, adapter in again.items()} == {name: adapter.keys() for name, adapter in adapters.items()}
    with pytest.raises(UserError, match=r"these do not fit: lora_te_text_model_encoder_layers_0_self_attn_k_proj\.alpha"):
        read_adapter(tmp_path / "both.safetensors", {"unet": networks["unet"]})


def test_several_are_added_by_their_weights():
    unet, _ = tiny_unet("ours")
    adapter = read_adapter(GOLDEN / "lora-kohya.safetensors", {"unet": unet})["unet"]
    name = f"{LORA_LAYERS[0]}.weight"
    before = module_arrays(unet)[name]
    merge(unet, [(adapter, 0.75), (adapter, -0.25)])
    added = module_arrays(unet)[name] - before
    down, up = adapter[LORA_LAYERS[0]]
    np.testing.assert_allclose(added, 0.5 * up @ down, atol=1e-6)


def test_what_does_not_fit_is_named(tmp_path):
    unet, _ = tiny_unet("ours")
    arrays = read_weights(GOLDEN / "lora-kohya.safetensors")
    name = "lora_unet_" + LORA_LAYERS[0].replace(".", "_")
    for changed, words in (
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": np.ones(1, np.float32)}, "layers_0_mlp_fc1.alpha"),
        ({f"{name}.dora_scale": np.ones(64, np.float32)}, "dora_scale"),
        ({f"{name}.lora_up.weight": np.ones((63, 2), np.float32)}, LORA_LAYERS[0]),
        ({f"{name}.lora_up.weight": np.full((64, 2), np.nan, np.float32)}, LORA_LAYERS[0]),
        ({f"{name}.lora_up.weight": np.array(1, np.float32)}, LORA_LAYERS[0]),
        ({f"{name}.lora_down.weight": np.array(1, np.float32)}, LORA_LAYERS[0]),
        ({f"{name}.alpha": np.ones(2, np.float32)}, LORA_LAYERS[0]),
        ({f"{name}.alpha": np.array(np.inf, np.float32)}, LORA_LAYERS[0]),
    ):
        write_safetensors(tmp_path / "file.safetensors", arrays | changed)
        with pytest.raises(UserError, match=f"file.safetensors is no adapter.*{words}"):
            read_adapter(tmp_path / "file.safetensors", {"unet": unet})
    without_alpha = {key: array for key, array in arrays.items() if not key.endswith(".alpha")}
    for said in ("[]", "no JSON", '{"unet.lora_alpha": [1, 2]}', '{"unet.alpha_pattern": 3}'):
        write_safetensors(tmp_path / "file.safetensors", without_alpha, {"lora_adapter_metadata": said})
        with pytest.raises(UserError, match=r"file.safetensors is no adapter"):
            read_adapter(tmp_path / "file.safetensors", {"unet": unet})
    other = UNet2DConditionModel(UNet2DConditionConfig(**UNETS["sd2"] | {"block_out_channels": (16, 32)}))
    with pytest.raises(UserError, match=r"these do not fit: .* and [0-9]+ more"):
        read_adapter(GOLDEN / "lora-kohya.safetensors", {"unet": other})


@pytest.mark.parametrize("spelling", [
    ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    ("unet.{}.lora_A.default.weight", "unet.{}.lora_B.default.weight"),
    ("unet.{attention}.processor.{matrix}_lora.down.weight", "unet.{attention}.processor.{matrix}_lora.up.weight"),
])  # fmt: skip
def test_older_spellings_and_alpha_by_layer(tmp_path, spelling):
    unet, _ = tiny_unet("ours")
    layers = LORA_LAYERS[:4]  # of attention, as the last spelling knows no others
    down, up = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)
    arrays = {}
    for layer in layers:
        attention, _, matrix = layer.removesuffix(".0").rpartition(".")
        for text, array in zip(spelling, (down, up), strict=True):
            arrays[text.format(layer, attention=attention, matrix=matrix)] = array
    config = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_k": 1}}
    write_safetensors(tmp_path / "file.safetensors", arrays, {"lora_adapter_metadata": json.dumps(config)})
    adapter = read_adapter(tmp_path / "file.safetensors", {"unet": unet})["unet"]
    assert {layer: up[0, 0] for layer, (_, up) in adapter.items()} == {layer: 0.5 if layer.endswith("to_k") else 2 for layer in layers}


def test_a_new_adapter_changes_nothing_and_works_in_mixed_precision():
    unet, inputs = tiny_unet("ours")
    with jt.no_grad():
        before = unet(timestep=TIMESTEPS, **inputs).numpy()
    adapt(unet, rank=2)
    with jt.no_grad():
        assert np.array_equal(unet(timestep=TIMESTEPS, **inputs).numpy(), before)
    downs = np.concatenate([down.ravel() for down, _ in adapter_of(unet).values()])
    assert abs(downs.std() - 0.5) < 0.02  # 1 / rank
    with autocast("bfloat16"):
        up = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.lora_up
        (gradient,) = jt.grad(unet(timestep=TIMESTEPS, **inputs).sqr().sum(), [up.weight])
    assert np.abs(gradient.numpy()).max() > 0 and np.isfinite(gradient.numpy()).all()
