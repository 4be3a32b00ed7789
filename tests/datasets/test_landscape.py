import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import landscape
from datasets.landscape import CLASSES, Pair, check_results, check_training_pairs, find_test_pairs, read_image, read_mask, split
from utils.errors import UserError

SIZE = (64, 48)


def save_picture(path, mode="RGB", size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def labels(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 29, (size[1], size[0]), np.uint8)


def save_mask(path, array=None, depth=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((labels() if array is None else array).astype(depth)).save(path)
    return path


def truncate(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.fixture
def root(tmp_path):
    """A sound training set of four pairs."""
    for stem in "abcd":
        save_picture(tmp_path / "train_resized" / "imgs" / f"{stem}.jpg")
        save_mask(tmp_path / "train_resized" / "labels" / f"{stem}.png")
    return tmp_path


@pytest.fixture
def imgs(root):
    return root / "train_resized" / "imgs"


@pytest.fixture
def masks(root):
    return root / "train_resized" / "labels"


def stems(pairs):
    return [pair.stem for pair in pairs]


def test_classes():
    assert len(CLASSES) == landscape.NUM_CLASSES == len(set(CLASSES)) == 29
    known = {0: "mountain", 1: "sky", 3: "sea", 14: "person", 18: "pier", 21: "bridge", 24: "railing", 28: "other"}
    assert {index: CLASSES[index] for index in known} == known


# Reading


@pytest.mark.parametrize("depth, mode", [(np.uint8, "L"), (np.uint16, "I;16")])
def test_read_mask_of_8_and_16_bits(tmp_path, depth, mode):
    path = tmp_path / "m.png"
    image = Image.fromarray(labels().astype(depth))
    assert image.mode == mode
    image.save(path)
    mask = read_mask(path)
    assert mask.dtype == np.uint8 and mask.shape == (48, 64)
    np.testing.assert_array_equal(mask, labels())


def test_read_mask_as_older_pillow_opens_16_bits(tmp_path, monkeypatch):
    image = Image.fromarray(labels().astype(np.int32))
    image.format = "PNG"
    monkeypatch.setattr(landscape, "_decode", lambda path: image)
    assert image.mode == "I"
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels())


def test_read_mask_of_palette_gives_the_indices(tmp_path):
    image = Image.fromarray(labels()).convert("L")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    assert image.mode == "P"
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels())


def test_read_mask_of_one_bit(tmp_path):
    Image.fromarray(labels() > 10).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels() > 10)


def test_read_mask_resizes_by_the_nearest_pixel_centre(tmp_path):
    mask = labels(size=(12, 9))
    path = save_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(path, (36, 27)), mask.repeat(3, 0).repeat(3, 1))
    np.testing.assert_array_equal(read_mask(path, (4, 3)), mask[1::3, 1::3])  # the middle of each 3x3


@pytest.mark.parametrize("depth, highest", [(np.uint8, 29), (np.uint8, 255), (np.uint16, 300)])
def test_read_mask_refuses_labels_over_28(tmp_path, depth, highest):
    mask = labels().astype(depth)
    mask[5, 5] = highest
    with pytest.raises(UserError, match=rf"m\.png: label over 28 \(highest is {highest}\)"):
        read_mask(save_mask(tmp_path / "m.png", mask, depth))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_read_mask_refuses_several_channels(tmp_path, mode):
    with pytest.raises(UserError, match=f"not a mask.*{mode}"):
        read_mask(save_picture(tmp_path / "m.png", mode))


def test_read_mask_refuses_a_jpeg_in_disguise(tmp_path):
    Image.fromarray(labels()).save(tmp_path / "m.png", "JPEG")
    with pytest.raises(UserError, match=r"not a mask.*JPEG"):
        read_mask(tmp_path / "m.png")


def test_read_image(tmp_path):
    path = save_picture(tmp_path / "a.png")
    image = read_image(path)
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.array(Image.open(path)))
    image[0] = 0  # it is one's own, not read-only


