import jittor as jt
import numpy as np
import pytest
from jittor import nn

from tests.small import copies
from utils.checkpoint import module_arrays
from utils.ema import EMA
from utils.errors import UserError
from utils.optimizer import AdamW


@pytest.fixture
def module():
    jt.set_global_seed(0)
    return nn.Linear(4, 3)


def train(module, steps=1):
    optimizer = AdamW(module.named_parameters())
    for _ in range(steps):
        optimizer.step([(module(jt.ones((5, 4))) ** 2).mean()], lr=0.1)


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def test_average_follows_the_warmed_up_decay(module):
    ema = EMA(module.state_dict(), decay=0.25)
    expected = module_arrays(module)
    for step, decay in enumerate([0.1, 2 / 11, 0.25, 0.25]):  # (1 + step) / (10 + step), and no more than 0.25
        train(module)
        ema.update(step)
        weights = module_arrays(module)
        expected = {name: expected[name] * decay + weights[name] * (1 - decay) for name in weights}
        for name, average in copies(ema.averages).items():
            np.testing.assert_allclose(average, expected[name], rtol=0, atol=1e-6)


def test_average_shares_no_memory_with_the_module(module):
    start = module_arrays(module)
    ema = EMA(module.state_dict())
    train(module)
    assert same(copies(ema.averages), start)
    ema.update(0)
    average, weights = copies(ema.averages), module_arrays(module)
    for value in ema.averages.values():
        value.data[...] = 7.0
    assert same(module_arrays(module), weights)
    ema.load(average)
    for value in average.values():
        value[...] = 8.0
    assert max(np.abs(value).max() for value in copies(ema.averages).values()) < 7.0
    assert all(value.is_stop_grad() for value in ema.averages.values())
    assert not any(value.is_stop_grad() for value in module.parameters())


def test_applied_weights_are_taken_out_again_exactly(module):
    ema = EMA(module.state_dict())
    train(module, steps=3)
    ema.update(0)
    weights, averages = module_arrays(module), copies(ema.averages)
    assert not same(weights, averages)
    with pytest.raises(KeyError), ema.applied():
        assert same(module_arrays(module), averages)
        module.eval()
        module(jt.ones((5, 4))).sync()
        module.train()
        train(module)  # nobody should, but neither the module nor the average may keep it
        assert same(copies(ema.averages), averages)
        raise KeyError
    assert same(module_arrays(module), weights)
    assert same(copies(ema.averages), averages)
    train(module)
    assert not same(module_arrays(module), weights), "the weights are frozen"


def test_updates_leave_no_graph_behind(module):
    ema = EMA(module.state_dict())
    for step in range(3):
        train(module)
        ema.update(step)
    held = jt.liveness_info()
    for step in range(3, 20):
        train(module)
        ema.update(step)
        with ema.applied():
            pass
    assert jt.liveness_info() == held


def test_load_refuses_what_does_not_fit(module):
    ema = EMA(module.state_dict())
    with pytest.raises(UserError, match=r"run\.safetensors does not fit the averaged weights:\n  missing \(1\): bias"):
        ema.load({"weight": np.zeros((3, 4), np.float32)}, "run.safetensors")
