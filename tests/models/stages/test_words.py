"""Words as the third condition of the UNet: trained, stored, painted with."""

import itertools
import json
from dataclasses import replace

import jittor as jt
import numpy as np
import pytest

from datasets.loader import stack
from models.networks.conditioner import UNKNOWN, reference_statistics
from models.networks.layers import autocast
from models.networks.pretrained import save_network, save_networks
from models.painters import latent_diffusion
from models.painters.latent_diffusion import LatentDiffusion, PaintingOptions, toned
from models.stages.unet import DESCRIPTION_WEIGHT, UNetOptions, UNetStage
from models.training.loop import resume, save
from tests.models.networks.test_text_encoder import write_encoder, write_tokenizer
from tests.models.stages.conftest import drawn_pairs
from tests.models.stages.test_stages import untrained_autoencoder
from tests.small import OPTIONS, copies
from utils.checkpoint import module_arrays
from utils.errors import UserError

WORDS = replace(OPTIONS["unet"], words=1, text_channels=16, text_layers=1, text_vocabulary=300, lr=3e-3, steps=8)
CAPTIONS = [("a lake at dusk", "evening by a lake"), ("hills in the snow",), ("the sea at noon",), ()]
TOLD = [names for count in range(4) for names in itertools.combinations(("mask", "reference", "words"), count)]


@pytest.fixture(scope="module")
def described(pairs):
    return [replace(pair, captions=captions) for pair, captions in zip(pairs, CAPTIONS, strict=True)]


def begun(folder, options=WORDS):
    """A stage over an autoencoder that is always the same."""
    jt.set_global_seed(0)
    vae = untrained_autoencoder()
    save_network(vae, module_arrays(vae), folder / "vae")
    return UNetStage(options, folder)


def train(stage, training_set, steps):
    for step in steps:
        batch = stack([training_set.example(i, np.random.default_rng((step, i))) for i in range(2)])
        stage.train_step([batch], step)


@pytest.fixture(scope="module")
def stage(described, tmp_path_factory):
    """Eight steps in, and stored after the fourth."""
    stage = begun(tmp_path_factory.mktemp("run"))
    stage.training_set, _ = stage.datasets(described, described[:2])
    train(stage, stage.training_set, range(4))
    save(stage, stage.folder, 4, 8)
    train(stage, stage.training_set, range(4, 8))
    return stage


@pytest.mark.bit_for_bit
def test_a_resumed_run_has_the_same_text_encoder(stage, described):
    other = UNetStage(WORDS, stage.folder)
    assert resume(other, stage.folder / "state" / "unet") == (4, 8)
    tokenizer = (stage.folder / "tokenizer.json").read_bytes()
    # photos that have come since with words of their own change no token
    training_set, _ = other.datasets([replace(pair, captions=(*pair.captions, "zzz zzz")) for pair in described], described[:2])
    assert (stage.folder / "tokenizer.json").read_bytes() == tokenizer
    training_set, _ = other.datasets(described, described[:2])
    train(other, training_set, range(4, 8))
    one, two = (copies(learned.learners["unet"].state()) for learned in (stage, other))
    assert one.keys() == two.keys() and any(name.startswith("ema.text_encoder.") for name in one)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_every_combination_of_conditions_is_trained(stage):
    stage.training_set.told = lambda text: {"caption": np.array(text)}
    try:
        examples = [stage.training_set.example(0, np.random.default_rng((5, i))) for i in range(1000)]
    finally:
        stage.training_set.told = stage.read_captions(stage.training_set.pairs, [])
    told = [((e["mask"] != 255).any(), e["known"] == 1, e["caption"] != "") for e in examples]
    shares = {combination: told.count(combination) / 1000 for combination in itertools.product((False, True), repeat=3)}
    assert min(shares.values()) > 0.02 and shares[True, True, True] > 0.4
    assert 0.1 < sum(not words for *_, words in told) / 1000 < 0.25
    assert {str(e["caption"]) for e in examples} == {"", *CAPTIONS[0]}


