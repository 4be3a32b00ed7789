from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.landscape import CLASSES
from models.diffusion.schedule import NoiseSchedule
from models.networks.conditioner import LEFT_OUT, UNKNOWN, Conditioner, ConditionerConfig, Conditions, denoise, joined
from models.networks.unet_2d_condition import UNet2DConditionConfig, UNet2DConditionModel
from tests.golden.networks import TIMESTEPS, UNETS, normal, weights
from utils.checkpoint import load_strict

CONFIG = ConditionerConfig(
    downscale=4, mask_channels=(16, 32), level_channels=(32, 32, 64), patch_size=2, cross_attention_dim=24, num_color_statistics=54
)
SEA, SKY, PIER = (CLASSES.index(name) for name in ("sea", "sky", "pier"))


def with_weights(network):
    """Random weights everywhere, the projections that start at zero among them."""
    load_strict(network, weights({name: weight.shape for name, weight in network.state_dict().items()}), "networks.py")
    return network


@pytest.fixture(scope="module")
def conditioner():
    return with_weights(Conditioner(CONFIG))


def landscape():
    mask = np.full((2, 32, 48), SKY, np.uint8)
    mask[0, 12:], mask[1, 20:] = SEA, SEA
    return mask


def told(mask=None, reference=None, colors=None, known=(1, 1)):
    """What the conditioner is given; by default of two landscapes."""
    return {
        "mask": {"mask": landscape() if mask is None else mask},
        "reference": {
            "latents": normal("reference", 2, 4, 8, 12) if reference is None else reference,
            "colors": normal("colors", 2, 54) if colors is None else colors,
            "known": np.array(known, np.float32),
        },
    }


def conditions(conditioner, *args, **changed):
    return computed(conditioner, told(*args, **changed))


def computed(conditioner, given):
    """The conditions as arrays."""
    with jt.no_grad():
        return Conditions(*map(arrays_of, conditioner(given)))


def arrays_of(value):
    if isinstance(value, list):
        return [v.numpy() for v in value]
    return None if value is None else value.numpy()


def arrays(conditions):
    return [*conditions.level_features, conditions.shares, conditions.tokens, conditions.statistics]


