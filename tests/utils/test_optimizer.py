from pathlib import Path

import jittor as jt
import numpy as np
import pytest
from jittor import nn

from tests.small import copies
from utils.checkpoint import load_strict, module_arrays, read_training_state, save_training_state
from utils.ema import EMA
from utils.errors import UserError
from utils.optimizer import AdamW, global_norm

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "optimizer.npz"


@pytest.fixture
def module():
    jt.set_global_seed(0)
    return nn.Linear(4, 3)


def micro_batches(module, step, count=2):
    """Losses of batches that depend on nothing but the step."""
    for part in range(count):
        batch = np.random.default_rng((step, part)).normal(size=(5, 4)).astype(np.float32)
        yield (module(jt.array(batch)) ** 2).mean()


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def test_ten_steps_of_pytorch_with_accumulation_and_clipping():
    golden = dict(np.load(GOLDEN))
    weights = {name: jt.array(golden[f"start.{name}"]) for name in ("weight", "bias", "conv")}
    optimizer = AdamW(weights.items(), betas=(0.9, 0.99), weight_decay=0.1)
    for step, batches in enumerate(golden["data"]):

        def losses(batches=batches, size=float(golden["sizes"][step])):
            for batch in batches:
                hidden = jt.matmul(jt.array(batch), weights["weight"].transpose(1, 0)) + weights["bias"]
                yield (jt.matmul(hidden, weights["conv"].reshape(3, 4)) ** 2).mean() * size

        norm = optimizer.step(losses(), float(golden["rates"][step]), max_norm=1.0)
        assert norm == pytest.approx(golden["norms"][step], rel=1e-6)
        for name, weight in weights.items():
            np.testing.assert_allclose(weight.numpy(), golden[f"path.{name}"][step], rtol=0, atol=1e-6)
    assert (optimizer.updates, optimizer.skipped) == (10, 0)


@pytest.mark.bit_for_bit
def test_resuming_is_the_same_as_never_stopping(tmp_path, module):
    def run(module, optimizer, ema, steps):
        for step in steps:
            optimizer.step(micro_batches(module, step), lr=0.05, max_norm=0.5)
            ema.update(step)

    optimizer, ema = AdamW(module.named_parameters()), EMA(module.state_dict())
    run(module, optimizer, ema, range(4))
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.averages.items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.state().items()}
    path = save_training_state(tmp_path, 4, tensors, {}, keep=1)
    run(module, optimizer, ema, range(4, 8))

    resumed = nn.Linear(4, 3)
    assert not same(module_arrays(resumed), module_arrays(module))
    resumed_optimizer, resumed_ema = AdamW(resumed.named_parameters()), EMA(resumed.state_dict())
    tensors, info = read_training_state(path)

    def part(prefix):
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    load_strict(resumed, part("model."), path)
    resumed_ema.load(part("ema."), path)
    resumed_optimizer.load(part("optimizer."), path)
    run(resumed, resumed_optimizer, resumed_ema, range(info["step"], 8))
    assert same(module_arrays(resumed), module_arrays(module))
    assert same(copies(resumed_ema.averages), copies(ema.averages))
    assert same(copies(resumed_optimizer.state()), copies(optimizer.state()))
    assert resumed_optimizer.updates == 8


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_nothing(module, bad):
    optimizer = AdamW(module.named_parameters())
    optimizer.step(micro_batches(module, 0), lr=0.1)
    weights, state = module_arrays(module), copies(optimizer.state())
    norm = optimizer.step((loss * factor for loss, factor in zip(micro_batches(module, 1), (1, bad), strict=True)), lr=0.1)
    assert not np.isfinite(norm)
    assert same(module_arrays(module), weights)
    assert (optimizer.updates, optimizer.skipped) == (1, 1)
    assert same(copies(optimizer.state()) | {"skipped": np.array([0])}, state)
    assert np.isfinite(optimizer.step(micro_batches(module, 2), lr=0.1))
    assert not same(module_arrays(module), weights)


def in_float16(module, size):
    """A loss whose gradient passes through float16, in which 1e-8 is nothing and 1e5 infinite."""
    return (module(jt.ones((1, 4))).float16().float32() * size).sum()