@pytest.mark.parametrize("mode, suffix", [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "png"), ("LA", "png")])
def test_read_image_converts_harmless_modes(tmp_path, mode, suffix):
    path = save_picture(tmp_path / f"a.{suffix}", mode)
    expected = np.array(Image.open(path).convert("RGB"))
    assert Image.open(path).mode == mode and np.ptp(expected) > 100
    np.testing.assert_array_equal(read_image(path), expected)


def test_read_image_shrinks_without_aliasing(tmp_path):
    stripes = np.zeros((48, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png", (16, 12))
    assert small.shape == (12, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() < 30


def test_read_image_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise by 90 degrees
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :8] = 255  # white at the left becomes white at the top
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (64, 48, 3)
    assert image[:6].min() > 200 and image[20:].max() < 50


def test_read_image_survives_damaged_exif(tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage")
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize("read, name", [(read_image, "a.jpg"), (read_image, "a.png"), (read_mask, "a.png")])
def test_damaged_files_are_named(tmp_path, read, name):
    path = tmp_path / name
    with pytest.raises(UserError, match=f"{name}: cannot be decoded"):
        read(path)  # not there
    for content in (b"", b"this is text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be decoded .not an image"):
            read(path)
    save_mask(path) if read is read_mask else save_picture(path)
    truncate(path)
    with pytest.raises(UserError, match=f"{name}: cannot be decoded .*truncated"):
        read(path)


# The training set


@pytest.mark.parametrize("layout", ["train_resized", "train", "."])
def test_find_training_folder(tmp_path, layout):
    (tmp_path / layout / "imgs").mkdir(parents=True)
    (tmp_path / layout / "labels").mkdir()
    assert landscape.find_training_folder(tmp_path) == tmp_path / layout
    assert landscape.find_training_folder(str(tmp_path / layout)) == tmp_path / layout


def test_find_training_folder_says_what_it_looked_for(tmp_path):
    (tmp_path / "train" / "imgs").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        landscape.find_training_folder(tmp_path)
    for folder in ("train_resized", "train", "."):
        assert f"{tmp_path / folder / 'imgs'} and {tmp_path / folder / 'labels'}" in str(caught.value)
    with pytest.raises(UserError, match="missing does not exist"):
        landscape.find_training_folder(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        landscape.find_training_folder(tmp_path / "file")


def test_sound_pairs_in_order_and_in_silence(root, imgs, masks, capsys):
    save_picture(imgs / "B2.JPEG")
    save_mask(masks / "B2.PNG")
    save_picture(imgs / "c.1.png")
    save_mask(masks / "c.1.png", depth=np.uint8)
    (imgs / ".DS_Store").write_text("")
    pairs = check_training_pairs(root)
    assert stems(pairs) == ["B2", "a", "b", "c", "c.1", "d"]
    assert pairs[1] == Pair("a", imgs / "a.jpg", masks / "a.png")
    assert capsys.readouterr().err == ""


def damage(imgs, masks):
    """One pair of every fault -> the line each must have in the report, after its kind."""
    for stem in ("cut", "cutmask", "text", "range", "rgb", "gray16", "size", "lone", "twice"):
        save_picture(imgs / f"{stem}.jpg")
        save_mask(masks / f"{stem}.png")
    truncate(imgs / "cut.jpg")
    truncate(masks / "cutmask.png")
    (imgs / "text.jpg").write_text("no picture")
    save_mask(masks / "range.png", labels() * 9)
    save_picture(masks / "rgb.png", "RGB")
    (imgs / "gray16.jpg").unlink()
    save_mask(imgs / "gray16.png")
    save_mask(masks / "size.png", labels((32, 24)))
    (masks / "lone.png").unlink()
    save_mask(masks / "lonemask.png")
    save_picture(imgs / "twice.png")
    return {
        "cannot be decoded: 3": ["  imgs/cut.jpg (", "  imgs/text.jpg (not an image)", "  labels/cutmask.png ("],
        "label over 28: 1": ["  labels/range.png (highest is 252)"],
        "not a mask: 1": ["  labels/rgb.png (RGB picture; a mask has one channel)"],
        "not a photograph: 1": ["  imgs/gray16.png ("],
        "mask of another size: 1": ["  imgs/size.jpg (picture 64x48, mask 32x24)"],
        "no mask of this name: 1": ["  imgs/lone.jpg"],
        "no picture of this name: 1": ["  labels/lonemask.png"],
        "second file of this name: 1": ["  imgs/twice.png (beside twice.jpg)"],
    }


def assert_reported(report, expected):
    lines = report.splitlines()
    for kind, offenders in expected.items():
        start = lines.index(kind) + 1
        for line, offender in zip(lines[start:], offenders, strict=False):
            assert line.startswith(offender)


def test_one_report_names_every_fault(root, imgs, masks, capsys):
    expected = damage(imgs, masks)
    with pytest.raises(UserError) as caught:
        check_training_pairs(root)
    report = str(caught.value)
    assert_reported(report, expected)
    assert report.startswith(f"{root / 'train_resized'}: 10 faults.")
    assert report.endswith("train on the 4 sound pairs with --skip_bad.")
    assert len(report.splitlines()) == 1 + len(expected) + 10 + 1  # and nothing else
    assert capsys.readouterr().err == ""


def test_skip_bad_leaves_them_out_and_says_so(root, imgs, masks, capsys):
    expected = damage(imgs, masks)
    assert stems(check_training_pairs(root, skip_bad=True, workers=2)) == ["a", "b", "c", "d"]
    report = capsys.readouterr().err
    assert_reported(report, expected)
    assert "Left out as asked; 4 pairs remain." in report


def test_skip_bad_with_nothing_left_is_an_error(root, imgs, masks):
    for path in imgs.iterdir():
        truncate(path)
    with pytest.raises(UserError, match=r"(?s)4 faults.*cannot be decoded: 4.*No sound pair is left"):
        check_training_pairs(root, skip_bad=True)


def test_convertible_pictures_and_strange_files_are_only_mentioned(root, imgs, masks, capsys):
    for number, mode in enumerate(("L", "CMYK")):
        save_picture(imgs / f"x{number}.jpg", mode)
        save_mask(masks / f"x{number}.png")
    save_picture(imgs / "x2.png", "RGBA")
    save_mask(masks / "x2.png")
    (imgs / "notes.txt").write_text("hello")
    (masks / "old").mkdir()
    for _ in range(2):  # each time, also with a cache
        assert len(check_training_pairs(root, cache=root / "cache.json")) == 7
        said = capsys.readouterr().err
        assert "3 read as RGB: x0.jpg L, x1.jpg CMYK, x2.png RGBA\n" in said
        assert "2 neither picture nor mask, ignored: imgs/notes.txt, labels/old\n" in said


@pytest.mark.parametrize("folder", ["imgs", "labels"])
def test_an_empty_folder_is_said_to_be_empty(root, folder):
    shutil.rmtree(root / "train_resized" / folder)
    (root / "train_resized" / folder).mkdir()
    (root / "train_resized" / folder / "readme.txt").write_text("")
    with pytest.raises(UserError, match=f"{folder} is empty"):
        check_training_pairs(root)


def test_many_offenders_go_to_the_report_file(root, imgs, masks, tmp_path):
    for number in range(30):
        save_picture(imgs / f"lone{number:02}.jpg")
    truncate(imgs / "a.jpg")
    report_path = tmp_path / "run" / "bad.txt"
    with pytest.raises(UserError) as caught:
        check_training_pairs(root, report_path=report_path)
    message, report = str(caught.value), report_path.read_text()
    assert all(f"  imgs/lone{number:02}.jpg\n" in report for number in range(30))
    assert "no mask of this name: 30" in message and message.count("imgs/lone") == 10
    assert "imgs/a.jpg" in message  # a rare fault is not crowded out
    assert f"The full list is in {report_path}" in message
    with pytest.raises(UserError) as caught:
        check_training_pairs(root)  # without a report file nothing may be left out
    assert str(caught.value) + "\n" == report


def test_names_that_are_no_utf8(root, imgs, masks, tmp_path):
    name = b"\xce\xf7\xba\xfe".decode(errors="surrogateescape")  # as a GBK archive unpacks
    save_picture(imgs / "x.jpg").rename(imgs / f"{name}.jpg")
    save_mask(masks / "x.png").rename(masks / f"{name}.png")
    pairs = check_training_pairs(root, cache=tmp_path / "cache.json")
    assert name in stems(pairs) and len(split(pairs, 0.5, seed=0)[0]) > 0
    (masks / f"{name}.png").unlink()
    check_training_pairs(root, skip_bad=True, report_path=tmp_path / "bad.txt")
    assert "no mask of this name: 1" in (tmp_path / "bad.txt").read_text()


def test_cache_remembers_sound_pairs_only(root, imgs, masks, tmp_path, monkeypatch):
    cache = tmp_path / "cache.json"
    truncate(imgs / "a.jpg")
    assert stems(check_training_pairs(root, skip_bad=True, cache=cache)) == ["b", "c", "d"]

    decoded = []
    decode = landscape._decode
    monkeypatch.setattr(landscape, "_decode", lambda path: decoded.append(path.name) or decode(path))
    assert stems(check_training_pairs(root, skip_bad=True, cache=cache)) == ["b", "c", "d"]
    assert sorted(decoded) == ["a.jpg", "a.png"]  # what was at fault is looked at again

    truncate(masks / "c.png")
    with pytest.raises(UserError, match=r"labels/c\.png"):
        check_training_pairs(root, cache=cache)
    save_picture(imgs / "a.jpg")
    save_mask(masks / "c.png")
    cache.write_text("{damaged")
    assert len(check_training_pairs(root, cache=cache)) == 4


# Splitting


def named(count):
    return [Pair(f"picture{number}", Path("x"), Path("y")) for number in range(count)]


def test_split_parts_all_pairs_by_share():
    train, val = split(named(2000), 0.1, seed=0)
    assert 150 < len(val) < 250
    assert sorted(stems(train + val)) == sorted(stems(named(2000)))
    assert (train, val) == split(named(2000), 0.1, seed=0)
    assert stems(val) != stems(split(named(2000), 0.1, seed=1)[1])


def test_split_moves_no_picture_when_others_are_added():
    _, val = split(named(500), 0.2, seed=3)
    train_more, val_more = split(named(700)[::-1], 0.2, seed=3)
    assert set(stems(val)) <= set(stems(val_more)) and not set(stems(val)) & set(stems(train_more))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_split_leaves_neither_part_empty(fraction, seed):
    for count in (2, 3):
        train, val = split(named(count), fraction, seed)
        assert train and val and len(train) + len(val) == count


def test_split_without_validation_and_errors():
    assert split(named(3), 0, seed=0) == (named(3), [])
    for fraction in (-0.1, 1, 1.5):
        with pytest.raises(UserError, match="share"):
            split(named(3), fraction, seed=0)
    with pytest.raises(UserError, match="at least 2"):
        split(named(1), 0.1, seed=0)


# Test pairs


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
        (b'{"m": "\xff"}', "not valid JSON"),
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


def test_results_that_are_missing_damaged_or_of_another_size_are_all_named(tmp_path):
    pairs = [landscape.TestPair(stem, tmp_path / f"{stem}.png", tmp_path / "photo.jpg") for stem in ("a", "b", "c", "d")]
    for stem, size in (("a", (512, 384)), ("b", (256, 192)), ("c", (512, 384))):
        Image.new("RGB", size).save(tmp_path / f"{stem}.jpg")
    check_results(pairs[:1], tmp_path, (512, 384))
    check_results(pairs[:2], tmp_path)
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        check_results(pairs, tmp_path, (512, 384))
    message = str(caught.value)
    assert "b.jpg (256x192)" in message and "c.jpg" in message and "d.jpg" in message and "a.jpg" not in message
