"""Attention against PyTorch, on the values of tests/golden/export_ops.py."""

from pathlib import Path

import jittor as jt
import numpy as np
import pytest

from models.ops import attention
from models.ops.attention import attention_reference, scaled_dot_product_attention

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "ops.npz"
INPUTS = ("q", "k", "v")


def golden(name):
    with np.load(GOLDEN) as arrays:
        return {key.removeprefix(name + "/"): arrays[key] for key in arrays.files if key.startswith(name + "/")}


def inputs(case):
    return [jt.array(case[name]) for name in INPUTS]


def gradients(y, dy, wanted):
    return [d.numpy() for d in jt.grad((y.reshape(-1) * jt.array(dy).reshape(-1)).sum(), wanted)]


def close(value, expected, tolerance=1e-5):
    assert value.shape == expected.shape
    return np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


# Float32 carries a score of several hundred to 2e-5, and the exponential makes that a relative error.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("attention_d17", 1e-5),
        ("attention_d8", 1e-5),
        ("attention_d40", 1e-5),
        ("attention_d64", 1e-5),
        ("attention_d1", 1e-5),
        ("attention_large", 2e-4),
    ],
)
def test_matches_pytorch(name, tolerance):
    case = golden(name)
    wanted = inputs(case)
    y = scaled_dot_product_attention(*wanted)
    assert close(y.numpy(), case["y"], tolerance)
    for input_name, gradient in zip(INPUTS, gradients(y, case["dy"], wanted), strict=True):
        assert close(gradient, case[f"d{input_name}"], tolerance), input_name


def test_processors_without_avx_512_compute_the_same(monkeypatch):
    monkeypatch.setattr(attention, "CPU_HEADER", f"#undef __AVX512F__\n{attention.CPU_HEADER}")
    test_matches_pytorch("attention_d17", 1e-5)


def test_reference_matches_pytorch():
    case = golden("attention_d17")
    wanted = inputs(case)
    y = attention_reference(*(t.reshape(-1, *t.shape[2:]) for t in wanted)).reshape(case["y"].shape)
    assert close(y.numpy(), case["y"])
    for input_name, gradient in zip(INPUTS, gradients(y, case["dy"], wanted), strict=True):
        assert close(gradient, case[f"d{input_name}"]), input_name


def test_huge_scores_pick_the_best_key():
    """One key scores 1e8 above the rest: its value comes out, exactly."""
    q, k = np.zeros((1, 1, 3, 4)), np.zeros((1, 1, 130, 4))
    q[..., 0] = 1e4
    k[..., 0] = -1e4
    k[:, :, 100, 0] = 1e4
    v = np.arange(130 * 4).reshape(k.shape)
    y = scaled_dot_product_attention(*(jt.array(t.astype(np.float32)) for t in (q, k, v))).numpy()
    assert np.array_equal(y, np.broadcast_to(v[:, :, 100:101], y.shape))


def test_self_attention_of_one_var():
    """q, k and v are the same Var: its gradient is the sum of three."""
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 8)).astype(np.float32)
    dy = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    one, three = jt.array(x), [jt.array(x) for _ in range(3)]
    (total,) = gradients(scaled_dot_product_attention(one, one, one), dy, [one])
    assert close(total, sum(gradients(scaled_dot_product_attention(*three), dy, three)))


def test_gradients_are_the_same_every_time():
    case = golden("attention_d17")
    wanted = inputs(case)
    first, second = (gradients(scaled_dot_product_attention(*wanted), case["dy"], wanted) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_inputs():
    case = golden("attention_d8")
    q, k, v = inputs(case)
    k.stop_grad(), v.stop_grad()
    assert close(gradients(scaled_dot_product_attention(q, k, v), case["dy"], [q])[0], case["dq"])
    q.stop_grad()
    assert close(scaled_dot_product_attention(q, k, v).numpy(), case["y"])
    v.start_grad()
    assert close(gradients(scaled_dot_product_attention(q, k, v), case["dy"], [v])[0], case["dv"])
    with jt.no_grad():
        assert close(scaled_dot_product_attention(q, k, v).numpy(), case["y"])


def test_keeps_dtype():
    case = golden("attention_d8")
    q, k, v = inputs(case)
    y = scaled_dot_product_attention(q.float16(), k.float16(), v.float16())
    assert y.dtype == "float16"
    assert close(y.float32().numpy(), case["y"], 5e-3)


def test_damage_shows():
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 70, 8)).astype(np.float32)
    q[0, 0, 3, 2] = np.nan
    damaged = np.isnan(scaled_dot_product_attention(*map(jt.array, (q, k, k))).numpy()).all(axis=3)
    assert np.flatnonzero(damaged).tolist() == [3]


def test_shapes_must_go_together():
    q, k = jt.zeros((1, 2, 3, 4)), jt.zeros((1, 2, 5, 8))
    with pytest.raises(ValueError, match="do not go together"):
        scaled_dot_product_attention(q, k, k)
