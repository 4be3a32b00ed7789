"""The prompts whose pictures are asked what they show, and what asks them."""

from collections import Counter

import numpy as np

from datasets.synthetic.captions import LIGHT_WORDS, SCENE_WORDS, SEASON_WORDS, Truth, sentences
from tests.benchmarks.word_recall import KINDS, Classifier, asked, balanced_prompts


def test_prompts_ask_for_each_time_of_day_and_season_as_often():
    prompts = balanced_prompts(64)
    wanted = [asked(text) for text in prompts.values()]
    assert len(prompts) == 64 and all(want.keys() == KINDS.keys() for want in wanted) and prompts == balanced_prompts(64)
    assert list(balanced_prompts(64, ["m", "n"]).items()) == list(zip("mn", list(prompts.values())[:2], strict=True))
    for kinds in (["time of day"], ["season"], ["time of day", "season"]):
        counts = Counter(tuple(want[kind] for kind in kinds) for want in wanted)
        assert len(counts) == np.prod([len(KINDS[kind]) for kind in kinds]) and max(counts.values()) <= min(counts.values()) + 2


def test_what_a_caption_says_is_read_from_it():
    rng = np.random.default_rng(0)
    for scene in SCENE_WORDS:
        for light, (time, *_) in LIGHT_WORDS.items():
            for season in (None, *SEASON_WORDS):
                expected = {"time of day": time, "scene": scene} | ({"season": season} if season in KINDS["season"] else {})
                for text in sentences(Truth(scene, light, season, ("trees", "a road")), rng)[:2]:
                    assert asked(text) == expected
    assert asked("a cat") == {}


def test_the_classifier_tells_rare_names_too():
    rng = np.random.default_rng(0)
    names = ["often"] * 90 + ["rare"] * 10
    rows = rng.standard_normal((100, 5)) + 16 * np.array([[name == "rare", 0, 0, 0, 0] for name in names])
    classifier = Classifier(rows[::2], names[::2])
    assert classifier(rows[1::2]) == names[1::2]
