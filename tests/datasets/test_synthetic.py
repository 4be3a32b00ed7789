"""The drawn landscapes: the same seeds give the same picture, masks fit pictures, and a written set is the contest's layout."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.captions import read_prompts
from datasets.landscape import CLASSES
from datasets.pairs import check_training_pairs
from datasets.synthetic import write
from datasets.synthetic.materials import CLASS_OF, MATERIALS
from datasets.synthetic.render import draw
from datasets.synthetic.scenes import SCENES, make_layout
from datasets.synthetic.stamps import house
from datasets.synthetic.styles import make_style
from datasets.synthetic.view import View
from datasets.synthetic.write import write_dataset
from utils.errors import DiskError, UserError

SMALL = (160, 120)


def test_same_seeds_same_picture():
    first, again, other = draw(3, 8, SMALL), draw(3, 8, SMALL), draw(4, 8, SMALL)
    assert first[0].shape == (120, 160, 3) and first[0].dtype == np.uint8
    assert first[1].shape == (120, 160) and first[1].dtype == np.uint8
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1]) and first[2] == again[2]
    assert not np.array_equal(first[1], other[1])


def seed_with_light(name):
    return next(seed for seed in range(500) if make_style(seed).light_name == name)


def test_style_changes_colour_and_not_layout():
    noon, sunset, night = (seed_with_light(name) for name in ("noon", "sunset", "night"))
    for layout in range(4):
        pictures, masks, _ = zip(*(draw(layout, style, SMALL) for style in (noon, sunset, night)), strict=True)
        assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[0], masks[2])
        red, _, blue = pictures[1].reshape(-1, 3).mean(0) - pictures[0].reshape(-1, 3).mean(0)
        assert red - blue > 40  # sunset is warmer than noon
        assert pictures[2].mean() < 0.5 * pictures[0].mean()  # night is darker


def test_one_style_gives_two_layouts_one_tone():
    tone = {(layout, style): draw(layout, style, SMALL)[0].reshape(-1, 3).mean(0) for layout in range(5) for style in range(8)}
    within = [np.linalg.norm(tone[a, s] - tone[b, s]) for s in range(8) for a in range(5) for b in range(a)]
    across = [np.linalg.norm(tone[a, s] - tone[a, t]) for a in range(5) for s in range(8) for t in range(s)]
    assert np.mean(across) > 1.5 * np.mean(within)


def test_every_class_occurs_and_the_wide_ones_dominate():
    share = np.zeros(len(CLASSES))
    for seed in range(200):
        mask = CLASS_OF[make_layout((0, seed), (128, 96)).material]
        share += np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size / 200
    assert not [CLASSES[i] for i in np.flatnonzero(share == 0)]
    wide = dict(zip(CLASSES, share, strict=True))
    assert 0.22 < wide["mountain"] < 0.5 and 0.25 < wide["sky"] < 0.5
    assert 0.05 < wide["sea"] < 0.2 and 0.03 < wide["water"] < 0.15


@pytest.mark.parametrize("scene", [scene for scene, _ in SCENES], ids=lambda scene: scene.__name__)
def test_every_scene_at_every_size(scene):
    for size in ((16, 16), (40, 90), (96, 72)):
        view = scene(np.random.default_rng(7), size)
        assert view.material.shape == size[::-1] and view.material.max() < len(MATERIALS)
        for field in (view.shade, view.depth, view.slope_x, view.slope_z):
            assert field.shape == size[::-1] and np.isfinite(field).all()


def test_ground_is_painted_behind_things():
    view = View(SMALL, horizon=0.4, eye=5)
    view.set_ground(np.zeros_like(view.grid_x))
    view.stand(house, np.random.default_rng(0), 0, 30, 8)
    home, sky = view.is_made_of("house", "timber house", "roof", "house window"), view.is_made_of("sky")
    view.paint("road", np.ones(home.shape, bool))
    assert home.sum() > 500 and np.array_equal(view.is_made_of("road"), ~home & ~sky)


def test_mask_edges_lie_on_picture_edges():
    """Moved by a few pixels, the border of the sky no longer meets the strong edges of the picture."""
    noon = seed_with_light("noon")
    here, moved = [], []
    for layout in range(12):
        image, mask, _ = draw(layout, noon, (320, 240))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        step = np.abs(grey[2:] - grey[:-2])  # [H - 2, W]: contrast across row i + 1
        sky = mask == CLASSES.index("sky")
        rows, columns = np.nonzero(sky[:-1] & ~sky[1:])  # the last row of sky
        keep = (rows > 8) & (rows < 228)
        here.append(step[rows[keep] - 1, columns[keep]])
        moved += [step[rows[keep] - 1 + shift, columns[keep]] for shift in (-6, 6)]
    assert np.concatenate(here).mean() > 2 * np.concatenate(moved).mean()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "landscapes"
    write_dataset(root, train=6, test=4, seed=1, size=(96, 72), workers=2, progress=False)
    return root


def stems(folder, suffix):
    return sorted(path.stem for path in folder.iterdir() if path.suffix == suffix)


def test_written_layout(written):
    train = stems(written / "train_resized/imgs", ".jpg")
    test = stems(written / "val_A_labels_resized", ".png")
    assert len(train) == 6 and train == stems(written / "train_resized/labels", ".png")
    assert len(test) == 4 and test == stems(written / "val_A_truth", ".jpg")
    for path in written.rglob("*.png"):
        with Image.open(path) as mask:
            assert mask.mode in ("I;16", "I") and mask.size == (96, 72) and np.asarray(mask).max() < len(CLASSES)
    for path in written.rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.mode == "RGB" and image.size == (96, 72) and image.format == "JPEG"
    assert [len(pair.captions) for pair in check_training_pairs(written)] == [3] * 6
    assert sorted(read_prompts(written / "prompts.json", set(test))) == test
    assert not list(written.parent.glob("*.partial"))


def test_each_reference_is_another_training_picture(written):
    pairs = json.loads((written / "label_to_img.json").read_text())
    assert sorted(pairs) == [f"{stem}.png" for stem in stems(written / "val_A_labels_resized", ".png")]
    assert len(set(pairs.values())) == 4
    assert all((written / "train_resized/imgs" / name).is_file() for name in pairs.values())


def test_truth_is_the_test_layout_in_the_style_of_its_reference(written):
    pairs = json.loads((written / "label_to_img.json").read_text())
    prompts = json.loads((written / "prompts.json").read_text())
    for label, reference in pairs.items():
        index, style = int(label[5:10]), int(reference[6:11])
        image, mask, captions = draw((1, 0, 6 + index), (1, 1, style), (96, 72))
        assert np.array_equal(np.asarray(Image.open(written / "val_A_labels_resized" / label)), mask)
        truth = np.asarray(Image.open(written / "val_A_truth" / f"{label[:-4]}.jpg")).astype(int)
        assert np.abs(truth - image).mean() < 6  # but for JPEG
        assert prompts[label[:-4]] == captions[0]


def test_more_test_pictures_than_training_pictures(tmp_path):
    write_dataset(tmp_path / "set", train=2, test=5, seed=0, size=(32, 24), progress=False)
    pairs = json.loads((tmp_path / "set/label_to_img.json").read_text())
    assert sorted(np.unique(list(pairs.values()), return_counts=True)[1]) == [2, 3]


def test_an_interrupted_run_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    def fail_late(layout_seed, style_seed, size):
        if layout_seed[-1] == 3:
            raise KeyboardInterrupt
        return draw(layout_seed, style_seed, size)

    monkeypatch.setattr(write, "draw", fail_late)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", train=6, test=0, seed=0, size=(32, 24), workers=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_run_do_not_get_into_the_set(tmp_path):
    stale = tmp_path / "set.partial/train_resized/imgs/old.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half a picture")
    write_dataset(tmp_path / "set", train=1, test=0, seed=0, size=(32, 24), progress=False)
    assert stems(tmp_path / "set/train_resized/imgs", ".jpg") == ["train_00000"]
    assert json.loads((tmp_path / "set/label_to_img.json").read_text()) == {}


def test_refuses_what_makes_no_sense(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious.txt").write_text("keep")
    with pytest.raises(UserError, match="exists already"):
        write_dataset(tmp_path / "mine", 1, 1, 0)
    for train, test, seed, size in ((0, 1, 0, (32, 24)), (1, -1, 0, (32, 24)), (1, 1, -1, (32, 24)), (1, 1, 0, (8, 8))):
        with pytest.raises(UserError, match="Cannot draw"):
            write_dataset(tmp_path / "new", train, test, seed, size)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_says_where_it_could_not_write(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match=r"file/set: Not a directory"):
        write_dataset(tmp_path / "file/set", 1, 0, 0, size=(32, 24), progress=False)
