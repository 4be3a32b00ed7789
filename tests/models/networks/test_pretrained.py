import json
import os
from dataclasses import replace
from functools import partial

import jittor as jt
import numpy as np
import pytest

from models.diffusion.schedule import NoiseSchedule
from models.networks.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from models.networks.conditioner import Conditioner, ConditionerConfig, denoise
from models.networks.pretrained import (
    BESIDE,
    WEIGHTS,
    exported_step,
    finish_saving,
    initialise,
    is_of,
    load_network,
    load_networks,
    save_network,
    save_networks,
)
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from tests.golden.networks import TIMESTEPS, UNETS, VAE, normal, weights
from utils.checkpoint import module_arrays, write_safetensors
from utils.errors import UserError

CONDITIONER = ConditionerConfig(downscale=4, mask_channels=(16, 32), level_channels=(32, 32, 64), patch_size=2, cross_attention_dim=24)
WIDER = {"in_channels": 4 + 29, "class_embed_type": "projection", "projection_class_embeddings_input_dim": CONDITIONER.num_statistics}


def shapes(network):
    return {name: weight.shape for name, weight in network.state_dict().items()}


@pytest.fixture(scope="module")
def published():
    """A UNet of Stable Diffusion 1's kind, and its weights."""
    unet = UNet2DConditionModel(UNet2DConditionConfig(**UNETS["sd1"]))
    return unet, weights(shapes(unet))


def our_unet():
    return UNet2DConditionModel(UNet2DConditionConfig(**(UNETS["sd1"] | WIDER)))


def test_a_unet_started_from_published_weights_works_as_the_published_one_did(published, tmp_path):
    original, arrays = published
    write_safetensors(tmp_path / WEIGHTS, arrays)
    initialise(original, tmp_path)
    unet, conditioner = our_unet(), Conditioner(CONDITIONER)
    initialise(unet, tmp_path)

    assert not unet.conv_in.weight.numpy()[:, 4:].any()
    sample = jt.array(normal("sample", 2, 4, 8, 12))
    for value, known in ((3, (1, 1)), (17, (1, 0))):
        mask = np.full((2, 32, 48), value, np.uint8)
        mask[:, 20:] = 8
        reference = {"latents": normal("reference", 2, 4, 8, 12), "colors": normal("colors", 2, 54), "known": np.array(known, np.float32)}
        conditions = conditioner({"mask": {"mask": mask}, "reference": reference})
        expected = original(sample, TIMESTEPS, conditions.tokens).numpy()
        output = denoise(unet, sample, TIMESTEPS, conditions, NoiseSchedule.make("linear"), "epsilon")
        np.testing.assert_allclose(output.numpy(), expected, atol=1e-5)

    assert not any(parameter.is_stop_grad() for parameter in unet.parameters())
    loss = (output * jt.array(normal("loss", 2, 4, 8, 12))).sum()
    masked, statistics, old = jt.grad(loss, [unet.conv_in.weight, unet.class_embedding.linear_2.weight, unet.conv_out.weight])
    for gradient in (masked.numpy()[:, 4:], statistics.numpy(), old.numpy()):
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("kernel", [(), (1, 1)], ids=["linear maps", "1x1 convolutions"])
def test_an_autoencoder_starts_from_a_file_with_the_old_names_of_attention(tmp_path, kernel):
    vae = AutoencoderKL(AutoencoderKLConfig(**VAE))
    arrays = weights(shapes(vae))
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, array in arrays.items():
        for new, old_name in old_names.items():
            if f".{new}." in name:
                name = name.replace(f".{new}.", f".{old_name}.")
                array = array.reshape(*array.shape, *kernel) if array.ndim == 2 else array
        old[name] = array
    assert sum("proj_attn" in name for name in old) == 4 and sum("query" in name for name in old) == 4
    write_safetensors(tmp_path / "vae.safetensors", old)
    initialise(vae, tmp_path / "vae.safetensors")
    for name, array in module_arrays(vae).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    assert not any(parameter.is_stop_grad() for parameter in vae.parameters())


