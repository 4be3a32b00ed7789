"""Test pairs: every form in which masks, photos and the list of pairs may be given, and every fault of them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import test_pairs
from datasets.test_pairs import check_results, find_test_pairs
from tests.datasets.files import assert_reported, save_mask, save_picture, truncate
from utils.errors import UserError


@pytest.fixture
def test_set(root):
    """Two masks with references in the training set; the JSON lies beside the folder of the masks."""
    save_mask(root / "val_A_labels_resized" / "m.png")
    save_mask(root / "val_A_labels_resized" / "n.png", depth=np.uint8)
    write_listing(root / "label_to_img.json", {"n.png": "b.jpg", "m.png": "a.jpg"})
    return root


def write_listing(path, listing):
    path.write_text(json.dumps(listing))
    return path


def assert_found(pairs, root):
    labels = root / "val_A_labels_resized"
    imgs = root / "train_resized" / "imgs"
    assert [(pair.stem, pair.mask, pair.reference) for pair in pairs] == [
        ("m", labels / "m.png", imgs / "a.jpg"),
        ("n", labels / "n.png", imgs / "b.jpg"),
    ]


@pytest.mark.parametrize("input_path", [".", "val_A_labels_resized", "val_A_labels_resized/"])
@pytest.mark.parametrize("img_path", [".", "train_resized", "train_resized/imgs"])
@pytest.mark.parametrize("json_inside", [False, True])
def test_every_form_of_the_contract(test_set, input_path, img_path, json_inside, monkeypatch):
    if json_inside:
        shutil.move(test_set / "label_to_img.json", test_set / "val_A_labels_resized")
    assert_found(find_test_pairs(f"{test_set}/{input_path}", f"{test_set}/{img_path}"), test_set)
    monkeypatch.chdir(test_set / input_path)  # and as relative paths
    assert_found(find_test_pairs(".", "../train_resized" if input_path != "." else "train_resized"), test_set)


@pytest.mark.parametrize("layout", ["train/imgs", "imgs"])
def test_references_of_other_layouts(tmp_path, layout):
    save_mask(tmp_path / "test" / "labels" / "m.png")
    reference = save_picture(tmp_path / layout / "r.PNG")
    write_listing(tmp_path / "test" / "label_to_img.json", {"m": "r"})
    (pair,) = find_test_pairs(tmp_path / "test", tmp_path)
    assert pair.reference == reference


def test_masks_beside_png_references(tmp_path):
    save_mask(tmp_path / "labels" / "m.png")
    save_picture(tmp_path / "imgs" / "r.png")
    write_listing(tmp_path / "label_to_img.json", {"m.png": "r.png"})
    (pair,) = find_test_pairs(tmp_path, tmp_path)
    assert pair.mask == tmp_path / "labels" / "m.png" and pair.reference == tmp_path / "imgs" / "r.png"


@pytest.mark.parametrize(
    "listing",
    [
        {"m": "a", "n": "b"},
        {"labels/m.png": "train/imgs/a.jpg", "labels\\n.png": "imgs\\b.jpg"},
        {"m.jpg": "a.png", "n.PNG": "b.JPG"},
    ],
)
def test_names_with_and_without_folder_and_extension(test_set, listing):
    write_listing(test_set / "label_to_img.json", listing)
    assert_found(find_test_pairs(test_set, test_set), test_set)


def test_stems_with_dots(test_set):
    save_mask(test_set / "val_A_labels_resized" / "1.5.png")
    save_picture(test_set / "train_resized" / "imgs" / "x.v2.jpg")
    listing = write_listing(test_set / "some.json", {"1.5": "x.v2"})
    (pair,) = find_test_pairs(test_set, test_set, listing)
    assert pair.stem == "1.5" and pair.reference.name == "x.v2.jpg"


def test_given_pairs_decide_what_is_made(test_set, tmp_path):
    listing = write_listing(tmp_path / "mine.json", {"n.png": "d.jpg"})
    (pair,) = find_test_pairs(test_set, test_set, pairs=str(listing))
    assert pair.stem == "n" and pair.reference.name == "d.jpg"


def test_the_only_json_is_taken_whatever_its_name(test_set):
    (test_set / "label_to_img.json").rename(test_set / "pairs.json")
    assert_found(find_test_pairs(test_set, test_set), test_set)
    write_listing(test_set / "other.json", {})
    with pytest.raises(UserError, match=r"other\.json.*pairs\.json.*--pairs"):
        find_test_pairs(test_set, test_set)


def test_a_json_with_byte_order_mark(test_set):
    (test_set / "label_to_img.json").write_text('{"m": "a", "n": "b"}', "utf-8-sig")
    assert_found(find_test_pairs(test_set, test_set), test_set)


def test_no_json(test_set):
    (test_set / "label_to_img.json").unlink()
    with pytest.raises(UserError, match=r"No label_to_img\.json in .*val_A_labels_resized or .*--pairs"):
        find_test_pairs(test_set, test_set)
    with pytest.raises(UserError, match=r"gone\.json cannot be read"):
        find_test_pairs(test_set, test_set, test_set / "gone.json")


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b'{"m": "a",', "not valid JSON: .*line 1"),
        (b"\xff\xfe{", "not valid JSON"),
        (b'[["m", "a"]]', "flat object"),
        (b'"m"', "flat object"),
        (b'{"m": {"img": "a"}}', "flat object"),
        (b'{"m": 3}', "flat object"),
        (b"{}", "names no mask"),
    ],
)
def test_malformed_json(test_set, content, complaint):
    (test_set / "label_to_img.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"label_to_img\.json .*{complaint}"):
        find_test_pairs(test_set, test_set)


def test_several_folders_of_masks(test_set):
    save_mask(test_set / "val_B_labels_resized" / "m.png")
    with pytest.raises(UserError, match=r"Several folders.*val_A_labels_resized.*val_B_labels_resized"):
        find_test_pairs(test_set, test_set)
    assert_found(find_test_pairs(test_set / "val_A_labels_resized", test_set), test_set)


def test_no_masks_and_no_references(test_set, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"No masks .* in .*empty"):
        find_test_pairs(tmp_path / "empty", test_set)
    with pytest.raises(UserError, match=r"No reference pictures .*empty"):
        find_test_pairs(test_set, tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_test_pairs(tmp_path / "nowhere", test_set)
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_test_pairs(test_set, tmp_path / "nowhere")


def test_one_report_names_every_fault_of_a_test_set(test_set):
    labels, imgs = test_set / "val_A_labels_resized", test_set / "train_resized" / "imgs"
    for stem in ("cut", "rgb", "range", "unnamed1", "unnamed2"):
        save_mask(labels / f"{stem}.png")
    truncate(labels / "cut.png")
    save_picture(labels / "rgb.png")
    mask = np.full((48, 64), 28)
    mask[0, 0] = 29
    save_mask(labels / "range.png", mask)
    truncate(imgs / "c.jpg")
    listing = '"m": "a", "n": "b", "cut": "c", "rgb": "d", "range": "gone.jpg", "lost.png": "d", "n": "a"'
    (test_set / "label_to_img.json").write_text(f"{{{listing}}}")
    with pytest.raises(UserError) as caught:
        find_test_pairs(test_set, test_set)
    report = str(caught.value)
    expected = {
        "cannot be decoded: 2": ["  imgs/c.jpg (", "  val_A_labels_resized/cut.png ("],
        "not a mask: 1": ["  val_A_labels_resized/rgb.png ("],
        "label over 28: 1": ["  val_A_labels_resized/range.png (highest is 29)"],
        "named in the JSON, but there is no such picture: 1": ["  imgs/gone.jpg"],
        "named in the JSON, but there is no such mask: 1": ["  val_A_labels_resized/lost.png"],
        "named twice in the JSON: 1": ["  val_A_labels_resized/n"],
        "not named in the JSON: 2": ["  val_A_labels_resized/unnamed1.png", "  val_A_labels_resized/unnamed2.png"],
    }
    assert_reported(report, expected)
    assert len(report.splitlines()) == 1 + len(expected) + 9 + 1  # and nothing else


def test_pictures_do_not_go_where_masks_and_photos_lie(test_set, tmp_path):
    """With --overwrite they would replace them."""
    labels, imgs = test_set / "val_A_labels_resized", test_set / "train_resized" / "imgs"
    (tmp_path / "link").symlink_to(imgs)
    (tmp_path / "truths").mkdir()
    for output in (labels, imgs, tmp_path / "link", tmp_path / "truths" / ".." / "truths"):
        with pytest.raises(UserError, match=r"--output_path .* must not replace"):
            find_test_pairs(test_set, test_set, output=output, truths=tmp_path / "truths")
    assert find_test_pairs(test_set, test_set, output=tmp_path / "results", truths=tmp_path / "truths")


def test_results_that_are_missing_damaged_or_of_another_size_are_all_named(tmp_path):
    pairs = [test_pairs.TestPair(stem, tmp_path / f"{stem}.png", tmp_path / "photo.jpg") for stem in ("a", "b", "c", "d")]
    for stem, size in (("a", (512, 384)), ("b", (256, 192)), ("c", (512, 384))):
        Image.new("RGB", size).save(tmp_path / f"{stem}.jpg")
    check_results(pairs[:1], tmp_path, (512, 384))
    check_results(pairs[:2], tmp_path)
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        check_results(pairs, tmp_path, (512, 384))
    message = str(caught.value)
    assert "b.jpg (256x192)" in message and "c.jpg" in message and "d.jpg" in message and "a.jpg" not in message
