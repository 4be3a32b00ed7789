"""Group norm and layer norm against PyTorch, on the values of tests/golden/export_ops.py."""

from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.ops.group_norm import group_norm, group_norm_reference, layer_norm

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "ops.npz"


def golden(name):
    with np.load(GOLDEN) as arrays:
        return {key.removeprefix(name + "/"): arrays[key] for key in arrays.files if key.startswith(name + "/")}


def inputs(case):
    return [jt.array(case[name]) for name in ("x", "weight", "bias")]


def normalize(case, x, weight, bias):
    groups, silu = int(case["groups"]), bool(case["silu"])
    return group_norm(x, groups, weight, bias, 1e-5, silu) if groups else layer_norm(x, weight, bias, 1e-5)


def gradients(y, dy, wanted):
    return [d.numpy() for d in jt.grad((y.reshape(-1) * jt.array(dy).reshape(-1)).sum(), wanted)]


def close(value, expected, tolerance=1e-5):
    assert value.shape == expected.shape
    return np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


# Where SiLU's input is several hundred, rounding it moves the derivative wherever it comes near 0.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("norm", 1e-5),
        ("norm_silu", 1e-5),
        ("norm_1d", 1e-5),
        ("norm_channels", 1e-5),
        ("norm_far", 1e-5),
        ("norm_far_silu", 1e-5),
        ("norm_saturated", 1e-4),
        ("layer_norm", 1e-5),
        ("layer_norm_far", 1e-5),
    ],
)
def test_matches_pytorch(name, tolerance):
    case = golden(name)
    wanted = inputs(case)
    y = normalize(case, *wanted)
    assert close(y.numpy(), case["y"])
    for input_name, gradient in zip(("x", "weight", "bias"), gradients(y, case["dy"], wanted), strict=True):
        assert close(gradient, case[f"d{input_name}"], tolerance), input_name


@pytest.mark.parametrize("name", ["norm_silu", "norm_far_silu"])
def test_reference_matches_pytorch(name):
    case = golden(name)
    x, weight, bias = wanted = inputs(case)
    rows = x.reshape(*x.shape[:2], -1)
    y = group_norm_reference(rows, int(case["groups"]), weight, bias, 1e-5, silu=True).reshape(x.shape)
    assert close(y.numpy(), case["y"])
    for input_name, gradient in zip(("x", "weight", "bias"), gradients(y, case["dy"], wanted), strict=True):
        assert close(gradient, case[f"d{input_name}"]), input_name


def test_gradients_are_the_same_every_time():
    case = golden("norm_channels")
    wanted = inputs(case)
    first, second = (gradients(normalize(case, *wanted), case["dy"], wanted) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_inputs():
    case = golden("norm_silu")
    x, weight, bias = inputs(case)
    weight.stop_grad(), bias.stop_grad()
    assert close(gradients(normalize(case, x, weight, bias), case["dy"], [x])[0], case["dx"])
    x.stop_grad()
    y = normalize(case, x, weight, bias)
    assert close(y.numpy(), case["y"])
    scale = jt.ones(y.shape)  # y is a constant to what follows
    assert close(gradients(y * scale, case["dy"], [scale])[0], case["y"] * case["dy"])
    weight.start_grad()
    assert close(gradients(normalize(case, x, weight, bias), case["dy"], [weight])[0], case["dweight"])
    with jt.no_grad():
        assert close(normalize(case, x, weight, bias).numpy(), case["y"])


def test_keeps_dtype():
    case = golden("norm")
    x, weight, bias = inputs(case)
    y = normalize(case, x.float16(), weight, bias)
    assert y.dtype == "float16"
    assert close(y.float32().numpy(), case["y"], 2e-3)
    (dx,) = jt.grad(y.float32().sum(), [x])
    assert dx.dtype == "float32"


def test_damage_shows():
    x = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    x[0, 1, 2] = np.nan
    y = group_norm(jt.array(x), 2, jt.ones(4), jt.zeros(4), 1e-5, silu=True).numpy()
    damaged = np.isnan(y).any(axis=2)
    assert damaged.tolist() == [[True, True, False, False], [False] * 4]


def test_groups_must_divide_channels():
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        group_norm(jt.zeros((1, 6, 2, 2)), 4, jt.ones(6), jt.zeros(6), 1e-5)
