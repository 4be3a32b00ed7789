import jittor as jt
import numpy as np
import pytest

from models.networks.layers import Conv2d, Linear, autocast, zeros_
from tests.golden.networks import UNETS, normal

INTEGERS = np.random.default_rng(0)


def integers(*shape):
    """Small whole numbers: sums of a few products of them are exact in bfloat16."""
    return INTEGERS.integers(-2, 3, shape).astype(np.float32)


def test_weights_start_uniform_within_one_over_the_root_of_fan_in():
    for layer, fan_in in ((Conv2d(8, 64, 3), 72), (Linear(64, 96), 64)):
        bound = 1 / np.sqrt(fan_in)
        for weight in (layer.weight.numpy(), layer.bias.numpy()):
            assert 0.9 * bound < np.abs(weight).max() <= bound
        assert layer.weight.numpy().std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
        assert abs(layer.weight.numpy().mean()) < 0.05 * bound


def test_linear_works_on_the_last_dimension_of_any_number():
    layer = Linear(8, 16)
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    for shape in ((8,), (5, 8), (2, 3, 8), (2, 3, 2, 8)):
        x = normal("x", *shape)
        y = layer(jt.array(x))
        assert tuple(y.shape) == (*shape[:-1], 16)
        np.testing.assert_allclose(y.numpy(), x @ weight.T + bias, atol=1e-5)
    assert list(Linear(8, 16, bias=False).state_dict()) == ["weight"]


def test_a_zeroed_layer_gives_zero_and_learns():
    layer = zeros_(Conv2d(8, 16, 1))
    y = layer(jt.array(normal("x", 2, 8, 4, 6)))
    assert not y.numpy().any()
    gradient = jt.grad((y * jt.array(normal("y", 2, 16, 4, 6))).sum(), layer.weight)
    assert not layer.weight.is_stop_grad() and not layer.bias.is_stop_grad()
    assert np.abs(gradient.numpy()).min() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("layer, shape", [(Conv2d(8, 16, 1), (2, 8, 4, 6)), (Linear(8, 16), (2, 3, 8))])
def test_autocast_computes_in_16_bits_and_keeps_float32_weights_and_gradients(layer, shape, dtype):
    for parameter in layer.parameters():
        parameter.update(jt.array(integers(*parameter.shape)))
    x = jt.array(integers(*shape))
    y = layer(x)
    expected = [y, *jt.grad(y.sum(), layer.parameters())]
    with autocast(dtype):
        y = layer(x)
        assert y.dtype == dtype
        found = [y.float32(), *jt.grad(y.float32().sum(), layer.parameters())]
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == "float32" and a.numpy().any()
        np.testing.assert_array_equal(b.numpy(), a.numpy())
    assert {str(parameter.dtype) for parameter in layer.parameters()} == {"float32"}


@pytest.mark.parametrize("dtype, digits", [("bfloat16", 8), ("float16", 11)])
def test_factors_are_rounded_and_sums_are_not(dtype, digits):
    """Added up one by one in 16 bits, ones would stop counting at 256 or at 2048."""
    layer = Linear(4096, 1, bias=False)
    for weight, ones, expected in (1, 4096, 4096), (1 + 2.0 ** (1 - digits), 1, 1 + 2.0 ** (1 - digits)), (1 + 2.0 ** (-1 - digits), 1, 1):
        layer.weight.update(jt.full(layer.weight.shape, weight))
        with autocast(dtype):
            y = layer(jt.array(np.r_[np.ones(ones), np.zeros(4096 - ones)][None].astype(np.float32)))
        assert y.item() == expected


def test_autocast_ends_with_its_block():
    def dtype():
        return Linear(8, 16)(jt.zeros(1, 8)).dtype

    with pytest.raises(ZeroDivisionError), autocast("bfloat16"):
        1 / 0  # noqa: B018
    assert dtype() == "float32"
    with autocast("bfloat16"):
        with autocast("float32"):
            assert dtype() == "float32"
        assert dtype() == "bfloat16"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", UNETS)
def test_a_unet_under_autocast_gives_float32(case, dtype):
    from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
    from tests.golden.networks import TIMESTEPS, unet_inputs

    unet = UNet2DConditionModel(UNet2DConditionConfig(**UNETS[case]))
    with autocast(dtype):  # types are known without computing anything
        y = unet(timestep=TIMESTEPS, **{name: jt.array(array) for name, array in unet_inputs(case).items()})
        gradients = jt.grad(y.sum(), unet.parameters())
    assert {str(v.dtype) for v in [y, *gradients, *unet.parameters()]} == {"float32"}