def test_words_change_nothing_else_of_an_example(stage, described, tmp_path):
    """Of a run without words the random numbers, the networks and the files stay what they were."""
    plain = begun(tmp_path, OPTIONS["unet"])
    training_set, _ = plain.datasets(described, described[:2])
    stage.training_set.drop = training_set.drop
    for i in range(4):
        one, two = (some.example(i, np.random.default_rng(i)) for some in (training_set, stage.training_set))
        assert two.keys() - one.keys() == {"ids", "described"} and all(np.array_equal(one[name], two[name]) for name in one)
    save(plain, tmp_path, 1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"vae", "unet", "conditioner", "latents", "state"}
    assert "text_channels" not in json.loads((tmp_path / "conditioner" / "config.json").read_text())
    painter = LatentDiffusion.of(OPTIONS["unet"], plain.vae, tmp_path)
    for option, given in (("prompt", "a lake"), ("told", ("words",)), ("told", ("mask", "words"))):
        with pytest.raises(UserError, match=f"--{option}.*trained without words"):
            paint(painter, options=PaintingOptions(steps=2, **{option: given}))


def test_words_tell_what_a_reference_would_where_there_is_none(stage):
    """Told statistics stand in for the reference's, and never add to them; what they are is learnt from the photos."""
    rng = np.random.default_rng(5)
    given = {
        "mask": {"mask": rng.integers(0, 29, (2, 64, 96), np.uint8)},
        "reference": {"latents": rng.standard_normal((2, 4, 8, 8), np.float32), "colors": rng.random((2, 54), np.float32)},
        "words": {name: rng.standard_normal(shape, np.float32) for name, shape in (("states", (2, 77, 16)), ("pooled", (2, 16)))},
    }
    given["reference"]["known"] = np.array([0, 1], np.float32)
    told = stage.conditioner.words_encoder.told_statistics(jt.array(given["words"]["pooled"])).numpy()
    photos = reference_statistics(*(jt.array(given["reference"][name]) for name in ("latents", "colors", "known"))).numpy()
    conditions = stage.conditioner(given)
    np.testing.assert_allclose(conditions.statistics.numpy(), [told[0], photos[1]], rtol=1e-5, atol=1e-6)
    alone = stage.conditioner(given | {"mask": {"mask": np.full((2, 64, 96), UNKNOWN)}}).prior[0].numpy()
    expected = told[0, :4] + (1 - told[0, -1]) * stage.conditioner.linear_start.mean.numpy()
    np.testing.assert_allclose(alone.mean(axis=(2, 3)), [expected, photos[1, :4]], rtol=1e-4, atol=1e-5)
    assert np.abs(told).min() > 0 and not photos[0].any() and photos[1].all()


def test_what_words_tell_of_photos_is_learnt(described, tmp_path):
    """To the photos' statistics, and for the empty caption to those of no photo; the loss has that in it."""
    stage = begun(tmp_path)
    training_set, _ = stage.datasets(described, described[:2])
    batch = stack([training_set.example(i, np.random.default_rng(i)) for i in (0, 3)])
    assert batch["described"].tolist() == [1, 0]

    def error() -> float:
        return stage.description_error(batch, stage.given(batch)).item()

    photo = reference_statistics(*(jt.array(batch[name][:1]) for name in ("reference", "colors", "described"))).numpy()
    assert error() == pytest.approx(np.square(photo).sum() / photo.size / 2, rel=1e-4)  # at first words tell of nothing
    before = error()
    for step in range(20):
        found = stage.train_step([batch], step)
    assert found["loss"] > DESCRIPTION_WEIGHT * found["description"] > 0 and error() < 0.6 * before
    alone = stage.train_step([stack([training_set.example(0, np.random.default_rng(0))])], 20)
    assert np.isfinite(alone["loss"]) and alone["description"] > 0


def paint(painter, which=slice(None), captions=("a lake at dusk", "hills in the snow"), **changed):
    rng = np.random.default_rng(0)
    masks, photos = rng.integers(0, 29, (2, 64, 96), np.uint8), rng.integers(0, 255, (2, 64, 96, 3), np.uint8)
    options = changed.pop("options", None) or PaintingOptions(steps=2, **changed)
    return painter.paint(masks[which], photos[which], list(captions)[which], [3, 4][which], options)