def test_published_weights_that_do_not_fit_are_all_named(published, tmp_path):
    arrays = dict(published[1])
    missing = arrays.pop("conv_out.bias")
    arrays["conv_out.biass"] = missing
    transposed = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    arrays[transposed] = arrays[transposed].T.copy()  # as many numbers, in another order
    arrays["conv_in.weight"] = np.zeros((32, 40, 3, 3), np.float32)  # wider than ours
    write_safetensors(tmp_path / "unet.safetensors", arrays)
    unet = our_unet()
    before = unet.conv_out.weight.numpy()
    with pytest.raises(UserError) as raised:
        initialise(unet, tmp_path / "unet.safetensors")
    for words in ("unet.safetensors", "conv_out.bias,", "conv_out.biass", f"{transposed} [24, 32]", "conv_in.weight [32, 40, 3, 3]"):
        assert words in str(raised.value).replace("\n", ",")
    np.testing.assert_array_equal(unet.conv_out.weight.numpy(), before)


@pytest.mark.parametrize("network_class, config", [
    (AutoencoderKL, AutoencoderKLConfig(**VAE, scaling_factor=None)),
    (UNet2DConditionModel, UNet2DConditionConfig(**UNETS["sd2"])),
    (UNet2DConditionModel, UNet2DConditionConfig(**UNETS["ours"])),
    (Conditioner, CONDITIONER),
])  # fmt: skip
def test_a_saved_network_comes_back(tmp_path, network_class, config):
    network = network_class(config)
    save_network(network, module_arrays(network), tmp_path)
    again = load_network(network_class, type(config), tmp_path)
    assert again.config == config
    for name, array in module_arrays(network).items():
        np.testing.assert_array_equal(module_arrays(again)[name], array, err_msg=name)
    assert all(parameter.is_stop_grad() for parameter in again.parameters())


def test_the_weights_saved_are_the_ones_given(tmp_path):
    network = Conditioner(CONDITIONER)
    average = weights(shapes(network))
    save_network(network, average, tmp_path)
    loaded = module_arrays(load_network(Conditioner, ConditionerConfig, tmp_path))
    assert all(np.array_equal(loaded[name], array) for name, array in average.items())


def test_diffusers_finds_the_levels_of_the_autoencoder_in_its_configuration(tmp_path):
    vae = AutoencoderKL(AutoencoderKLConfig(**VAE))
    save_network(vae, module_arrays(vae), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["_class_name"] == "AutoencoderKL"
    assert stored["down_block_types"] == ["DownEncoderBlock2D"] * 3 and stored["up_block_types"] == ["UpDecoderBlock2D"] * 3


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_content(path):
    path.write_text("[]")


def another_width(path):
    path.write_text(path.read_text().replace('"patch_size": 2', '"patch_size": 4'))


def wrong_type(path):
    path.write_text(path.read_text().replace('"patch_size": 2', '"patch_size": "two"'))


def no_number(path):
    path.write_text(path.read_text().replace('"num_classes": 29', '"num_classes": ""'))


def texts(path):
    path.write_text(path.read_text().replace("32,", '"32",'))


def another_scale(path):
    path.write_text(path.read_text().replace('"downscale": 4', '"downscale": 8'))


def a_bomb(path):
    path.write_text(path.read_text().replace('"patch_size": 2', '"patch_size": 10000000'))


@pytest.mark.parametrize("name, damage, words", [
    ("config.json", remove, "is missing"),
    ("config.json", cut, "is damaged"),
    ("config.json", other_content, "is damaged"),
    ("config.json", wrong_type, "is damaged"),
    ("config.json", no_number, "num_classes is ''"),
    ("config.json", texts, "level_channels is ('32', '32', 64)"),
    ("config.json", another_scale, "downscale is 8, with 2 mask_channels"),
    ("config.json", a_bomb, "patch_size is 10000000"),
    ("config.json", another_width, "reference_encoder.patch_embed.weight"),
    (WEIGHTS, remove, "holds no weights"),
    (WEIGHTS, cut, WEIGHTS),
    (WEIGHTS, other_content, WEIGHTS),
])  # fmt: skip
def test_a_damaged_folder_is_said_in_a_sentence(tmp_path, name, damage, words):
    network = Conditioner(CONDITIONER)
    save_network(network, module_arrays(network), tmp_path)
    damage(tmp_path / name)
    with pytest.raises(UserError) as raised:
        load_network(Conditioner, ConditionerConfig, tmp_path)
    assert words in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "name, value", [("norm_num_groups", 5), ("norm_num_groups", 0), ("attention_head_dim", 3), ("attention_head_dim", [-1] * 3)]
)
def test_channels_that_do_not_divide_are_damage(tmp_path, name, value):
    unet = UNet2DConditionModel(UNet2DConditionConfig(**UNETS["sd1"]))
    save_network(unet, module_arrays(unet), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {name: value}))
    with pytest.raises(UserError, match=r"config\.json is damaged \(\d+ channels do not divide into"):
        load_network(UNet2DConditionModel, UNet2DConditionConfig, tmp_path)


