"""Latents are encoded once, in float32, and what a stop has left is taken up again."""

import jittor as jt
import numpy as np
import pytest

from datasets.landscape import read_image
from datasets.pairs import check_training_pairs
from datasets.synthetic.render import draw
from datasets.transforms import to_array
from models.networks.autoencoder_kl import AutoencoderKL
from models.networks.layers import autocast
from models.stages.latents import cache_latents
from tests.small import OPTIONS
from utils.image import write_jpeg, write_png

SIZE = (96, 64)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for i in range(10):
        image, mask, _ = draw(i, i, SIZE)
        write_jpeg(root / "imgs" / f"{i}.jpg", image)
        write_png(root / "labels" / f"{i}.png", mask)
    return check_training_pairs(root)


@pytest.fixture(scope="module")
def vae():
    jt.set_global_seed(0)
    return AutoencoderKL(OPTIONS["vae"].network)


def all_of(latents):
    return np.stack([latents.posterior(i, flip) for i in range(10) for flip in range(2)])


@pytest.fixture(scope="module")
def whole(pairs, vae, tmp_path_factory):
    return all_of(cache_latents(vae, pairs, SIZE, tmp_path_factory.mktemp("latents")))


def test_they_are_what_the_autoencoder_says_of_each_photo_and_its_mirror_image(pairs, vae, whole):
    photo = read_image(pairs[3].image, SIZE)
    for flip, image in enumerate((photo, photo[:, ::-1])):
        mean, logvar = vae.posterior(jt.array(to_array(image[None])))
        expected = np.stack([mean.numpy()[0], np.exp(0.5 * logvar.numpy()[0])])
        np.testing.assert_allclose(whole[2 * 3 + flip], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.bit_for_bit
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_they_are_encoded_in_float32_whatever_the_precision_of_training(pairs, vae, whole, tmp_path, dtype):
    """They are kept for all that come after, also in full precision."""
    with autocast(dtype):
        assert np.array_equal(all_of(cache_latents(vae, pairs, SIZE, tmp_path)), whole)


@pytest.mark.bit_for_bit
def test_a_stop_loses_no_more_than_a_batch(pairs, vae, whole, tmp_path, monkeypatch):
    encoded = []
    posterior = AutoencoderKL.posterior

    def counting(self, x):
        encoded.append(len(x))
        if sum(encoded) > 2 * 8:  # each batch comes twice, as it is and mirrored
            raise KeyboardInterrupt
        return posterior(self, x)

    monkeypatch.setattr(AutoencoderKL, "posterior", counting)
    with pytest.raises(KeyboardInterrupt):
        cache_latents(vae, pairs, SIZE, tmp_path)
    encoded.clear()
    assert np.array_equal(all_of(cache_latents(vae, pairs, SIZE, tmp_path)), whole)
    assert encoded == [2, 2]


@pytest.mark.bit_for_bit
def test_a_photo_of_other_content_and_the_same_size_is_encoded_again(pairs, vae, whole, tmp_path):
    cache_latents(vae, pairs, SIZE, tmp_path)
    content = pairs[0].image.read_bytes()
    try:
        pairs[0].image.write_bytes(pairs[1].image.read_bytes())
        changed = all_of(cache_latents(vae, pairs, SIZE, tmp_path))
    finally:
        pairs[0].image.write_bytes(content)
    assert np.array_equal(changed[:2], whole[2:4]) and np.array_equal(changed[2:], whole[2:])


def test_those_of_another_autoencoder_are_made_anew_and_the_old_ones_removed(pairs, whole, tmp_path):
    for seed in (0, 2):  # to Jittor, 0 and 1 are the same
        jt.set_global_seed(seed)
        latents = all_of(cache_latents(AutoencoderKL(OPTIONS["vae"].network), pairs, SIZE, tmp_path))
    assert not np.array_equal(latents, whole)
    assert len(list(tmp_path.iterdir())) == 1