@pytest.fixture(scope="module")
def painter(stage):
    """From the files of the fourth step."""
    return LatentDiffusion.of(WORDS, stage.vae, stage.folder)


@pytest.mark.bit_for_bit
def test_each_combination_of_conditions_paints(painter):
    painted = {names: paint(painter, told=names) for names in TOLD}
    assert len(painted) == 8
    for (names, one), (others, two) in itertools.combinations(painted.items(), 2):
        assert not np.array_equal(one, two), f"{names} paints as {others} does"
    for names, pictures in painted.items():
        assert np.array_equal(paint(painter, told=names), pictures)  # for equal seeds
        alone = np.concatenate([paint(painter, slice(i, i + 1), told=names) for i in range(2)])
        assert np.abs(alone.astype(int) - pictures).max() <= 1


def test_latents_are_brought_to_the_mean_and_the_spread_that_words_tell():
    latents, statistics = (np.random.default_rng(i).random(shape, np.float32) for i, shape in enumerate([(3, 4, 8, 12), (3, 63)]))
    statistics[:, -1] = 0.9, 1.1, 0.1  # the last caption is empty
    statistics[:, 4:8] = 0.4
    statistics[1, 4] = 9.0  # twice as wide as it is, and no more
    free, half, toned_ = (toned(jt.array(latents), jt.array(statistics), share).numpy() for share in (0.0, 0.5, 1.0))
    assert np.array_equal(free, latents) and np.array_equal(toned_[2], latents[2])
    np.testing.assert_allclose(toned_[:2].mean(axis=(2, 3)), statistics[:2, :4], atol=1e-5)
    expected = np.full((2, 4), 0.4)
    expected[1, 0] = 2 * latents[1, 0].std()
    np.testing.assert_allclose(toned_[:2].std(axis=(2, 3)), expected, rtol=1e-4)
    np.testing.assert_allclose(half, (latents + toned_) / 2, atol=1e-5)


def test_they_are_where_no_reference_tells_it(painter, monkeypatch):
    seen = []
    monkeypatch.setattr(latent_diffusion, "toned", lambda latents, statistics, share: seen.append((statistics.shape, share)) or latents)
    for names in TOLD:
        paint(painter, told=names, text_tone=0.7)
        assert seen == ([] if "reference" in names else [([2, 63], 0.7)]), names
        seen.clear()


def test_the_best_weights_are_read_with_the_tokens_of_their_run(stage, painter):
    networks = stage.learners["unet"].networks
    save_networks({name: (networks[name], networks[name].state_dict()) for name in networks}, stage.folder / "best", 8)
    best = LatentDiffusion.of(WORDS, stage.vae, stage.folder / "best")
    assert not (stage.folder / "best" / "tokenizer.json").exists()
    assert best.words.tokenizer.to_str() == painter.words.tokenizer.to_str() and not np.array_equal(paint(best), paint(painter))


def test_words_cost_an_evaluation_only_where_they_say_something(painter, monkeypatch):
    seen, unet = [], type(painter.unet)
    execute = unet.execute
    monkeypatch.setattr(unet, "execute", lambda self, x, *a, **k: seen.append(len(x)) or execute(self, x, *a, **k))
    apart = {"guidance": 3.0, "text_guidance": 2.0, "ref_guidance": 1.5}
    both = paint(painter, **apart), paint(painter, captions=("", ""), **apart), paint(painter, **apart | {"text_guidance": 3.0})
    assert seen == [8, 8, 6, 6, 6, 6]
    assert not np.array_equal(*both[:2])
    assert not np.array_equal(paint(painter, **apart, negative_prompt="the sea"), both[0])


def test_another_caption_is_another_validation(stage, described):
    _, validation_set = stage.datasets(described, described[:3])
    batch = stack([validation_set.example(i, np.random.default_rng(i)) for i in range(3)])
    assert (batch["ids"][:, 2] != 1).all()  # none is empty
    with jt.no_grad():
        found = stage.validate(batch)
    for right, other in (("val_loss", "val_loss_other_words"), ("val_loss_no_reference", "val_loss_no_reference_other_words")):
        assert found[right].shape == (3,) and not np.array_equal(found[right], found[other])