def test_types_of_fields_are_known():
    assert is_of(tuple[int, int] | None, (3, 4)) and is_of(tuple[int, int] | None, None) and is_of(tuple[int, ...], (1,) * 5)
    assert is_of(float, 3) and is_of(float, 0.5) and is_of(dict[str, str], {}) and is_of(bool, True)
    for kind, value in ((tuple[int, int], (3, 4, 5)), (tuple[int, ...], 3), (int, 3.0), (int, True), (float, "3"), (str | None, 3)):
        assert not is_of(kind, value)


def test_a_missing_folder_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "unet", tmp_path / "file"):
        with pytest.raises(UserError, match="is missing: no trained network"):
            load_network(Conditioner, ConditionerConfig, folder)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    """They would paint flat pictures without a word."""
    network = Conditioner(CONDITIONER)
    arrays = module_arrays(network)
    arrays["mask_encoder.reduce.0.bias"][3] = np.nan
    save_network(network, arrays, tmp_path)
    with pytest.raises(UserError, match=r"not finite \(mask_encoder\.reduce\.0\.bias"):
        load_network(Conditioner, ConditionerConfig, tmp_path)


def test_a_network_that_was_not_there_appears_whole(tmp_path, monkeypatch):
    """Weights without a configuration would count as written, and never be written again."""
    network = Conditioner(CONDITIONER)
    replace, rename = os.replace, os.rename

    def then_killed(move, source, target):
        move(source, target)
        if BESIDE not in str(target):
            raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", partial(then_killed, replace))
    monkeypatch.setattr("os.rename", partial(then_killed, rename))
    with pytest.raises(KeyboardInterrupt):
        save_networks({"one": (network, module_arrays(network))}, tmp_path, 5)
    assert exported_step(tmp_path / "one") == 5
    load_network(Conditioner, ConditionerConfig, tmp_path / "one")


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_a_kill_between_two_files_of_a_network_is_made_good(tmp_path, monkeypatch, moved):
    """Weights and configuration of the autoencoder change together when its latents are whitened."""
    before, after = (Conditioner(replace(CONDITIONER, patch_size=size)) for size in (2, 4))
    save_networks({name: (before, module_arrays(before)) for name in ("one", "other")}, tmp_path, 5)
    move, moves = os.replace, []

    def killed(source, target):
        if BESIDE in str(target):
            return move(source, target)
        if len(moves) < moved:
            moves.append(move(source, target))
        if len(moves) == moved:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.replace", killed)
        save_networks({name: (after, module_arrays(after)) for name in ("one", "other")}, tmp_path, 6)
    finish_saving(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
    for name in ("one", "other"):
        assert load_network(Conditioner, ConditionerConfig, tmp_path / name).config.patch_size == 4 and exported_step(tmp_path / name) == 6

    save_network(before, module_arrays(before), tmp_path / BESIDE / "one", 7)  # and killed before the other one was written
    finish_saving(tmp_path)
    assert exported_step(tmp_path / "one") == 6 and not (tmp_path / BESIDE).exists()


def test_networks_of_two_steps_are_not_taken_for_a_pair(tmp_path, monkeypatch):
    """A painter that reads while a training writes tries again, and never goes on with one network of before and one of after."""
    network = Conditioner(CONDITIONER)
    networks = {name: (network, module_arrays(network)) for name in ("one", "other")}
    classes = dict.fromkeys(networks, (Conditioner, ConditionerConfig))
    save_networks(networks, tmp_path, 5)
    assert [exported_step(tmp_path / name) for name in networks] == [5, 5] and not (tmp_path / ".incomplete").exists()
    assert load_networks(classes, tmp_path).keys() == networks.keys()

    save_network(*networks["other"], tmp_path / "other", step=6)
    waits = []
    monkeypatch.setattr("models.networks.pretrained.time.sleep", waits.append)
    with pytest.raises(UserError, match="one of step 5, other of step 6"):
        load_networks(classes, tmp_path)
    assert len(waits) > 1

    monkeypatch.setattr("models.networks.pretrained.time.sleep", lambda _: save_network(*networks["one"], tmp_path / "one", step=6))
    assert load_networks(classes, tmp_path).keys() == networks.keys()
