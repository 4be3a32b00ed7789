"""What a layout in a style shows, and sentences that say it.

Only what can be seen is named: the season where enough of the picture is of its colours, a thing where it has pixels. So words that a
network learns from these captions are words that it can paint.
"""

from dataclasses import dataclass

import numpy as np

from datasets.landscape import CLASSES
from datasets.synthetic.materials import CLASS_OF
from datasets.synthetic.scenes import make_layout
from datasets.synthetic.styles import SEASONS, make_style

SEASON_SHOWS = 0.05  # share of the pixels, less what haze hides of them, that a season repaints
THING_SHOWS = 0.0005  # share of the pixels that are of a thing's class

TIMES = ("dawn", "day", "golden hour", "sunset", "dusk", "night")
# Of each light: its time of day, the weather, when that is, and how it looks.
LIGHT_WORDS = {
    "dawn": ("dawn", "fair", ("at dawn", "at daybreak"), "soft pink light"),
    "morning": ("day", "fair", ("on a clear morning", "in the morning"), "fresh daylight"),
    "noon": ("day", "fair", ("at noon", "at midday"), "bright daylight under a deep blue sky"),
    "golden hour": ("golden hour", "fair", ("at golden hour", "in the golden evening"), "warm yellow light"),
    "sunset": ("sunset", "fair", ("at sunset", "while the sun sets"), "a red and orange sky"),
    "dusk": ("dusk", "fair", ("at dusk", "after sunset, at dusk"), "violet twilight"),
    "night": ("night", "fair", ("at night", "on a clear night"), "blue moonlight"),
    "overcast": ("day", "overcast", ("on an overcast day", "on a grey day"), "flat grey daylight"),
    "mist": ("day", "mist", ("on a misty day", "in the mist by day"), "pale mist"),
    "storm": ("day", "storm", ("on a stormy day", "before a storm by day"), "dark storm clouds"),
    "haze": ("day", "haze", ("on a hazy day", "in the dust of the day"), "dusty sepia haze"),
    "aurora": ("night", "northern lights", ("at night under northern lights", "on a night of northern lights"), "a green glow"),
}
SEASON_WORDS = {
    "summer": (("in summer", "in midsummer"), "summer greens"),
    "spring": (("in spring", "in early spring"), "fresh spring colours"),
    "autumn": (("in autumn", "in late autumn"), "autumn colours"),
    "winter": (("in winter", "in deep winter"), "snow on the ground"),
    "drought": (("in a drought", "in the dry season"), "dry yellow ground"),
}
SCENE_WORDS = {
    "mountain range": ("a mountain range", "high mountains"),
    "mountain lake": ("a mountain lake", "a lake below mountains"),
    "sea shore": ("a sandy sea shore", "a beach by the sea"),
    "rocky coast": ("a rocky coast", "the rocks of a coast"),
    "open sea": ("the open sea", "the wide sea"),
    "river valley": ("a river in a mountain valley", "a valley with a river"),
    "waterfall gorge": ("a waterfall in a gorge", "a gorge with a waterfall"),
    "fields and road": ("farm fields", "a plain of fields"),
    "village": ("a village below mountains", "a mountain village"),
    "desert": ("desert dunes", "a desert"),
    "green hills": ("rolling hills", "soft hills"),
    "harbour": ("a harbour town", "a town by the harbour"),
}
CLASSES_OF_THING = {
    **{f"a {name}": (name,) for name in ("bridge", "fence", "path", "pier", "railing", "road", "ship")},
    **dict.fromkeys(("boulders", "rocks"), ("rock",)),
    **dict.fromkeys(("firs", "trees"), ("tree",)),
    **dict.fromkeys(("a walker", "people"), ("person",)),
    **dict.fromkeys(("a rowing boat", "a sailing boat", "sailing boats", "boats"), ("boat",)),
    **dict.fromkeys(("a farm house", "houses"), ("house",)),
    "buildings": ("building", "house"),
    "a stone wall": ("wall",),
    "shrubs": ("plant",),
    "a hot-air balloon": ("other",),
}


@dataclass(frozen=True)
class Truth:
    """What there is to say of a picture."""

    scene: str  # a key of SCENE_WORDS
    light: str  # a key of LIGHT_WORDS
    season: str | None  # a key of SEASON_WORDS; None where it does not show
    things: tuple[str, ...] = ()  # keys of CLASSES_OF_THING

    @property
    def time(self):
        """The time of day, one of TIMES."""
        return LIGHT_WORDS[self.light][0]

    @property
    def weather(self):
        return LIGHT_WORDS[self.light][1]


def truth_of(layout_seed, style_seed, size=(512, 384)):
    """The Truth of what `draw` draws from these arguments."""
    return truth(make_layout(layout_seed, size), make_style(style_seed))


def truth(view, style):
    """The Truth of a View in a Style."""
    shares = np.bincount(CLASS_OF[view.material].ravel(), minlength=len(CLASSES)) / view.material.size
    things = [thing for thing in view.things if any(shares[CLASSES.index(name)] > THING_SHOWS for name in CLASSES_OF_THING[thing])]
    # summer is what nothing is repainted for: it shows where spring and autumn would
    repainted = SEASONS[style.season] or SEASONS["spring"] | SEASONS["autumn"]
    shows = (view.is_made_of(*repainted) * np.exp(-view.depth / style.light.visibility)).mean() > SEASON_SHOWS
    return Truth(view.scene, style.light_name, style.season if shows else None, tuple(things))


def sentences(truth, rng):
    """Three captions, each of which names all of a Truth but for the last, a list of words without things; rng chooses among words."""

    def one(words):
        return words[rng.integers(len(words))]

    scene, when = SCENE_WORDS[truth.scene], LIGHT_WORDS[truth.light][2]
    looks, seasons = [LIGHT_WORDS[truth.light][3]], ("",)
    if truth.season:
        seasons, look = SEASON_WORDS[truth.season]
        seasons = [f" {season}" for season in seasons]
        looks.append(look)
    *others, last = truth.things or ("",)
    listed = f"{', '.join(others)} and {last}" if others else last
    return (
        sentence(f"{one(scene)} {one(when)}{one(seasons)}{f', with {listed}' if listed else ''}. {sentence(' and '.join(looks))}"),
        sentence(f"{one(when)}{one(seasons)}: {one(scene)}{f' with {listed}' if listed else ''}, {', '.join(looks)}"),
        ", ".join(filter(None, (truth.scene, truth.time, truth.weather if truth.weather != "fair" else None, truth.season))),
    )


def description(truth):
    """What there is, without how it looks: the scene and the things in it."""
    things = f" with {' and '.join(truth.things)}" if truth.things else ""
    return f"{SCENE_WORDS[truth.scene][0]}{things}"


def sentence(text):
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def captions(view, style):
    """The captions of a View in a Style, a tuple of three that follows from the seeds of both."""
    return sentences(truth(view, style), np.random.default_rng((style.seed, view.wave_seed)))
