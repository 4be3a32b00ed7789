import jittor as jt
import numpy as np
import pytest

from datasets.landscape import CLASSES
from models.networks.conditioner import UNKNOWN, Conditioner, ConditionerConfig, denoise
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


def conditions(conditioner, mask=None, reference=None, colors=None, known=(1, 1)):
    mask = landscape() if mask is None else mask
    reference = normal("reference", 2, 4, 8, 12) if reference is None else reference
    colors = normal("colors", 2, 54) if colors is None else colors
    with jt.no_grad():
        out = conditioner(jt.array(mask), jt.array(reference), jt.array(colors), np.array(known))
        return {name: [v.numpy() for v in value] if isinstance(value, list) else value.numpy() for name, value in out.items()}


def arrays(conditions):
    return [*conditions["level_features"], *(conditions[name] for name in ("shares", "encoder_hidden_states", "class_labels"))]


def test_shapes(conditioner):
    out = conditions(conditioner)
    assert out["shares"].shape == (2, 29, 8, 12)
    assert [f.shape for f in out["level_features"]] == [(2, 32, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
    assert out["encoder_hidden_states"].shape == (2, 4 * 6, 24)
    assert out["class_labels"].shape == (2, 2 * 4 + 54 + 1) == (2, CONFIG.num_statistics)


def test_shares_are_those_of_the_classes_in_each_cell(conditioner):
    mask = np.random.default_rng(0).integers(0, 29, (2, 32, 48), dtype=np.uint8)
    shares = conditions(conditioner, mask)["shares"]
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
    np.testing.assert_allclose(with_pier["shares"][0, PIER, 3:, 5], 1 / 4, atol=1e-6)  # a quarter of each cell of 4x4 in column 5
    assert with_pier["shares"][0, PIER].sum() == pytest.approx(5 / 4)
    for a, b, column in zip(without["level_features"], with_pier["level_features"], (5, 2, 1), strict=True):
        assert np.abs(a - b)[..., column].max() > 0.003 * np.abs(a).max()
    finest = np.abs(without["level_features"][0] - with_pier["level_features"][0]).max(axis=(0, 1, 2))
    assert not finest[:4].any() and not finest[8:].any()  # and nowhere else


def test_a_mask_left_out_has_no_class(conditioner):
    unknown = np.full((2, 32, 48), UNKNOWN, np.uint8)
    out = conditions(conditioner, unknown)
    assert not out["shares"].any()
    half = landscape()
    half[:, :16] = UNKNOWN
    shares = conditions(conditioner, half)["shares"]
    assert not shares[:, :, :4].any()
    assert np.array_equal(shares[:, :, 4:], conditions(conditioner)["shares"][:, :, 4:])
    for ours, other in zip(conditions(conditioner, half)["level_features"], out["level_features"], strict=True):
        assert np.abs(ours - other).max() > 0.01


def test_reference_tokens_are_a_set(conditioner):
    reference = normal("reference", 2, 4, 8, 12)
    order = np.random.default_rng(0).permutation(24)
    patches = reference.reshape(2, 4, 4, 2, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 24, 4, 2, 2)
    shuffled = patches[:, order].reshape(2, 4, 6, 4, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(2, 4, 8, 12)
    a, b = conditions(conditioner, reference=reference), conditions(conditioner, reference=shuffled)
    np.testing.assert_allclose(b["encoder_hidden_states"], a["encoder_hidden_states"][:, order], atol=1e-5)
    np.testing.assert_allclose(b["class_labels"], a["class_labels"], atol=1e-5)
    assert np.ptp(a["encoder_hidden_states"], axis=1).min() > 0.1  # they differ from one another


def test_statistics_of_the_reference(conditioner):
    reference, colors = 3 + 2 * normal("reference", 2, 4, 8, 12), normal("colors", 2, 54)
    labels = conditions(conditioner, reference=reference, colors=colors)["class_labels"]
    expected = np.concatenate([reference.mean(axis=(2, 3)), reference.std(axis=(2, 3)), colors, np.ones((2, 1))], axis=1)
    np.testing.assert_allclose(labels, expected, atol=1e-5)


def test_a_reference_left_out_says_nothing(conditioner):
    a = conditions(conditioner, known=(0, 0))
    b = conditions(conditioner, reference=normal("another", 2, 4, 8, 12), colors=normal("other colors", 2, 54), known=(0, 0))
    assert all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))
    assert not a["class_labels"].any()
    token = conditioner.reference_encoder.unknown_token.numpy()
    assert np.array_equal(a["encoder_hidden_states"], np.broadcast_to(token, (2, 24, 24)))


def test_features_start_at_zero_and_every_weight_learns():
    conditioner = Conditioner(CONFIG)
    assert not any(f.any() for f in conditions(conditioner)["level_features"])
    out = with_weights(conditioner)(
        jt.array(landscape()), jt.array(normal("reference", 2, 4, 8, 12)), jt.array(normal("colors", 2, 54)), np.array([1, 0])
    )
    loss = sum((v * jt.array(normal(str(i), *v.shape))).sum() for i, v in enumerate([*out["level_features"], out["encoder_hidden_states"]]))
    parameters = dict(conditioner.named_parameters())
    for name, gradient in zip(parameters, jt.grad(loss, list(parameters.values())), strict=True):
        assert np.abs(gradient.numpy()).max() > 1e-3, name


def test_the_prediction_depends_on_every_condition(conditioner):
    unet_config = UNETS["ours"] | {"in_channels": 4 + 29, "projection_class_embeddings_input_dim": CONFIG.num_statistics}
    unet = with_weights(UNet2DConditionModel(UNet2DConditionConfig(**unet_config)))
    sample = jt.array(normal("sample", 2, 4, 8, 12))

    def prediction(**changed):
        out = conditions(conditioner, **changed)
        out = {name: [jt.array(v) for v in value] if isinstance(value, list) else jt.array(value) for name, value in out.items()}
        with jt.no_grad():
            return denoise(unet, sample, TIMESTEPS, out).numpy()

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
        features = conditioner.mask_encoder(jt.array(landscape()))[1]
        loss = sum((feature * jt.array(normal("dy", *feature.shape))).sum() for feature in features)
        return [gradient.numpy() for gradient in jt.grad(loss, parameters)]

    recomputed = gradients()
    monkeypatch.setattr("models.networks.conditioner.block", lambda module, *inputs: module(*inputs))
    for a, b in zip(recomputed, gradients(), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