def test_the_loss_is_scaled_until_its_gradient_fits_float16(module):
    optimizer = AdamW(module.named_parameters())
    assert optimizer.step([in_float16(module, 1e-9)], lr=0.1) == 0
    optimizer.scale_loss()
    assert optimizer.step([in_float16(module, 1e-9)], lr=0.1) == pytest.approx(1e-9 * np.sqrt(3 * 5), rel=1e-2)
    assert (optimizer.loss_scale, optimizer.skipped) == (2**16, 0)
    for _ in range(3):
        optimizer.step([in_float16(module, 4), in_float16(module, 4)], lr=0.1)
    assert (optimizer.loss_scale, optimizer.skipped) == (2**13, 3)
    assert optimizer.step([in_float16(module, 4), in_float16(module, 4)], lr=0.1) == pytest.approx(4 * np.sqrt(3 * 5), rel=1e-2)
    assert (optimizer.loss_scale, optimizer.skipped, optimizer.updates) == (2**13, 3, 3)


def test_the_scale_of_the_loss_rises_and_is_kept(module, monkeypatch):
    monkeypatch.setattr("utils.optimizer.SCALE_RISES_AFTER", 3)
    scaled, plain = AdamW(module.named_parameters()), AdamW(module.named_parameters())
    scaled.scale_loss()
    for _ in range(4):
        scaled.step([in_float16(module, 1e-3)], lr=0.1)
    assert (scaled.loss_scale, scaled.steps_at_scale) == (2**17, 1)
    plain.load(copies(scaled.state()))
    assert (plain.updates, plain.loss_scale) == (4, 1)
    state = copies(plain.state())
    for arrays, expected in ((copies(scaled.state()), (2**17, 1)), (state, (2**16, 0))):
        resumed = AdamW(module.named_parameters())
        resumed.scale_loss()
        resumed.load(arrays)
        assert (resumed.loss_scale, resumed.steps_at_scale, resumed.updates) == (*expected, 4)


def test_only_matrices_decay_and_frozen_weights_stay(module):
    frozen = jt.ones((4,)).stop_grad()
    module.bias.update(jt.ones((3,)))
    start = module_arrays(module)
    optimizer = AdamW([*module.named_parameters(), ("frozen", frozen)], weight_decay=0.5)
    optimizer.step([(module.weight.sum() + module.bias.sum()) * 0.0], lr=0.1)
    np.testing.assert_allclose(module.weight.numpy(), start["weight"] * (1 - 0.1 * 0.5), rtol=1e-6)
    assert np.array_equal(module.bias.numpy(), start["bias"])
    assert "first.frozen" not in optimizer.state() and frozen.numpy().tolist() == [1, 1, 1, 1]


def test_each_graph_is_freed_before_the_next_is_built(module):
    optimizer = AdamW(module.named_parameters())
    alive = []

    def losses(step):
        for loss in micro_batches(module, step, count=4):
            yield loss
            del loss
            alive.append(jt.liveness_info()["lived_ops"])

    for step in range(6):
        optimizer.step(losses(step), lr=0.01)
    assert not any(alive), f"operators alive after each micro-batch: {alive}"
    assert jt.liveness_info()["lived_ops"] == 0


def test_micro_batches_make_the_moments_of_the_whole_batch(module):
    """Of the weights alone one could not tell a sum from a mean: Adam's step does not depend on the gradient's scale."""
    whole = nn.Linear(4, 3)
    load_strict(whole, module_arrays(module), "the other module")
    batch = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
    optimizers = AdamW(module.named_parameters()), AdamW(whole.named_parameters())
    for max_norm in (1e9, 0.01):
        norm = optimizers[0].step(((module(jt.array(part)) ** 2).mean() for part in np.split(batch, 3)), 0.1, max_norm)
        assert norm == pytest.approx(optimizers[1].step([(whole(jt.array(batch)) ** 2).mean()], 0.1, max_norm), rel=1e-5)
    expected = copies(optimizers[1].state())
    for name, array in copies(optimizers[0].state()).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-9)


def test_global_norm_of_a_million_small_numbers():
    """Summed in float32 one after the other, the squares stop counting against the first one."""
    values = np.full(1_000_000, 1e-4, np.float32)
    values[0] = 1.0
    assert global_norm([jt.array(values), jt.array([2.0])]) == pytest.approx(np.sqrt(1.0 + 999_999 * 1e-8 + 4.0), rel=1e-7)


def test_load_refuses_what_does_not_fit_and_shares_no_memory(module):
    optimizer = AdamW(module.named_parameters())
    optimizer.step(micro_batches(module, 0), lr=0.1)
    state = copies(optimizer.state())
    with pytest.raises(UserError, match=r"does not fit the optimizer:\n  missing \(1\): second\.bias"):
        optimizer.load({name: value for name, value in state.items() if name != "second.bias"})
    optimizer.load(state)
    state["first.weight"][...] = 9.0
    assert np.abs(optimizer.first["weight"].numpy()).max() < 9.0
