"""A ControlNet computes what diffusers' does; it begins as if it were not there, and belongs to its UNet."""

import jittor as jt
import numpy as np
import pytest

from models.networks.controlnet import ControlNetConfig, ControlNetModel, control_config, control_of, controlled, load_control
from models.networks.layers import own_weights
from models.networks.pretrained import WEIGHTS, initialise, save_network
from models.training.learner import unfrozen
from tests.golden.networks import CONTROL, TIMESTEPS, UNETS, control_mask, gradient_summary, normal, weights
from tests.models.networks.test_lora import close
from tests.models.networks.test_unet_2d_condition import GOLDEN, shapes, tiny_unet
from utils.checkpoint import as_array, load_strict, module_arrays
from utils.errors import UserError


def test_residuals_output_and_gradients_agree_with_diffusers():
    golden = np.load(GOLDEN / "adapters.npz")
    unet, inputs = tiny_unet("ours")
    control = ControlNetModel(ControlNetConfig(**UNETS["ours"] | CONTROL))
    load_strict(control, weights(shapes(control)), "networks.py")
    hint = control.hint(control_mask())
    skips, middle = control(timestep=TIMESTEPS, hint=hint, **inputs)
    for i, skip in enumerate(skips):
        assert close(skip.numpy()[0], golden[f"control/skip/{i}"])
    assert close(middle.numpy()[0], golden["control/middle"]) and f"control/skip/{len(skips)}" not in golden

    output = controlled(unet, control, hint)(timestep=TIMESTEPS, **inputs)
    parameters = dict(control.named_parameters())
    gradients = jt.grad((output * jt.array(normal("control", *output.shape))).sum(), list(parameters.values()))
    assert close(output.numpy(), golden["control"])
    expected = golden["control/gradients"]
    summary = gradient_summary({name: gradient.numpy() for name, gradient in zip(parameters, gradients, strict=True)})
    off = np.abs(summary - expected).max(axis=1) > 1e-4 * expected[:, 1]
    assert not off.any(), np.array(sorted(parameters))[off]

    with jt.no_grad():
        plain = unet(timestep=TIMESTEPS, **inputs).numpy()
        without = controlled(unet, control, hint, 0.0)(timestep=TIMESTEPS, **inputs).numpy()
    assert np.array_equal(plain, without) and not close(plain, golden["control"], 0.1)


def new_control(unet, rank):
    return control_of(control_config(unet, 29, (8, 8, 16), rank), unet)


@pytest.mark.parametrize("rank", [0, 2], ids=["full", "low rank"])
def test_a_new_one_begins_as_the_unet_adds_nothing_and_goes_round(rank, tmp_path):
    unet, inputs = tiny_unet("ours")
    control = new_control(unet, rank)
    features = [jt.ones(2, channels, 8 >> i, 12 >> i) for i, channels in enumerate((32, 32, 64))]
    with jt.no_grad():
        plain = unet(timestep=TIMESTEPS, level_features=features, **inputs).numpy()
        found = controlled(unet, control, control.hint(control_mask()))(timestep=TIMESTEPS, level_features=features, **inputs).numpy()
    assert np.array_equal(plain, found)
    theirs = module_arrays(unet)
    same = [name for name, array in module_arrays(control).items() if name in theirs and np.array_equal(array, theirs[name])]
    assert len(same) == len([name for name in theirs if not name.startswith(("up_blocks.", "conv_norm_out.", "conv_out."))])

    zero = control.controlnet_mid_block.weight
    zero.update(jt.ones_like(zero))
    save_network(control, own_weights(control), tmp_path)
    again = load_control(tmp_path, unet)
    assert type(again) is type(control) and again.config == control.config
    assert all(np.array_equal(array, module_arrays(again)[name]) for name, array in module_arrays(control).items())
    begun = new_control(unet, rank)
    initialise(begun, tmp_path)
    assert all(np.array_equal(array, module_arrays(begun)[name]) for name, array in module_arrays(control).items())
    assert {*own_weights(begun)} == {*own_weights(control)}
    unet.conv_out.bias.update(unet.conv_out.bias + 1)
    with pytest.raises(UserError, match="was trained beside another UNet"):
        load_control(tmp_path, unet)


def test_the_low_rank_form_is_small_and_has_the_weights_of_the_unet(tmp_path):
    unet, _ = tiny_unet("ours")
    full, small = new_control(unet, 0), new_control(unet, 2)
    assert unfrozen(full).keys() == own_weights(full).keys() == full.state_dict().keys()
    assert unfrozen(small).keys() == own_weights(small).keys()
    assert {name.split(".")[0] for name in unfrozen(small) if not name.endswith(("lora_down.weight", "lora_up.weight"))} == {
        "controlnet_cond_embedding", "controlnet_down_blocks", "controlnet_mid_block",
    }  # fmt: skip
    sizes = []
    for name, control in (("full", full), ("small", small)):
        save_network(control, own_weights(control), tmp_path / name)
        sizes.append((tmp_path / name / WEIGHTS).stat().st_size)
    assert sizes[1] < 0.25 * sizes[0]
    unet.down_blocks[1].resnets[0].conv1.bias.update(jt.ones(64))
    assert [(as_array(control.down_blocks[1].resnets[0].conv1.bias) == 1).all() for control in (small, full)] == [True, False]