def test_mixed_precision(stage, painter):
    batch = stack([stage.training_set.example(i, np.random.default_rng(i)) for i in range(2)])
    whole = stage.losses(batch)["loss"].item()
    with autocast("bfloat16"):
        loss = stage.losses(batch)["loss"]
        gradients = jt.grad(loss, list(stage.learners["unet"].networks["text_encoder"].parameters()))
        assert abs(loss.item() - whole) < 0.05 * whole and any(gradient.numpy().any() for gradient in gradients)
        pictures = paint(painter)
    assert 0 < np.abs(pictures.astype(int) - paint(painter)).mean() < 8


def test_captions_are_learnt(tmp_path):
    """Of six pictures, two layouts in three styles each; the captions name both."""
    scenes = [(layout, style) for layout in range(2) for style in range(3)]
    places, times = ("a lake", "hills"), ("at dusk, in autumn colours", "at noon, summer greens", "in the morning, first snow")
    captions = {f"{style}{layout}": (f"{places[layout]} {times[style]}",) for layout, style in scenes}
    pairs = [replace(pair, captions=captions[pair.stem]) for pair in drawn_pairs(tmp_path / "data", scenes)]
    stage = begun(tmp_path / "run", replace(WORDS, steps=200))
    training_set, validation_set = stage.datasets(pairs, pairs)
    for step in range(200):
        stage.train_step([stack([training_set.example(i, np.random.default_rng((step, i))) for i in range(6)])], step)
    sums = dict.fromkeys(("val_loss_no_reference", "val_loss_no_reference_other_words"), 0.0)
    with jt.no_grad():
        for seed in range(20):
            found = stage.validate(stack([validation_set.example(i, np.random.default_rng((1000 + seed, i))) for i in range(6)]))
            sums = {name: value + found[name].sum() for name, value in sums.items()}
    right, other = sums.values()
    assert other > 1.02 * right


def test_a_published_text_encoder_is_read_once_and_stays_as_it_is(described, tmp_path, capsys, monkeypatch):
    write_encoder(tmp_path / "clip")
    write_tokenizer(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    options = replace(WORDS, text_encoder="clip")
    assert options.text_encoder == str(tmp_path / "clip")
    stage = begun(tmp_path / "run", options)
    training_set, _ = stage.datasets(described, described[:2])
    assert f"read by the text encoder of {tmp_path / 'clip'}" in capsys.readouterr().out
    assert stage.networks == ("unet", "conditioner") and not any("text" in name for name in stage.learners["unet"].state())
    reads = []
    monkeypatch.setattr(type(stage.words), "told", lambda self, captions: reads.append(captions))
    again, _ = stage.datasets(described, described[:2])
    monkeypatch.undo()
    assert not reads
    example = again.example(1, np.random.default_rng(0))
    expected = stage.words.told(["hills in the snow"])
    np.testing.assert_allclose(example["states"], expected["states"][0], atol=2e-3)  # kept in 16 bits
    np.testing.assert_allclose(example["pooled"], expected["pooled"][0], atol=1e-6)
    train(stage, training_set, range(1))
    save(stage, stage.folder, 1, 2)
    assert not (stage.folder / "text_encoder").exists() and not (stage.folder / "tokenizer.json").exists()
    assert paint(LatentDiffusion.of(options, stage.vae, stage.folder)).shape == (2, 64, 96, 3)


def test_faults_of_words_are_told(described, tmp_path):
    others = {"vae": OPTIONS["vae"]}
    assert WORDS.faults(others) == UNetOptions.faults(OPTIONS["unet"], others) == []
    for changed, name in (
        ({"words": 0, "text_encoder": str(tmp_path)}, "--unet_words 1"),
        ({"text_encoder": str(tmp_path / "x")}, "no folder"),
        ({"words": 2}, "--unet_linear_start 0"),
        ({"text_channels": 17}, "--unet_heads"),
    ):
        assert name in "; ".join(replace(WORDS, **changed).faults(others))
    assert "system text is of captions alone" in "; ".join(WORDS.faults(others | {"style": OPTIONS["style"]}))
    stage = begun(tmp_path)
    with pytest.raises(UserError, match=r"captions\.json"):
        stage.datasets([replace(pair, captions=()) for pair in described], described[:2])