def test_shapes(conditioner):
    out = conditions(conditioner)
    assert out.shares.shape == (2, 29, 8, 12)
    assert [f.shape for f in out.level_features] == [(2, 32, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
    assert out.tokens.shape == (2, 4 * 6, 24)
    assert out.statistics.shape == (2, 2 * 4 + 54 + 1) == (2, CONFIG.num_statistics)


def test_shares_are_those_of_the_classes_in_each_cell(conditioner):
    mask = np.random.default_rng(0).integers(0, 29, (2, 32, 48), dtype=np.uint8)
    shares = conditions(conditioner, mask).shares
    for b, i, j in ((0, 0, 0), (1, 7, 11), (1, 2, 5)):
        cell = mask[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        np.testing.assert_allclose(shares[b, :, i, j], np.bincount(cell.ravel(), minlength=29) / 16, atol=1e-6)


def test_a_batch_is_its_pictures(conditioner):
    mask, reference, colors = landscape(), normal("reference", 2, 4, 8, 12), normal("colors", 2, 54)
    batch = arrays(conditions(conditioner, mask, reference, colors, known=(1, 0)))
    for i in range(2):
        one = slice(i, i + 1)
        single = arrays(conditions(conditioner, mask[one], reference[one], colors[one], known=(1 - i,)))
        for a, b in zip(batch, single, strict=True):
            np.testing.assert_allclose(a[one], b, atol=1e-5)


def test_a_column_of_one_pixel_is_seen_where_it_is(conditioner):
    mask = landscape()
    mask[:, 12:, 21] = PIER
    without, with_pier = conditions(conditioner), conditions(conditioner, mask)
    np.testing.assert_allclose(with_pier.shares[0, PIER, 3:, 5], 1 / 4, atol=1e-6)  # a quarter of each cell of 4x4 in column 5
    assert with_pier.shares[0, PIER].sum() == pytest.approx(5 / 4)
    for a, b, column in zip(without.level_features, with_pier.level_features, (5, 2, 1), strict=True):
        assert np.abs(a - b)[..., column].max() > 0.003 * np.abs(a).max()
    finest = np.abs(without.level_features[0] - with_pier.level_features[0]).max(axis=(0, 1, 2))
    assert not finest[:4].any() and not finest[8:].any()  # and nowhere else


def test_a_mask_left_out_has_no_class(conditioner):
    unknown = np.full((2, 32, 48), UNKNOWN, np.uint8)
    out = conditions(conditioner, unknown)
    assert not out.shares.any()
    half = landscape()
    half[:, :16] = UNKNOWN
    shares = conditions(conditioner, half).shares
    assert not shares[:, :, :4].any()
    assert np.array_equal(shares[:, :, 4:], conditions(conditioner).shares[:, :, 4:])
    for ours, other in zip(conditions(conditioner, half).level_features, out.level_features, strict=True):
        assert np.abs(ours - other).max() > 0.01


def test_reference_tokens_are_a_set(conditioner):
    reference = normal("reference", 2, 4, 8, 12)
    order = np.random.default_rng(0).permutation(24)
    patches = reference.reshape(2, 4, 4, 2, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 24, 4, 2, 2)
    shuffled = patches[:, order].reshape(2, 4, 6, 4, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(2, 4, 8, 12)
    a, b = conditions(conditioner, reference=reference), conditions(conditioner, reference=shuffled)
    np.testing.assert_allclose(b.tokens, a.tokens[:, order], atol=1e-5)
    np.testing.assert_allclose(b.statistics, a.statistics, atol=1e-5)
    assert np.ptp(a.tokens, axis=1).min() > 0.1  # they differ from one another


def test_statistics_of_the_reference(conditioner):
    reference, colors = 3 + 2 * normal("reference", 2, 4, 8, 12), normal("colors", 2, 54)
    labels = conditions(conditioner, reference=reference, colors=colors).statistics
    expected = np.concatenate([reference.mean(axis=(2, 3)), reference.std(axis=(2, 3)), colors, np.ones((2, 1))], axis=1)
    np.testing.assert_allclose(labels, expected, atol=1e-5)


def test_a_reference_left_out_says_nothing(conditioner):
    a = conditions(conditioner, known=(0, 0))
    b = conditions(conditioner, reference=normal("another", 2, 4, 8, 12), colors=normal("other colors", 2, 54), known=(0, 0))
    assert all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))
    assert not a.statistics.any()
    token = conditioner.reference_encoder.unknown_token.numpy()
    assert np.array_equal(a.tokens, np.broadcast_to(token, (2, 24, 24)))


def test_features_start_at_zero_and_every_weight_learns():
    conditioner = Conditioner(CONFIG)
    assert not any(f.any() for f in conditions(conditioner).level_features)
    out = with_weights(conditioner)(told(known=(1, 0)))
    loss = sum((v * jt.array(normal(str(i), *v.shape))).sum() for i, v in enumerate([*out.level_features, out.tokens]))
    parameters = dict(conditioner.named_parameters())
    for name, gradient in zip(parameters, jt.grad(loss, list(parameters.values())), strict=True):
        assert np.abs(gradient.numpy()).max() > 1e-3, name


def test_the_prediction_depends_on_every_condition(conditioner):
    unet_config = UNETS["ours"] | {"in_channels": 4 + 29, "projection_class_embeddings_input_dim": CONFIG.num_statistics}
    unet = with_weights(UNet2DConditionModel(UNet2DConditionConfig(**unet_config)))
    sample = jt.array(normal("sample", 2, 4, 8, 12))

    def prediction(**changed):
        with jt.no_grad():
            return denoise(unet, sample, TIMESTEPS, conditioner(told(**changed)), NoiseSchedule.make("linear"), "epsilon").numpy()

    plain = prediction()
    assert plain.shape == (2, 4, 8, 12)
    for changed in (
        {"mask": landscape()[::-1].copy()},
        {"mask": np.full((2, 32, 48), UNKNOWN, np.uint8)},
        {"reference": normal("another", 2, 4, 8, 12)},
        {"colors": normal("other colors", 2, 54)},
        {"known": (0, 0)},
    ):
        assert np.abs(prediction(**changed) - plain).max() > 0.01, changed.keys()


def test_masks_that_are_made_again_give_the_same_gradients(conditioner, monkeypatch):
    parameters = conditioner.mask_encoder.parameters()

    def gradients():
        features = conditioner.mask_encoder(jt.array(landscape())).level_features
        loss = sum((feature * jt.array(normal("dy", *feature.shape))).sum() for feature in features)
        return [gradient.numpy() for gradient in jt.grad(loss, parameters)]

    recomputed = gradients()
    monkeypatch.setattr("models.networks.conditioner.recomputed", lambda module, *inputs: module(*inputs))
    for a, b in zip(recomputed, gradients(), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_what_is_left_out_of_a_batch_is_as_if_it_were_not_told(conditioner):
    given = told()
    for name, same_as in (("mask", {"mask": np.full((2, 32, 48), UNKNOWN, np.uint8)}), ("reference", {"known": (0, 0)})):
        left_out = computed(conditioner, given | {name: LEFT_OUT[name](given[name])})
        assert all(np.array_equal(a, b) for a, b in zip(arrays(left_out), arrays(conditions(conditioner, **same_as)), strict=True))


@pytest.mark.parametrize("name, absent", [("mask", ("tokens", "statistics")), ("reference", ("shares", "level_features"))])
def test_a_condition_may_be_all_there_is(conditioner, name, absent):
    """The encoder of the other is not there, and what only that gives is None."""
    alone = with_weights(Conditioner(replace(CONFIG, conditions=(name,))))
    assert {key.partition(".")[0] for key in alone.state_dict()} == {f"{name}_encoder"}
    with jt.no_grad():
        out = alone({name: told()[name]})
    assert {part for part in Conditions._fields if getattr(out, part) is None} == {*absent, "prior", "estimate"}


def test_what_several_encoders_give_is_joined():
    a, b, c = (jt.array(normal(name, 2, 3, 5)) for name in "abc")
    together = joined(
        [
            Conditions(shares=a, tokens=a, level_features=[a]),
            Conditions(tokens=b, statistics=c),
            Conditions(level_features=[b], statistics=c),
        ]
    )
    assert np.array_equal(together.shares.numpy(), a.numpy())
    assert np.array_equal(together.tokens.numpy(), np.concatenate([a.numpy(), b.numpy()], axis=1))
    assert np.allclose(together.level_features[0].numpy(), a.numpy() + b.numpy())
    assert np.allclose(together.statistics.numpy(), 2 * c.numpy())
