"""The captions of drawn pictures: they follow from the seeds, and name what is seen and nothing else."""

import numpy as np

from datasets.landscape import CLASSES
from datasets.synthetic.captions import CLASSES_OF_THING, LIGHT_WORDS, SCENE_WORDS, SEASON_WORDS, TIMES, Truth, sentences, truth_of
from datasets.synthetic.render import draw
from datasets.synthetic.scenes import SCENES
from datasets.synthetic.styles import LIGHTS, SEASONS, make_style

SMALL = (96, 72)


def test_there_are_words_for_all_that_is_drawn():
    assert list(SCENE_WORDS) == [scene.__name__.replace("_", " ") for scene, _ in SCENES]
    assert LIGHT_WORDS.keys() == LIGHTS.keys() and SEASON_WORDS.keys() == SEASONS.keys()
    assert {time for time, *_ in LIGHT_WORDS.values()} == set(TIMES)


def test_captions_name_all_of_the_truth_and_follow_from_the_seeds():
    scenes, said = set(), set()
    for seed in range(40):
        _, mask, captions = draw((1, seed), (2, seed), SMALL)
        truth = truth_of((1, seed), (2, seed), SMALL)
        scenes.add(truth.scene)
        said.add(captions[0])
        assert draw((1, seed), (2, seed), SMALL)[2] == captions and len(captions) == 3
        assert truth.light == make_style((2, seed)).light_name
        for caption in captions[:2]:
            words = caption.lower()
            assert any(name in words for name in SCENE_WORDS[truth.scene]) and any(when in words for when in LIGHT_WORDS[truth.light][2])
            assert truth.season in (season for season, (_, look) in SEASON_WORDS.items() if look in words) or truth.season is None
            assert all(thing in words for thing in truth.things)
        assert captions[2].startswith(f"{truth.scene}, {truth.time}")
        for thing in truth.things:
            assert any((mask == CLASSES.index(name)).any() for name in CLASSES_OF_THING[thing])
    assert len(scenes) > 5 and len(said) == 40


def test_a_season_is_named_where_it_shows():
    winter = next(seed for seed in range(500) if make_style(seed).season == "winter" and make_style(seed).light_name == "noon")
    seen = {scene: set() for scene in SCENE_WORDS}
    for layout in range(60):
        truth = truth_of(layout, winter, SMALL)
        seen[truth.scene].add(truth.season)
    assert seen["open sea"] == {None} and seen["mountain range"] == {"winter"}


def test_sentences_are_sentences():
    full = Truth("mountain lake", "dusk", "winter", ("trees", "a pier", "boats"))
    for seed in range(20):
        for truth in (full, Truth("open sea", "mist", None), Truth("desert", "noon", "drought", ("rocks",))):
            first, second, listed = sentences(truth, np.random.default_rng(seed))
            assert first[0].isupper() and first.endswith(".") and second.endswith(".") and ".." not in first + second
            assert not any("  " in text or " ." in text or " ," in text for text in (first, second, listed))
        assert ", with trees, a pier and boats. " in sentences(full, np.random.default_rng(seed))[0]
    assert listed == "desert, day, drought"
