"""Styles: the light, the weather and the season that a layout is seen in."""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.materials import COLOUR_OF, INDEX

# What a season repaints.
SNOW, SNOW_SHADE = (236, 241, 248), (208, 218, 230)
SEASONS = {
    "summer": {},
    "spring": {
        "grass": (112, 146, 72),
        "hill grass": (120, 150, 78),
        "mountain meadow": (110, 144, 72),
        "plant": (112, 150, 76),
        "broadleaf": (116, 146, 80),
        "hill forest": (92, 132, 66),
        "green field": (112, 150, 76),
        "blossom": (246, 168, 196),
    },
    "autumn": {
        "grass": (168, 140, 62),
        "hill grass": (176, 134, 66),
        "mountain meadow": (170, 122, 58),
        "plant": (166, 104, 52),
        "broadleaf": (188, 112, 50),
        "mountain forest": (150, 88, 44),
        "hill forest": (164, 92, 46),
        "green field": (178, 150, 74),
        "blossom": (196, 70, 48),
    },
    "winter": {
        "grass": SNOW,
        "hill grass": SNOW,
        "mountain meadow": SNOW,
        "mountain rock": (176, 182, 190),
        "earth": SNOW_SHADE,
        "land": SNOW,
        "ripe field": SNOW,
        "green field": SNOW_SHADE,
        "ploughed field": (198, 202, 208),
        "path": SNOW_SHADE,
        "plant": (150, 152, 146),
        "blossom": (190, 196, 200),
        "broadleaf": (156, 150, 146),
        "conifer": (92, 112, 112),
        "mountain forest": (112, 128, 134),
        "hill forest": (124, 136, 138),
        "roof": SNOW,
        "sand": (222, 220, 216),
        "rock": (142, 144, 148),
        "mossy rock": (166, 170, 174),
    },
    "drought": {
        "grass": (190, 168, 96),
        "hill grass": (194, 162, 94),
        "mountain meadow": (178, 146, 90),
        "plant": (140, 132, 66),
        "mountain rock": (168, 120, 84),
        "mountain cliff": (138, 92, 66),
        "mountain peak": (196, 160, 122),
        "green field": (186, 166, 90),
        "rock": (160, 114, 84),
        "mossy rock": (148, 116, 78),
        "earth": (176, 112, 70),
    },
}


@dataclass(frozen=True)
class Light:
    """One row of the table of lights. Colours are sRGB 0..255."""

    zenith: tuple  # sky overhead
    horizon: tuple  # sky at the horizon, and the haze
    sun: tuple  # colour of the direct light
    ambient: tuple  # colour of the light from all round
    power: float  # strength of the direct light
    elevation: float  # sine of the sun's height
    ahead: bool  # the sun (or moon) stands before the viewer, with a glow
    visibility: float  # metres over which haze takes 63 % of a colour
    clouds: float  # share of the sky they cover
    saturation: float


LIGHTS = {
    "dawn": Light((104, 122, 178), (252, 196, 184), (255, 190, 165), (150, 140, 178), 1.0, 0.25, True, 9e3, 0.40, 0.95),
    "morning": Light((76, 138, 214), (214, 228, 238), (255, 236, 206), (140, 156, 180), 1.3, 0.5, False, 16e3, 0.35, 1.0),
    "noon": Light((28, 92, 192), (160, 202, 238), (255, 250, 240), (130, 156, 190), 1.3, 0.85, False, 26e3, 0.30, 0.95),
    "golden hour": Light((120, 142, 172), (255, 212, 132), (255, 184, 92), (170, 138, 112), 1.6, 0.3, True, 11e3, 0.35, 1.1),
    "sunset": Light((84, 70, 122), (250, 144, 84), (255, 132, 70), (134, 92, 104), 1.2, 0.15, True, 12e3, 0.50, 1.05),
    "dusk": Light((34, 42, 96), (166, 126, 158), (160, 118, 160), (82, 80, 132), 0.5, 0.2, True, 9e3, 0.40, 0.9),
    "night": Light((6, 10, 28), (28, 40, 78), (120, 146, 196), (44, 56, 96), 0.7, 0.6, True, 14e3, 0.25, 0.9),
    "overcast": Light((158, 164, 172), (206, 209, 212), (200, 204, 210), (172, 176, 182), 0.25, 0.8, False, 7e3, 0.95, 0.6),
    "mist": Light((196, 206, 212), (224, 230, 230), (220, 226, 226), (176, 186, 190), 0.3, 0.7, False, 2e3, 0.70, 0.65),
    "storm": Light((50, 60, 74), (138, 152, 154), (190, 190, 176), (112, 122, 128), 0.7, 0.6, False, 6e3, 0.92, 0.75),
    "haze": Light((182, 164, 134), (236, 208, 160), (255, 214, 150), (178, 154, 122), 0.9, 0.6, False, 5e3, 0.30, 0.8),
    "aurora": Light((8, 38, 44), (62, 138, 112), (120, 200, 160), (38, 84, 78), 0.5, 0.6, False, 14e3, 0.20, 1.0),
}


@dataclass(frozen=True)
class Style:
    """A light and a season with the small variations of one day."""

    light: Light
    palette: np.ndarray  # float32 [3, materials], linear light
    sun: np.ndarray  # float32 [3], unit vector towards the sun in world coordinates
    sun_column: float  # where the glow stands, as a share of the width
    exposure: float
    cast: np.ndarray  # float32 [3], a gain for each channel
    seed: int  # of clouds and grain
    light_name: str  # a key of LIGHTS
    season: str  # a key of SEASONS


def make_style(seed) -> Style:
    """The style of a seed (an int or a sequence of ints, none negative)."""
    rng = np.random.default_rng(seed)
    light_name, light = list(LIGHTS.items())[rng.integers(len(LIGHTS))]
    season = str(rng.choice(list(SEASONS), p=[0.34, 0.16, 0.2, 0.17, 0.13]))
    colours = COLOUR_OF.copy()
    for name, colour in SEASONS[season].items():
        colours[INDEX[name]] = colour
    colours *= rng.normal(1, 0.05, (len(colours), 1)) * rng.normal(1, 0.025, colours.shape)
    if rng.random() < 0.5:  # boats, jackets and balloons are of any colour
        for name in ("boat", "jacket", "balloon", "roof"):
            colours[INDEX[name]] = colours[INDEX[name]][rng.permutation(3)]
    side = rng.choice([-1, 1]) * rng.uniform(0.35, 1)
    depth = rng.uniform(0.3, 0.8) if light.ahead else -rng.uniform(0.1, 0.5)
    sun = np.array([side, 0, depth], np.float32)
    sun *= np.sqrt(1 - light.elevation**2) / np.linalg.norm(sun)
    sun[1] = light.elevation
    return Style(
        light=light,
        palette=np.square(np.clip(colours, 0, 255) / 255).T.copy(),
        sun=sun,
        sun_column=0.5 + 0.42 * side,
        exposure=rng.uniform(0.88, 1.12),
        cast=rng.normal(1, 0.025, 3).astype(np.float32),
        seed=int(rng.integers(2**31)),
        light_name=light_name,
        season=season,
    )
