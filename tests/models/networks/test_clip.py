import json

import jittor as jt
import numpy as np
import pytest

from models.networks.clip import (
    VIT_B_32,
    VIT_L_14,
    CLIPModel,
    clip_i,
    clip_t,
    encode_images,
    encode_texts,
    load_clip,
    load_tokenizer,
    preprocess,
    tokenize,
)
from tests.golden.networks import normal
from tests.models.networks.small_clip import CONFIG, GOLDEN, shapes, write_small_clip
from utils.errors import UserError

PICTURES = [GOLDEN[f"picture/{i}"] for i in range(3)]
TEXTS = GOLDEN["texts"].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder)


def agrees(value, key, tolerance=1e-5):
    expected = GOLDEN[key]
    return value.shape == expected.shape and np.abs(value - expected).max() < tolerance * np.abs(expected).max()


def test_image_features_agree_with_transformers(clip):
    assert agrees(clip.image_features(jt.array(normal("pixels", 2, 3, 32, 32))).numpy(), "image_features")


def test_text_states_and_features_agree_with_transformers(clip, monkeypatch):
    assert agrees(clip.text_model(GOLDEN["ids"]).numpy(), "text_states")
    for eos in (50, 2):
        monkeypatch.setattr(clip.config.text_config, "eos_token_id", eos)
        assert agrees(clip.text_features(GOLDEN["ids"]).numpy(), f"text_features/{eos}")


@pytest.mark.parametrize("name, config", [("vit_b_32", VIT_B_32), ("vit_l_14", VIT_L_14)])
def test_names_and_shapes_of_published_weights(name, config):
    ours = shapes(CLIPModel(config)) | {"logit_scale": []}  # Jittor knows no scalars
    assert [f"{n} {s}" for n, s in sorted(ours.items())] == str(GOLDEN[f"manifest/{name}"]).split("\n")


def test_preprocessing_is_openais():
    for i, picture in enumerate(PICTURES):
        assert agrees(preprocess([picture], 32)[0], f"crop/{i}", 1e-6)
    assert np.array_equal(preprocess(PICTURES, 32), np.concatenate([preprocess([picture], 32) for picture in PICTURES]))


def test_tokens_are_those_of_transformers(folder):
    ids = tokenize(load_tokenizer(folder), TEXTS)
    assert ids.dtype == np.int32 and np.array_equal(ids, GOLDEN["text_ids"])


def test_embeddings_are_of_unit_length(clip, folder):
    embeddings = encode_images(clip, PICTURES)
    features = clip.image_features(jt.array(np.stack([GOLDEN[f"crop/{i}"] for i in range(3)]))).numpy()
    assert embeddings.dtype == np.float32 and np.allclose(np.linalg.norm(embeddings, axis=1), 1)
    assert np.allclose(embeddings * np.linalg.norm(features, axis=1, keepdims=True), features, atol=1e-5)
    assert agrees(encode_texts(clip, load_tokenizer(folder), TEXTS), "embeddings")


def test_clip_i_and_clip_t_are_mean_cosines():
    a, b = np.float32([[1, 0], [0.6, 0.8]]), np.float32([[0, 1], [0.6, 0.8]])
    assert clip_i(a, a) == pytest.approx(1) and clip_i(a, b) == clip_t(a, b) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no pairs"):
        clip_i(a, b[:1])


def test_loaded_weights_take_no_gradients(clip):
    assert all(parameter.is_stop_grad() for parameter in clip.parameters())


@pytest.mark.parametrize("content, message", [
    (None, "config.json: No such file"),
    ("{", "is not the configuration"),
    (json.dumps(CONFIG["text_config"]), "is not the configuration"),  # a text encoder alone
    (json.dumps(CONFIG | {"text_config": CONFIG["text_config"] | {"hidden_act": "relu"}}), "hidden_act relu is not known"),
])  # fmt: skip
def test_a_config_that_is_not_clips_is_told(content, message, tmp_path):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_clip(tmp_path)


@pytest.mark.parametrize("content, message", [
    (None, "tokenizer.json: No such file"),
    ("{}", "is damaged"),
    (str(GOLDEN["tokenizer"]).replace("<|endoftext|>", "</s>"), "is not CLIP's"),
])  # fmt: skip
def test_a_tokenizer_that_is_not_clips_is_told(content, message, tmp_path):
    if content:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)
