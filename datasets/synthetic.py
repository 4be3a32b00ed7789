"""The built-in data set: landscapes drawn by program, with exact masks, references and captions.

    from datasets.synthetic import draw, write_dataset
    image, mask, caption = draw(layout_seed=3, style_seed=8)
    write_dataset("data/synthetic", train=1000, test=100, seed=0)

A picture is a *layout* seen in a *style*. The layout is geometry: a terrain in metres seen by a pinhole camera, a
material at every pixel, and things standing in it; it fixes the mask. The style is light, weather, season and palette; it
fixes the colours. The same layout in two styles has the same mask, and the same style gives two layouts the same tone:
exactly what a generator guided by a mask and a reference photo has to learn.

World coordinates: X to the right, Y up, Z away from the viewer, in metres; water lies at Y = 0.
"""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.landscape import CLASSES
from utils.errors import DiskError, UserError
from utils.image import write_jpeg, write_png

# Every material: its class in the mask, its colour by neutral light (sRGB), and how rough its texture looks (0..1).
MATERIALS = {
    "sky": ("sky", (128, 170, 220), 0.0),
    "mountain rock": ("mountain", (122, 112, 104), 0.5),
    "mountain cliff": ("mountain", (98, 90, 86), 0.5),
    "mountain forest": ("mountain", (56, 80, 50), 1.0),
    "mountain meadow": ("mountain", (108, 120, 68), 0.5),
    "mountain peak": ("mountain", (240, 243, 248), 0.12),
    "hill grass": ("hill", (112, 138, 62), 0.3),
    "hill forest": ("hill", (58, 88, 46), 0.6),
    "water": ("water", (36, 84, 92), 0.0),
    "sea": ("sea", (22, 78, 110), 0.0),
    "river": ("river", (50, 92, 88), 0.0),
    "lake": ("lake", (26, 92, 112), 0.0),
    "surf": ("sea", (232, 240, 242), 0.15),
    "rapids": ("river", (222, 232, 234), 0.2),
    "waterfall": ("waterfall", (226, 236, 242), 0.1),
    "rock": ("rock", (112, 104, 98), 0.6),
    "mossy rock": ("rock", (96, 100, 74), 0.6),
    "earth": ("earth", (136, 98, 66), 0.4),
    "land": ("land", (158, 134, 92), 0.35),
    "sand": ("sand", (220, 194, 146), 0.12),
    "wet sand": ("sand", (158, 130, 96), 0.1),
    "grass": ("grass", (98, 128, 58), 0.4),
    "plant": ("plant", (70, 124, 44), 0.6),
    "blossom": ("plant", (214, 150, 170), 0.5),
    "ripe field": ("field", (198, 168, 98), 0.25),
    "green field": ("field", (120, 144, 74), 0.25),
    "ploughed field": ("field", (128, 92, 64), 0.3),
    "conifer": ("tree", (38, 70, 44), 0.5),
    "broadleaf": ("tree", (66, 106, 40), 0.5),
    "trunk": ("tree", (80, 62, 48), 0.3),
    "path": ("path", (188, 160, 122), 0.25),
    "road": ("road", (96, 96, 100), 0.12),
    "road line": ("road", (232, 226, 200), 0.05),
    "building": ("building", (188, 180, 170), 0.1),
    "brick building": ("building", (158, 96, 78), 0.12),
    "building window": ("building", (62, 76, 92), 0.0),
    "house": ("house", (232, 222, 202), 0.08),
    "timber house": ("house", (136, 92, 62), 0.15),
    "roof": ("house", (152, 66, 48), 0.2),
    "house window": ("house", (60, 66, 76), 0.0),
    "wall": ("wall", (160, 150, 136), 0.4),
    "bridge": ("bridge", (146, 134, 120), 0.25),
    "pier": ("pier", (132, 106, 82), 0.25),
    "railing": ("railing", (206, 208, 212), 0.05),
    "fence": ("fence", (124, 96, 70), 0.2),
    "boat": ("boat", (182, 60, 46), 0.08),
    "boat trim": ("boat", (240, 236, 224), 0.05),
    "ship": ("ship", (54, 64, 84), 0.08),
    "ship deck": ("ship", (236, 236, 232), 0.05),
    "funnel": ("ship", (196, 70, 44), 0.05),
    "skin": ("person", (214, 164, 132), 0.0),
    "jacket": ("person", (206, 58, 48), 0.1),
    "trousers": ("person", (48, 56, 82), 0.1),
    "balloon": ("other", (224, 74, 56), 0.05),
    "balloon stripe": ("other", (244, 206, 90), 0.05),
    "signpost": ("other", (120, 90, 62), 0.1),
}
INDEX = {name: number for number, name in enumerate(MATERIALS)}
CLASS_OF = np.array([CLASSES.index(name) for name, _, _ in MATERIALS.values()], np.uint8)
COLOUR_OF = np.array([colour for _, colour, _ in MATERIALS.values()], np.float32)
ROUGHNESS_OF = np.array([roughness for _, _, roughness in MATERIALS.values()], np.float32)
WATERS = ("water", "sea", "river", "lake")
WINDOWS = ("building window", "house window")

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
SEASON_WORDS = {
    "summer": "summer greens",
    "spring": "fresh spring colours",
    "autumn": "autumn colours",
    "winter": "snow on the ground",
    "drought": "dry yellow ground",
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
    words: str


LIGHTS = {
    "dawn": Light(
        (104, 122, 178), (252, 196, 184), (255, 190, 165), (150, 140, 178), 1.0, 0.25, True, 9e3, 0.40, 0.95, "at dawn, soft pink light"
    ),
    "morning": Light(
        (76, 138, 214),
        (214, 228, 238),
        (255, 236, 206),
        (140, 156, 180),
        1.3,
        0.5,
        False,
        16e3,
        0.35,
        1.0,
        "in the morning, clear fresh light",
    ),
    "noon": Light(
        (28, 92, 192),
        (160, 202, 238),
        (255, 250, 240),
        (130, 156, 190),
        1.3,
        0.85,
        False,
        26e3,
        0.30,
        0.95,
        "at noon, bright light and a deep blue sky",
    ),
    "golden hour": Light(
        (120, 142, 172), (255, 212, 132), (255, 184, 92), (170, 138, 112), 1.6, 0.3, True, 11e3, 0.35, 1.1, "at golden hour, warm light"
    ),
    "sunset": Light(
        (84, 70, 122), (250, 144, 84), (255, 132, 70), (134, 92, 104), 1.2, 0.15, True, 12e3, 0.50, 1.05, "at sunset, red and orange sky"
    ),
    "dusk": Light(
        (34, 42, 96), (166, 126, 158), (160, 118, 160), (82, 80, 132), 0.5, 0.2, True, 9e3, 0.40, 0.9, "at dusk, violet twilight"
    ),
    "night": Light((6, 10, 28), (28, 40, 78), (120, 146, 196), (44, 56, 96), 0.7, 0.6, True, 14e3, 0.25, 0.9, "at night, blue moonlight"),
    "overcast": Light(
        (158, 164, 172),
        (206, 209, 212),
        (200, 204, 210),
        (172, 176, 182),
        0.25,
        0.8,
        False,
        7e3,
        0.95,
        0.6,
        "under an overcast sky, flat grey light",
    ),
    "mist": Light(
        (196, 206, 212), (224, 230, 230), (220, 226, 226), (176, 186, 190), 0.3, 0.7, False, 2e3, 0.70, 0.65, "in mist, pale and quiet"
    ),
    "storm": Light(
        (50, 60, 74), (138, 152, 154), (190, 190, 176), (112, 122, 128), 0.7, 0.6, False, 6e3, 0.92, 0.75, "before a storm, dark clouds"
    ),
    "haze": Light(
        (182, 164, 134), (236, 208, 160), (255, 214, 150), (178, 154, 122), 0.9, 0.6, False, 5e3, 0.30, 0.8, "in dusty haze, sepia light"
    ),
    "aurora": Light(
        (8, 38, 44), (62, 138, 112), (120, 200, 160), (38, 84, 78), 0.5, 0.6, False, 14e3, 0.20, 1.0, "by northern lights, green glow"
    ),
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
    words: str


def make_style(seed) -> Style:
    """The style of a seed (an int or a sequence of ints, none negative)."""
    rng = np.random.default_rng(seed)
    light = list(LIGHTS.values())[rng.integers(len(LIGHTS))]
    season = rng.choice(list(SEASONS), p=[0.34, 0.16, 0.2, 0.17, 0.13])
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
        words=f"{light.words}, {SEASON_WORDS[season]}",
    )


# ---------------------------------------------------------------------------------------------------------- noise

CELLS, BAND = 16, 3  # cells a side of a noise tile in its first octave; octaves summed in a tile


@cache
def noise_tile(samples, octaves, gain, ridged) -> np.ndarray:
    """Seamless sum of a few octaves of smooth value noise, float32 [16 * samples, 16 * samples]."""
    side = CELLS * samples
    tile, pad = np.zeros((side, side), np.float32), 4
    for octave in range(octaves):
        cells = np.random.default_rng([samples, octave]).standard_normal((CELLS << octave,) * 2).astype(np.float32)
        scale = samples >> octave
        smooth = cv2.resize(np.pad(cells, pad, mode="wrap"), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        smooth = smooth[pad * scale : -pad * scale, pad * scale : -pad * scale] / smooth.std()
        tile += gain**octave * (1 - np.minimum(np.abs(smooth), 1) if ridged else smooth)
    return tile


def fractal(rng, x, y, wavelength, octaves, gain=0.5, ridged=False, pixel=None):
    """Fractal noise at the points (x, y), float32 [H, W], roughly -1..1 (ridged: 0..1 with sharp crests).

    `wavelength` is that of the first octave, in units of x and y. `pixel` [H, W] is the size of a pixel in these units:
    what is too fine for it fades out instead of aliasing.
    """
    points = cv2.merge([np.float32(x), np.float32(y)])
    total = np.zeros(points.shape[:2], np.float32)
    for start in range(0, octaves, BAND):
        count = min(BAND, octaves - start)
        # remap rounds to 1/32 of a sample: wide octaves need a fine tile, or slopes would show stairs
        tile = noise_tile(32 if start == 0 else 16, count, gain, ridged)
        # each band is turned and moved, so that the lattice of the tile does not show
        angle, scale = 0.5 + 0.9 * start, 2.0**start / wavelength / CELLS
        c, s, (u, v) = scale * np.cos(angle), scale * np.sin(angle), rng.random(2)
        place = cv2.transform(points, np.array([[c, -s, u], [s, c, v]]))
        place -= np.floor(place)
        place *= len(tile)
        band = cv2.remap(tile, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        if pixel is not None:
            mean = 0.5 * sum(gain**octave for octave in range(count)) if ridged else 0
            band = (band - mean) * np.clip(wavelength / 2 ** (start + 2) / pixel - 1, 0, 1) + mean
        total += gain**start * band
    weights = gain ** np.arange(octaves)
    return total / np.float32(weights.sum() if ridged else 1.6 * np.sqrt(np.square(weights).sum()))


def smoothstep(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


# ---------------------------------------------------------------------------------------------------------- canvas

NOTHING = 255


class Stamp:
    """A small upright picture of a thing: a material and a shade at each pixel. Points are (x, y) in 0..1 from the top left."""

    def __init__(self, height, aspect):
        self.h, self.w = max(round(height), 2), max(round(height * aspect), 1)
        self.paint = np.full((self.h, self.w), NOTHING, np.uint8)
        self.shade = np.ones((self.h, self.w), np.float32)

    def polygon(self, material, points, shade=1.0):
        corners = np.round(np.asarray(points) * (self.w - 1, self.h - 1)).astype(np.int32)
        cv2.fillPoly(self.paint, [corners], INDEX[material])
        cv2.fillPoly(self.shade, [corners], shade)

    def box(self, material, left, top, right, bottom, shade=1.0):
        self.polygon(material, [(left, top), (right, top), (right, bottom), (left, bottom)], shade)

    def disc(self, material, x, y, radius, shade=1.0, flat=1.0):
        """An ellipse; the radius is a share of the height, `flat` the ratio of its height to its width."""
        centre = (round(x * (self.w - 1)), round(y * (self.h - 1)))
        axes = (max(round(radius * self.h), 0), max(round(radius * flat * self.h), 0))
        cv2.ellipse(self.paint, centre, axes, 0, 0, 360, INDEX[material], -1)
        cv2.ellipse(self.shade, centre, axes, 0, 0, 360, shade, -1)

    def line(self, material, start, end, thickness, shade=1.0):
        a, b = (tuple(round(v) for v in np.multiply(p, (self.w - 1, self.h - 1))) for p in (start, end))
        width = max(round(thickness * self.h), 1)
        cv2.line(self.paint, a, b, INDEX[material], width)
        cv2.line(self.shade, a, b, shade, width)


class View:
    """A layout: a terrain seen by a camera, what each pixel is made of, and what the light needs to know of it.

    A scene first gives the height of the ground over `grid_x`, `grid_z` (float32 [slices, W]: one column for each picture
    column, one row for each distance) to `set_ground`; from then on every field is float32 [H, W] over the picture's pixels.
    """

    def __init__(self, size, horizon, eye):
        """`size` = (width, height) in pixels; `horizon` = its row as a share of the height; `eye` = height of the camera, m."""
        self.W, self.H = size
        self.eye = eye
        self.focal = 0.9 * self.W
        self.horizon = horizon * self.H
        below = max(self.H - self.horizon, 8)
        # flat ground: one slice a row down to a few pixels under the horizon, then a fixed ratio of distances
        near = self.focal * eye / np.concatenate([np.arange(4 * below, below, -8), np.arange(below, 6, -1)])
        far = np.geomspace(near[-1], max(20e3, near[-1] * 4), 230)[1:]
        self.distances = np.concatenate([near, far]).astype(np.float32)
        offset = (np.arange(self.W, dtype=np.float32) - self.W / 2) / self.focal
        self.grid_z = np.repeat(self.distances[:, None], self.W, axis=1)
        self.grid_x = self.grid_z * offset
        self.place = ""
        self.things = []

    def set_ground(self, height, wet=False):
        """Project the ground: find for each pixel the nearest slice that rises to it.

        Where it is `wet`, all that lies below Y = 0 is seen as a flat surface there, and `y` tells its bed.
        """
        K, (H, W) = len(self.distances), (self.H, self.W)
        bed = height.astype(np.float32)
        self.ground_grid = height = np.maximum(bed, 0) if wet else bed
        rows = self.horizon - self.focal * (height - self.eye) / self.grid_z  # [K, W]
        top = np.minimum.accumulate(rows, axis=0)  # the highest row reached so far
        first = np.clip(np.ceil(top), 0, H).astype(np.int64)
        counts = np.bincount((first * W + np.arange(W)).ravel(), minlength=(H + 1) * W).reshape(H + 1, W)
        hit = K - np.cumsum(counts, axis=0)[:H]  # [H, W]: slices that stay below the pixel = index of the first that does not
        self.sky = hit == K
        hit = np.minimum(hit, K - 1)
        y, x = np.mgrid[:H, :W].astype(np.float32)
        here = np.take_along_axis(rows, hit, axis=0)
        before = np.take_along_axis(rows, np.maximum(hit - 1, 0), axis=0)
        back = np.clip((y - here) / np.maximum(before - here, 1e-3), 0, 1)  # the surface lies between two slices
        index = np.maximum(hit - back, 0).astype(np.float32)

        def seen(field):
            return cv2.remap(field, x, index, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        self.x, self.y, self.z = seen(self.grid_x), seen(height), seen(self.grid_z)
        if wet:
            depth = seen(bed - height)
            self.y = np.where((depth < 0) & (self.y < 0.03), depth, self.y)
        slope_x = np.gradient(height, axis=1) / (self.grid_z / self.focal)
        slope_z = np.gradient(height, axis=0) / np.gradient(self.distances)[:, None]
        self.slope_x, self.slope_z = (seen(cv2.GaussianBlur(slope, (0, 0), 1.2)) for slope in (slope_x, slope_z))
        self.pixel = self.z / self.focal  # metres a pixel
        self.bare = ~self.sky  # ground that nothing stands before
        self.depth = np.where(self.sky, np.float32(1e6), self.z)
        self.material = np.where(self.sky, INDEX["sky"], INDEX["earth"]).astype(np.uint8)
        self.shade = np.ones((H, W), np.float32)
        self.steep = np.hypot(self.slope_x, self.slope_z)

    def paint(self, material, where):
        """Give the ground a material where the boolean field says so; the sky and things that stand there stay."""
        self.material[where & self.bare] = INDEX[material]

    def is_made_of(self, *materials):
        chosen = np.zeros(len(MATERIALS), bool)
        chosen[[INDEX[name] for name in materials]] = True
        return chosen[self.material]

    def height_at(self, x, z):
        """Height of the ground at a point, in metres."""
        k = np.clip(np.searchsorted(self.distances, z), 0, len(self.distances) - 1)
        column = np.clip(self.W / 2 + self.focal * x / z, 0, self.W - 1)
        return float(self.ground_grid[int(k), int(column)])

    def project(self, point):
        """A point (X, Y, Z) in metres -> (column, row) in pixels."""
        x, y, z = point
        return self.W / 2 + self.focal * x / z, self.horizon - self.focal * (y - self.eye) / z

    def stand(self, make, rng, x, z, metres, y=None, shadow=True):
        """Stand a stamp (`make(rng, pixels high)`) on the ground, or at height y, where nothing nearer hides it."""
        base = self.height_at(x, z) if y is None else y
        column, row = self.project((x, base, z))
        pixels = self.focal * metres / z
        if pixels < 2.5 or pixels > 2 * self.H:
            return
        stamp = make(rng, pixels)
        left, top = round(column - stamp.w / 2), round(row) - stamp.h + 1
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + stamp.w, self.W), min(top + stamp.h, self.H)
        if x0 >= x1 or y0 >= y1:
            return
        here, there = (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        show = (stamp.paint[there] != NOTHING) & (self.depth[here] > z * 0.97)
        if shadow and z < 600:
            foot = np.zeros((self.H, self.W), np.uint8)
            axes = (max(int(stamp.w * 0.55), 1), max(int(stamp.w * 0.12), 1))
            cv2.ellipse(foot, (int(column), int(row)), axes, 0, 0, 360, 1, -1)
            self.shade[(foot > 0) & (self.depth > z * 0.9) & ~self.sky] *= 0.6
        self.material[here][show] = stamp.paint[there][show]
        self.shade[here][show] = stamp.shade[there][show]
        self.depth[here][show], self.bare[here][show] = z, False
        # upright things are lit as cylinders: the left side faces left
        side = np.linspace(1.6, -1.6, stamp.w, dtype=np.float32)[None, there[1]].repeat(y1 - y0, axis=0)
        self.slope_x[here][show], self.slope_z[here][show] = side[show], 0.8

    def _cover(self, material, draw, z, shade):
        cover = np.zeros((self.H, self.W), np.uint8)
        draw(cover)
        show = (cover > 0) & (self.depth > z * 0.97)
        self.material[show] = INDEX[material]
        self.shade[show], self.depth[show], self.bare[show] = shade, z, False
        self.slope_x[show] = self.slope_z[show] = 0

    def slab(self, material, points, shade=1.0):
        """A flat polygon in space, from its corners (X, Y, Z)."""
        corners = np.clip([self.project(p) for p in points], -4000, 4000).astype(np.int32)
        self._cover(material, lambda cover: cv2.fillPoly(cover, [corners], 1), min(p[2] for p in points), shade)

    def bar(self, material, start, end, metres, shade=1.0):
        """A straight bar in space from point to point, `metres` thick."""
        z = (start[2] + end[2]) / 2
        a, b = (tuple(round(v) for v in np.clip(self.project(p), -4000, 4000)) for p in (start, end))
        width = max(round(self.focal * metres / z), 1)
        self._cover(material, lambda cover: cv2.line(cover, a, b, 1, width), z, shade)

    def spots(self, rng, where, count):
        """`count` random points (X, Z) of the ground where the boolean field [H, W] holds, far ones first."""
        rows, columns = np.nonzero(where & ~self.sky)
        if not len(rows):
            return []
        chosen = rng.integers(len(rows), size=count)
        points = [(float(self.x[r, c]), float(self.z[r, c])) for r, c in zip(rows[chosen], columns[chosen], strict=True)]
        return sorted(points, key=lambda point: -point[1])

    def mention(self, thing):
        if thing not in self.things:
            self.things.append(thing)


# ---------------------------------------------------------------------------------------------------------- stamps


def conifer(rng, pixels):
    """A fir: tiers of branches that widen downwards, with a ragged edge."""
    stamp = Stamp(pixels, rng.uniform(0.34, 0.48))
    rows = np.linspace(0, 1, stamp.h)
    tiers = rng.integers(5, 9)
    half = 0.5 * rows * (0.62 + 0.38 * ((rows * tiers) % 1)) + rng.uniform(-0.05, 0.05, stamp.h)
    half = np.clip(half, 0.5 / stamp.w, 0.5)[:, None]
    off = np.abs(np.linspace(-0.5, 0.5, stamp.w))[None, :]
    stamp.line("trunk", (0.5, 0.8), (0.5, 1), 0.05, 0.8)
    crown = (off <= half) & (rows[:, None] < 0.94)
    stamp.paint[crown] = INDEX["conifer"]
    tone = 0.7 + 0.45 * ((rows * tiers) % 1)[:, None] + rng.normal(0, 0.12, (stamp.h, stamp.w))
    stamp.shade[crown] = tone[crown]
    return stamp


def broadleaf(rng, pixels):
    """A round crown of many clumps of leaves on a forked trunk."""
    stamp = Stamp(pixels, rng.uniform(0.75, 1.05))
    stamp.line("trunk", (0.5, 0.5), (0.5, 1), 0.06)
    for side in (-1, 1):
        stamp.line("trunk", (0.5, 0.75), (0.5 + side * 0.2, 0.45), 0.03)
    for y in np.sort(rng.uniform(0.16, 0.62, 46))[::-1]:  # upper clumps last: they catch the light
        reach = 0.36 * np.sqrt(max(1 - ((y - 0.4) / 0.3) ** 2, 0.05))
        stamp.disc("broadleaf", 0.5 + rng.uniform(-reach, reach), y, rng.uniform(0.05, 0.12), 1.25 - 0.8 * y + rng.normal(0, 0.09))
    grain = rng.normal(0, 0.15, stamp.shade.shape)
    stamp.shade[stamp.paint == INDEX["broadleaf"]] += grain[stamp.paint == INDEX["broadleaf"]]
    return stamp


def shrub(rng, pixels, material="plant"):
    """A bush, or a tuft of flowers when made of "blossom"."""
    stamp = Stamp(pixels, rng.uniform(1.2, 2.2))
    for y in np.sort(rng.uniform(0.35, 0.9, 34)):  # front leaves last: they hide the others
        stamp.disc("plant", rng.uniform(0.08, 0.92), y, rng.uniform(0.07, 0.17), 1.35 - 0.7 * y + rng.normal(0, 0.1))
    stamp.shade += rng.normal(0, 0.12, stamp.shade.shape).astype(np.float32)
    if material != "plant":
        for _ in range(14):
            stamp.disc(material, rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.85), rng.uniform(0.03, 0.09), rng.uniform(0.85, 1.15))
    return stamp


def flowers(rng, pixels):
    return shrub(rng, pixels, "blossom")


def reeds(rng, pixels):
    """Blades fanning out of one foot."""
    stamp = Stamp(pixels, 0.9)
    for _ in range(24):
        foot, tip = rng.uniform(0.35, 0.65), rng.uniform(0.02, 0.98)
        stamp.line("plant", (foot, 1), (tip, rng.uniform(0, 0.5)), 0.02, rng.uniform(0.7, 1.2))
    return stamp


def boulder(rng, pixels):
    """A rock of broken faces, light above and dark below."""
    stamp = Stamp(pixels, rng.uniform(1.2, 2.4))
    angles = np.sort(rng.uniform(np.pi, 2 * np.pi, 9))
    rim = [(0.5 + 0.5 * np.cos(a) * rng.uniform(0.85, 1), 1 + np.sin(a) * rng.uniform(0.75, 1)) for a in angles]
    rim = [(0, 1), *rim, (1, 1)]
    heart = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.7))
    name = rng.choice(["rock", "rock", "mossy rock"])
    for a, b in pairwise([*rim, rim[0]]):
        face = 1.15 - 0.5 * (a[1] + b[1]) / 2 + rng.normal(0, 0.1)
        stamp.polygon(name, [a, b, heart], face)
    return stamp


def house(rng, pixels):
    """A gabled house: front, side in shadow, roof, door and windows."""
    stamp = Stamp(pixels, rng.uniform(1.3, 1.8))
    skin = rng.choice(["house", "house", "timber house"])
    split = rng.uniform(0.38, 0.5)
    stamp.box(skin, split, 0.45, 0.97, 1, 0.8)
    stamp.polygon(skin, [(0.04, 0.45), (split / 2, 0.06), (split, 0.45), (split, 1), (0.04, 1)], 1.05)
    stamp.polygon("roof", [(split / 2, 0), (0.97 - split / 4, 0), (1, 0.5), (split, 0.5)], 0.95)
    stamp.line("roof", (split / 2, 0.02), (0, 0.5), 0.06, 0.8)
    stamp.line("roof", (split / 2, 0.02), (split, 0.5), 0.06, 0.8)
    stamp.box("timber house", split * 0.42, 0.7, split * 0.64, 1, 0.6)
    for x in np.arange(split + 0.08, 0.86, 0.17):
        stamp.box("house window", x, 0.6, x + 0.08, 0.78)
    return stamp


def tower_block(rng, pixels):
    """A building of several floors with rows of windows."""
    stamp = Stamp(pixels, rng.uniform(0.4, 1.1))
    skin = rng.choice(["building", "brick building"])
    stamp.box(skin, 0, 0, 1, 1)
    stamp.box(skin, 0.7, 0.02, 1, 1, 0.75)
    floors, columns = rng.integers(3, 8), rng.integers(3, 6)
    for row in range(floors):
        for column in range(columns):
            x, y = (column + 0.25) / columns, (row + 0.3) / floors
            stamp.box("building window", x, y, x + 0.45 / columns, y + 0.4 / floors, rng.uniform(0.7, 1.2))
    return stamp


def person(rng, pixels):
    """Somebody standing or walking."""
    stamp = Stamp(pixels, 0.42)
    stride = rng.uniform(0.06, 0.25)
    stamp.line("trousers", (0.47, 0.52), (0.5 - stride, 1), 0.1)
    stamp.line("trousers", (0.53, 0.52), (0.5 + stride, 1), 0.1, 0.8)
    stamp.polygon("jacket", [(0.24, 0.18), (0.76, 0.18), (0.7, 0.58), (0.3, 0.58)])
    stamp.line("jacket", (0.26, 0.22), (0.5 - stride - 0.22, rng.uniform(0.3, 0.5)), 0.07, 0.9)
    stamp.line("jacket", (0.74, 0.22), (0.5 + stride + 0.2, rng.uniform(0.3, 0.5)), 0.07, 0.8)
    stamp.disc("skin", 0.5, 0.08, 0.075)
    return stamp


def rowing_boat(rng, pixels):
    stamp = Stamp(pixels, rng.uniform(3, 4))
    stamp.polygon("boat", [(0, 0.15), (1, 0), (0.88, 1), (0.14, 1)], 0.9)
    stamp.polygon("boat trim", [(0, 0.1), (1, 0), (0.97, 0.25), (0.02, 0.35)])
    stamp.box("boat trim", 0.45, 0.1, 0.55, 0.6, 0.6)
    return stamp


def sailing_boat(rng, pixels):
    stamp = Stamp(pixels, 0.8)
    lean = rng.uniform(-0.05, 0.05)
    stamp.line("boat trim", (0.5, 0.9), (0.5 + lean, 0), 0.015, 0.6)
    stamp.polygon("boat trim", [(0.53 + lean, 0.03), (0.54, 0.8), (0.97, 0.8)], 1.05)
    stamp.polygon("boat trim", [(0.47 + lean, 0.1), (0.46, 0.8), (0.14, 0.8)], 0.88)
    stamp.polygon("boat", [(0.04, 0.85), (1, 0.85), (0.86, 1), (0.16, 1)])
    return stamp


def steamer(rng, pixels):
    """A ship with a dark hull, white decks and funnels."""
    stamp = Stamp(pixels, rng.uniform(3, 4.5))
    stamp.polygon("ship", [(0, 0.58), (1, 0.52), (0.95, 1), (0.05, 1)])
    for deck in range(3):
        stamp.box("ship deck", 0.18 + 0.07 * deck, 0.46 - 0.12 * deck, 0.82 - 0.05 * deck, 0.6 - 0.12 * deck, 1 - 0.06 * deck)
    for x in (0.42, 0.56):
        stamp.polygon("funnel", [(x, 0.02), (x + 0.05, 0.02), (x + 0.06, 0.24), (x - 0.01, 0.24)], 0.95)
    stamp.line("ship", (0.85, 0.55), (0.85, 0.1), 0.03)
    return stamp


def balloon(rng, pixels):
    """A hot-air balloon with its basket."""
    stamp = Stamp(pixels, 0.75)
    stamp.polygon("balloon", [(0.06, 0.45), (0.94, 0.45), (0.58, 0.82), (0.42, 0.82)], 0.85)
    stamp.disc("balloon", 0.5, 0.36, 0.36)
    stamp.disc("balloon stripe", 0.5, 0.36, 0.16, 1.05, flat=2.2)
    stamp.box("signpost", 0.42, 0.9, 0.58, 1)
    for x in (0.43, 0.57):
        stamp.line("signpost", (x, 0.8), (x, 0.92), 0.01)
    return stamp


def sign(rng, pixels):
    stamp = Stamp(pixels, 0.6)
    stamp.line("signpost", (0.5, 0), (0.5, 1), 0.08)
    stamp.polygon("signpost", [(0.1, 0.08), (0.8, 0.08), (1, 0.2), (0.8, 0.32), (0.1, 0.32)], 1.3)
    return stamp


# ---------------------------------------------------------------------------------------------------------- ground


def mountains(rng, view, start, height, wavelength, valley=0.0):
    """Height field of ridges that begin `start` metres away; `valley` in 0..1 opens a way through the middle."""
    x, z = view.grid_x, view.grid_z
    bend = fractal(rng, x, z, wavelength * 2, 2)  # bent coordinates: crests that wander
    spacing = np.repeat(np.gradient(view.distances)[:, None], view.W, axis=1)
    crest = fractal(rng, x + 0.25 * wavelength * bend, z, wavelength, 7, gain=0.48, ridged=True, pixel=0.3 * spacing)
    broad = fractal(rng, x, z, wavelength * 2.5, 2)
    rise = smoothstep(start, start * rng.uniform(2.0, 3.2), z + 0.35 * start * broad)
    sides = 1 - valley * np.exp(-np.square((x / z - rng.uniform(-0.15, 0.15)) / 0.22))
    return height * rise * sides * np.clip(crest * 1.5 - 0.42 + 0.3 * broad, 0.02, None)


def rolling(rng, view, height, wavelength, start=0.0):
    """Height field of soft hills."""
    swell = fractal(rng, view.grid_x, view.grid_z, wavelength, 4, gain=0.35)
    return height * (0.5 + 0.7 * swell) * smoothstep(start, start * 2 + wavelength, view.grid_z)


def dress_mountains(rng, view, where, tallest):
    """Rock, cliffs, forest, meadows and snow over the part of the ground that belongs to mountains."""
    patch = fractal(rng, view.x, view.y * 1.5 + view.z * 0.4, tallest * 0.9, 6, pixel=view.pixel)
    trees, snow = rng.choice([-1.0, 0.15, 0.3, 0.5]), rng.choice([0.4, 0.5, 0.65, 3.0])
    level = view.y / tallest
    view.paint("mountain rock", where)
    view.paint("mountain cliff", where & (view.steep + 0.5 * patch > 1.15))
    view.paint("mountain meadow", where & (view.steep + 0.4 * patch < 0.62) & (level + 0.2 * patch < trees + 0.22))
    view.paint("mountain forest", where & (view.steep - 0.3 * patch < 1.2) & (level + 0.25 * patch < trees))
    scree = fractal(rng, view.x, view.y + view.z, tallest * 0.05, 4, pixel=view.pixel)
    view.paint("mountain rock", where & view.is_made_of("mountain meadow") & (scree + 0.4 * patch > 0.75))
    # snow keeps off the steepest faces and reaches lower in gullies
    view.paint("mountain peak", where & (level + 0.22 * patch - 0.16 * np.minimum(view.steep, 2) + 0.1 > snow))
    rough = fractal(rng, view.x, view.y + 0.5 * view.z, tallest * 0.25, 6, gain=0.65, pixel=view.pixel)
    rocky = where & view.is_made_of("mountain rock", "mountain cliff", "mountain peak")
    view.slope_x += np.where(where, np.where(rocky, 0.8, 0.45) * rough, 0).astype(np.float32)
    strata = np.sin(view.y / tallest * rng.uniform(40, 90) + 3 * patch)
    view.shade *= np.where(rocky, 1 + 0.07 * strata, 1).astype(np.float32)


def carve(rng, view, height, width, depth, reach=4e3, slant=0.0):
    """Cut a winding bed below the water line into a height field; returns (height, distance to its middle in widths)."""
    middle = winding(rng, view.grid_z, slant, reach / 5)
    off = np.abs(view.grid_x - middle) / (width * (1 + 0.3 * fractal(rng, view.grid_z, np.zeros_like(view.grid_z), reach / 10, 2)))
    bed = -depth * (1 - smoothstep(0.6, 1.6, off))
    return np.where(view.grid_z < reach, np.minimum(height, height * smoothstep(0.8, 2.4, off) + bed), height)


def winding(rng, z, slant, wavelength):
    """The middle of a winding way: X as a function of the distance Z."""
    phase, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1)
    bends = np.sin(2 * np.pi * z / wavelength + phase) - np.sin(phase)
    return slant * z + swing * 0.16 * wavelength * bends * smoothstep(0, wavelength, z)


def track(rng, view, material, width, where, slant=0.0, wavelength=300.0):
    """A road, with lines, or a path on the ground; returns the X of its middle, float32 [H, W]."""
    middle = winding(rng, view.z, slant, wavelength)
    ragged = 0.0 if material == "road" else 0.25 * fractal(rng, view.x, view.z, 4.0, 3, pixel=view.pixel)
    off = np.abs(view.x - middle) / (width / 2) + ragged
    view.paint(material, where & (off < 1))
    if material == "road":
        dash = ((np.abs(off) < 0.04) & (view.z % 12 < 6)) | ((off > 0.86) & (off < 0.92))
        view.paint("road line", where & dash & (view.z < 120))
    return middle


def furrows(rng, view, where, material, angle, spacing):
    """A field with rows of crop that run to a vanishing point."""
    view.paint(material, where)
    across = view.x * np.cos(angle) + view.z * np.sin(angle)
    fade = np.clip(spacing / view.pixel / 4 - 0.5, 0, 1)
    stripes = 1 + 0.18 * fade * np.sin(2 * np.pi * across / spacing)
    view.shade *= np.where(where, stripes, 1).astype(np.float32)


def patchwork(rng, view, where, block):
    """Fields of several crops, divided by crooked lines."""
    bend = fractal(rng, view.x, view.z, block * 3, 2) * block * 0.5
    angle = rng.uniform(-0.5, 0.5)
    column = np.floor((view.x * np.cos(angle) + view.z * np.sin(angle) + bend) / block)
    row = np.floor((view.z * np.cos(angle) - view.x * np.sin(angle) + bend) / block / 1.6)
    kind = (column * 7 + row * 13 + rng.integers(100)) % 5
    for number, material in enumerate(("ripe field", "green field", "ploughed field", "green field", "ripe field")):
        furrows(rng, view, where & (kind == number), material, angle + 0.35 * (number - 2), rng.uniform(0.8, 2.5))


def water_surface(rng, view, material):
    """Everything below the water line becomes water, flat; the sea breaks in surf on its shores."""
    wet = (view.y <= 0) & ~view.sky
    if material == "sea":
        foam = fractal(rng, view.x, view.z * 2, 14, 5, pixel=view.pixel)
        view.paint("wet sand", view.is_made_of("sand") & (view.y < 0.35 + 0.25 * foam))
        view.paint("sea", wet)
        lines = np.sin(view.y * 7 + 2.5 * foam)
        view.paint("surf", wet & (view.y > -1.6) & (lines + 0.6 * foam > 0.72))
    else:
        view.paint(material, wet)
    flat = view.is_made_of(*WATERS, "surf")
    view.slope_x[flat] = view.slope_z[flat] = 0
    view.shade[flat] = 1


# ---------------------------------------------------------------------------------------------------------- things


def grow(rng, view, where, count, kinds, metres):
    """Stand trees, bushes or rocks at random over a part of the ground."""
    for x, z in view.spots(rng, where, count):
        make = kinds[rng.integers(len(kinds))]
        view.stand(make, rng, x, z, rng.uniform(*metres))


def wood(rng, view, where, count, metres=(9, 20)):
    """A stand of trees, of one kind or mixed, in clumps."""
    clumps = fractal(rng, view.x, view.z, 80.0, 3) > rng.uniform(-0.3, 0.5)
    kinds = [[conifer], [broadleaf], [conifer, broadleaf]][rng.integers(3)]
    grow(rng, view, where & clumps, count, kinds, metres)
    view.mention("firs" if kinds == [conifer] else "trees")


def people(rng, view, where, count):
    for x, z in view.spots(rng, where & (view.z < 130) & (view.z > 12), count):
        view.stand(person, rng, x, z, rng.uniform(1.6, 1.9))
    view.mention("a walker" if count == 1 else "people")


def fence(rng, view, x0, z0, x1, z1, material="fence"):
    """Posts and rails from (x0, z0) to (x1, z1) on the ground; a railing is closer and higher."""
    high, step = (1.1, 2.0) if material == "railing" else (1.3, 3.0)
    count = int(max(np.hypot(x1 - x0, z1 - z0) / step, 2))
    xs, zs = np.linspace(x0, x1, count + 1), np.geomspace(z0, z1, count + 1)
    points = [(x, max(view.height_at(x, z), 0), z) for x, z in zip(xs, zs, strict=True)]
    for a, b in pairwise(reversed(points)):
        for level in (0.45, 0.95):
            view.bar(material, (a[0], a[1] + level * high, a[2]), (b[0], b[1] + level * high, b[2]), 0.1)
        view.bar(material, b, (b[0], b[1] + high, b[2]), 0.16, 0.85)
    view.mention(f"a {material}")


def stone_wall(rng, view, x0, z0, x1, z1):
    """A wall of stones along the ground."""
    high, count = rng.uniform(1.2, 2.2), 24
    xs, zs = np.linspace(x0, x1, count + 1), np.geomspace(z0, z1, count + 1)
    for i in reversed(range(count)):
        a, b = ((xs[j], view.height_at(xs[j], zs[j]), zs[j]) for j in (i, i + 1))
        for level, shade in ((0, 0.8), (0.5, 1.0)):
            low, top = high * level, high * (level + 0.5)
            view.slab(
                "wall",
                [(a[0], a[1] + low, a[2]), (b[0], b[1] + low, b[2]), (b[0], b[1] + top, b[2]), (a[0], a[1] + top, a[2])],
                shade * rng.uniform(0.85, 1.12),
            )
    view.mention("a stone wall")


def pier(rng, view, x, near, far):
    """A wooden pier on posts, running out over the water."""
    half, deck = rng.uniform(1.0, 1.8), rng.uniform(0.7, 1.2)
    slant = rng.uniform(-0.15, 0.15)
    edges = np.geomspace(near, far, 40)
    middle = x + slant * (edges - near)
    for z, m in zip(edges[::-5], middle[::-5], strict=True):
        for side in (-half, half):
            view.bar("pier", (m + side, -0.3, z), (m + side, deck + 0.7, z), 0.25, 0.6)
    for i in reversed(range(len(edges) - 1)):
        a, b, z, w = middle[i], middle[i + 1], edges[i], edges[i + 1]
        tone = rng.uniform(0.8, 1.12)
        view.slab("pier", [(a - half, deck, z), (a + half, deck, z), (b + half, deck, w), (b - half, deck, w)], tone)
        for side in (-half, half):
            view.bar("pier", (a + side, deck - 0.1, z), (b + side, deck - 0.1, w), 0.22, 0.65)
    view.mention("a pier")


def bridge(rng, view, z, left, right):
    """An arched bridge across the picture at distance z, from X = left to X = right."""
    deck = rng.uniform(4, 6) * (1 + z / 400)
    thick, arches = 0.14 * deck + 0.6, max(int((right - left) / (3.2 * deck)), 1)
    view.slab("bridge", [(left, deck, z), (right, deck, z), (right, deck + thick, z), (left, deck + thick, z)])
    for end in np.linspace(left, right, arches + 1):
        view.bar("bridge", (end, -1, z), (end, deck, z), 0.22 * deck + 0.6, 0.8)
    for start in np.linspace(left, right, arches + 1)[:-1]:
        span = (right - left) / arches
        angles = np.linspace(0, np.pi, 14)
        arc = [(start + span * (0.5 - 0.5 * np.cos(a)), deck * (0.25 + 0.72 * np.sin(a)), z) for a in angles]
        view.slab("bridge", [*arc, (start + span, deck, z), (start, deck, z)], 0.9)
    for level in (0.6, 1.1):
        view.bar("bridge", (left, deck + thick + level, z), (right, deck + thick + level, z), 0.15, 1.1)
    view.mention("a bridge")


def afloat(rng, view, make, count, metres, near, far, name):
    """Boats or ships on open water between two distances."""
    spot = view.is_made_of(*WATERS) & (view.z > near) & (view.z < far)
    for x, z in view.spots(rng, spot, count):
        view.stand(make, rng, x, z, rng.uniform(*metres), y=-0.1, shadow=False)
    view.mention(name)


def in_the_air(rng, view):
    """A balloon or two over the land, now and then."""
    for _ in range(rng.integers(1, 3)):
        z = rng.uniform(150, 500)
        row = rng.uniform(0.12, 0.5) * view.horizon
        view.stand(balloon, rng, rng.uniform(-0.4, 0.4) * z, z, 22, y=view.eye + (view.horizon - row) * z / view.focal, shadow=False)
    view.mention("a hot-air balloon")


# ---------------------------------------------------------------------------------------------------------- scenes
# A scene takes (rng, size) and returns a finished View.


def chance(rng, p):
    return rng.random() < p


def mountain_range(rng, size):
    view = View(size, rng.uniform(0.45, 0.78), rng.uniform(15, 120))
    start = rng.uniform(300, 2500)
    tall = start * rng.uniform(0.5, 1.3)
    foothills = mountains(rng, view, 0.12 * start, 0.1 * tall, 0.4 * tall) * rng.choice([0, 0.5, 1])
    view.set_ground(
        mountains(rng, view, start, tall, tall * rng.uniform(2.2, 4), rng.choice([0, 0, 0.7]))
        + foothills
        + rolling(rng, view, rng.uniform(0.1, 0.8) * view.eye, start * 0.6, 20)
    )
    dress_mountains(rng, view, ~view.sky, tall)
    near = view.z < 500
    if chance(rng, 0.3):
        wood(rng, view, near, 60)
    if chance(rng, 0.3):
        grow(rng, view, near & (view.z < 200), 18, [boulder], (1, 8))
        view.mention("boulders")
    if chance(rng, 0.25):
        track(rng, view, "path", 4, near, rng.uniform(-0.2, 0.2))
        view.mention("a path")
    if chance(rng, 0.25):
        people(rng, view, near, int(rng.integers(1, 4)))
    if chance(rng, 0.1):
        in_the_air(rng, view)
    view.place = "a mountain range"
    return view


def mountain_lake(rng, size):
    view = View(size, rng.uniform(0.36, 0.55), rng.uniform(5, 16))
    shore = rng.uniform(350, 1500)
    tall = shore * rng.uniform(0.6, 1.4)
    height = mountains(rng, view, shore, tall, tall * rng.uniform(2.2, 4), rng.choice([0, 0.5, 0.9]))
    height += 24 * smoothstep(shore * 0.7, shore * 1.6, view.grid_z + 0.4 * shore * fractal(rng, view.grid_x, view.grid_z, shore, 4)) - 3
    bank = chance(rng, 0.5)
    if bank:  # a near shore
        edge = rng.uniform(30, 70) + 14 * fractal(rng, view.grid_x, view.grid_z, 60.0, 4) + rng.uniform(-0.5, 0.5) * view.grid_x
        height += 5 * (1 - smoothstep(0, 1, (view.grid_z - edge * 0.6) / 30))
    view.set_ground(height, wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    near = (view.z < 200) & (view.y > 0)
    view.paint(rng.choice(["grass", "earth", "rock", "land"]), near)
    name = rng.choice(["water", "water", "water", "lake"])
    water_surface(rng, view, name)
    if bank:
        grow(rng, view, near, 14, [boulder, reeds, shrub], (0.6, 2))
    shore_line = (view.y > 0) & (view.y < 60) & (view.z > 150) & (view.z < 2500)
    if chance(rng, 0.6):
        wood(rng, view, shore_line, 120, (14, 30))
    if chance(rng, 0.4):
        pier(rng, view, rng.uniform(-5, 5), rng.uniform(14, 22), rng.uniform(45, 90))
    if chance(rng, 0.35):
        make, label = ((rowing_boat, "a rowing boat"), (sailing_boat, "a sailing boat"))[rng.integers(2)]
        afloat(rng, view, make, 1 + rng.integers(2), (1, 1.6) if make is rowing_boat else (8, 12), 40, 220, label)
    if chance(rng, 0.15):
        grow(rng, view, shore_line & (view.z < 700), 3, [house], (8, 12))
        view.mention("houses")
    view.place = "a mountain lake"
    return view


def sea_shore(rng, size):
    view = View(size, rng.uniform(0.3, 0.52), rng.uniform(5, 14))
    slant = rng.uniform(-0.9, 0.9)
    edge = rng.uniform(28, 80) + 10 * fractal(rng, view.grid_x, view.grid_z, 90.0, 4) + slant * view.grid_x
    height = 0.06 * (edge - view.grid_z)
    height = np.clip(height, -12, 3.2) + 0.15 * fractal(rng, view.grid_x, view.grid_z, 8.0, 4)
    tall = rng.uniform(150, 700)
    if chance(rng, 0.6):
        side = rng.choice([-1, 1])
        head = mountains(rng, view, rng.uniform(900, 3000), tall, rng.uniform(900, 2200))
        height += (head + 14 * (head > 2)) * smoothstep(-0.2, 0.4, side * view.grid_x / view.grid_z + rng.uniform(-0.1, 0.3))
    view.set_ground(height, wet=True)
    view.paint("sand", ~view.sky)
    dress_mountains(rng, view, (view.z > 500) & (view.y > 0), tall)
    beach = (view.z < 500) & (view.y > 0.3)
    dry = fractal(rng, view.x, view.z, 25.0, 4)
    if chance(rng, 0.4):
        view.paint(rng.choice(["grass", "land", "earth"]), beach & (view.y + 0.7 * dry > 2.6))
    water_surface(rng, view, "sea")
    shallow = view.is_made_of("sea", "surf", "sand", "wet sand") & (view.z < 160) & (view.y < 1)
    if chance(rng, 0.5):
        grow(rng, view, shallow, 12, [boulder], (0.6, 4))
        view.mention("rocks")
    if chance(rng, 0.35):
        people(rng, view, beach, int(rng.integers(1, 5)))
    if chance(rng, 0.25):
        x = rng.uniform(-12, 12)
        pier(rng, view, x, rng.uniform(16, 24), rng.uniform(70, 160))
    if chance(rng, 0.3):
        afloat(rng, view, sailing_boat, 1 + rng.integers(3), (9, 14), 120, 700, "sailing boats")
    if chance(rng, 0.25):
        afloat(rng, view, steamer, 1, (25, 40), 600, 3000, "a ship")
    if chance(rng, 0.2):
        z = rng.uniform(14, 24)
        fence(rng, view, -0.7 * z, z, 0.7 * z, z * rng.uniform(0.9, 1.4), "railing")
    view.place = "a sandy sea shore"
    return view


def rocky_coast(rng, size):
    view = View(size, rng.uniform(0.25, 0.5), rng.uniform(10, 40))
    tall = rng.uniform(80, 420)
    lateral = view.grid_x / view.grid_z * rng.choice([-1, 1])
    near = fractal(rng, view.grid_x, view.grid_z, 60.0, 7, gain=0.55)
    reef = 7 * near - 3.0 + 6 * smoothstep(0, 0.5, lateral) - 0.015 * view.grid_z
    land = mountains(rng, view, rng.uniform(200, 900), tall, rng.uniform(400, 1200)) * smoothstep(-0.15, 0.35, lateral)
    height = np.where(view.grid_z < 400, reef, -6) + land + 8 * (land > 3)
    view.set_ground(np.maximum(height, -8), wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    crag = (view.z < 350) & (view.y > 0)
    view.paint("rock", crag)
    view.paint("mossy rock", crag & (view.steep < 0.35) & (view.y > 4))
    water_surface(rng, view, "sea")
    crags = fractal(rng, view.x, view.y * 2 + view.z, 5.0, 5, gain=0.65, pixel=view.pixel)
    view.slope_x += np.where(crag, 1.1 * crags, 0).astype(np.float32)
    if chance(rng, 0.3):
        grow(rng, view, crag & (view.y > 3), 12, [shrub, reeds], (0.8, 2.5))
        view.mention("shrubs")
    if chance(rng, 0.2):
        people(rng, view, crag & (view.steep < 0.6), 1)
    if chance(rng, 0.2):
        afloat(rng, view, steamer, 1, (25, 40), 700, 4000, "a ship")
    view.place = "a rocky coast"
    return view


def open_sea(rng, size):
    view = View(size, rng.uniform(0.35, 0.72), rng.uniform(6, 30))
    tall = rng.uniform(150, 900)
    isles = mountains(rng, view, rng.uniform(2500, 6000), tall, rng.uniform(1500, 3500))
    isles = np.where(isles > 0.1 * tall, isles, 0) * smoothstep(0.2, -0.3, np.abs(view.grid_x / view.grid_z - rng.uniform(-0.4, 0.4)) - 0.3)
    view.set_ground(isles - 3, wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    water_surface(rng, view, "sea")
    if chance(rng, 0.45):
        afloat(rng, view, steamer, 1 + rng.integers(2), (25, 45), 350, 2500, "a ship")
    if chance(rng, 0.4):
        afloat(rng, view, sailing_boat, 1 + rng.integers(4), (9, 15), 90, 600, "sailing boats")
    if chance(rng, 0.3):
        z = rng.uniform(12, 20)
        deck = view.eye - rng.uniform(2.5, 4)
        for level in (0, 0.55, 1.1):
            view.bar("railing", (-z, deck + level, z), (z, deck + level, z), 0.09)
        for x in np.arange(-z, z, 2.0):
            view.bar("railing", (x, deck - 12, z), (x, deck + 1.15, z), 0.12)
        view.mention("a railing")
    view.place = "the open sea"
    return view


def river_valley(rng, size):
    view = View(size, rng.uniform(0.32, 0.5), rng.uniform(10, 30))
    start = rng.uniform(600, 1500)
    tall = start * rng.uniform(0.5, 1.1)
    height = mountains(rng, view, start, tall, tall * rng.uniform(2.2, 4), 0.9) + 2.5
    height += rolling(rng, view, 18, 160, 60)
    width = rng.uniform(7, 22)
    view.set_ground(carve(rng, view, np.maximum(height, 1.5), width, 5, reach=2500, slant=rng.uniform(-0.12, 0.12)), wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    plain = (view.z < 900) & (view.y > 0)
    view.paint(rng.choice(["grass", "grass", "land"]), plain)
    patch = fractal(rng, view.x, view.z, 40.0, 5, pixel=view.pixel)
    view.paint("earth", plain & (view.y + 0.8 * patch < 0.8))
    name = rng.choice(["river", "river", "water"])
    water_surface(rng, view, name)
    if chance(rng, 0.3):
        view.paint("rapids", view.is_made_of("river") & (fractal(rng, view.x, view.z * 0.5, 9.0, 4, pixel=view.pixel) > 1.0))
    meadow = plain & (view.y > 0.9)
    if chance(rng, 0.5):
        z = rng.uniform(80, 170)
        bridge(rng, view, z, -0.35 * z - 25, 0.35 * z + 25)
    wood(rng, view, meadow & (view.z > 70), 70)
    grow(rng, view, meadow & (view.z < 90), 16, [shrub, boulder, flowers], (0.7, 1.8))
    if chance(rng, 0.2):
        afloat(rng, view, rowing_boat, 1, (1, 1.5), 30, 120, "a rowing boat")
    view.place = "a river in a mountain valley"
    return view


def waterfall_gorge(rng, size):
    view = View(size, rng.uniform(0.5, 0.68), rng.uniform(5, 10))
    brink, drop = rng.uniform(110, 200), rng.uniform(35, 80)
    middle, width = rng.uniform(-25, 25), rng.uniform(5, 13)
    x, z = view.grid_x, view.grid_z
    rugged = fractal(rng, x, z, 45.0, 6)
    wall = smoothstep(brink, brink + 10, z + 12 * rugged * smoothstep(width, 3 * width, np.abs(x - middle)))
    sides = smoothstep(22, 55, np.abs(x - middle * 0.5) + 9 * rugged - 0.04 * z)
    height = drop * np.maximum(wall * (1 + 0.12 * rugged), sides * rng.uniform(0.6, 1.1) * (1 + 0.25 * rugged)) - 2
    notch = np.abs(x - middle) < width
    height = np.where(notch & (z > brink), drop * smoothstep(brink, brink + 10, z) * 0.9 - 2, height)
    far = mountains(rng, view, 900, 700, 1400)
    view.set_ground(np.where(z > brink + 30, np.maximum(height, far), height), wet=True)
    view.paint(rng.choice(["mountain cliff", "rock"]), ~view.sky)
    crags = fractal(rng, view.x, view.y + view.z * 0.7, 16.0, 6, gain=0.65, pixel=view.pixel)
    view.slope_x += (1.0 * crags).astype(np.float32)
    view.paint("mountain forest", (view.steep + 0.5 * crags < 0.7) & (view.y > 0))
    view.paint("mossy rock", (view.y > 0) & (view.y < 6 + 5 * crags))
    water_surface(rng, view, rng.choice(["water", "river"]))
    fall = (np.abs(view.x - middle) < width * (0.85 + 0.25 * crags)) & (view.z > brink - 4) & (view.z < brink + 14) & (view.y > -1)
    view.paint("waterfall", fall)
    streaks = fractal(rng, view.x, view.y * 0.06, 2.2, 4)
    view.shade = np.where(fall & ~view.sky, 0.9 + 0.28 * streaks, view.shade).astype(np.float32)
    view.slope_x[fall] = view.slope_z[fall] = 0
    grow(rng, view, view.is_made_of("mossy rock", *WATERS) & (view.z < 80), 16, [boulder], (0.8, 4))
    wood(rng, view, view.is_made_of("mountain forest") & (view.z < 400), 50, (6, 14))
    if chance(rng, 0.3):
        grow(rng, view, (view.y > 0) & (view.z < 70) & (view.steep < 1), 14, [shrub, reeds], (0.8, 2))
    if chance(rng, 0.15):
        bridge(rng, view, brink * 0.6, -45, 45)
    view.place = "a waterfall in a gorge"
    return view


def fields_and_road(rng, size):
    view = View(size, rng.uniform(0.36, 0.52), rng.uniform(5, 22))
    tall = rng.uniform(200, 1400)
    height = mountains(rng, view, rng.uniform(2000, 4000), tall, 2200)
    view.set_ground(height + rolling(rng, view, rng.uniform(5, 30), 420, 60) + 1)
    dress_mountains(rng, view, ~view.sky, tall)
    plain = view.z < 1900
    view.paint("hill grass", plain & (view.z > 900))
    meadow = plain & (view.z <= 900)
    view.paint("grass", meadow)
    patchwork(rng, view, meadow & (view.z < 700), rng.uniform(60, 160))
    if chance(rng, 0.75):
        slant = rng.uniform(-0.15, 0.15)
        name = rng.choice(["road", "road", "path"])
        width = 7 if name == "road" else 3.5
        track(rng, view, name, width, meadow, slant, 380)
        view.mention(f"a {name}")
    wood(rng, view, plain & (view.z > 180), 45)
    if chance(rng, 0.65):
        x = rng.choice([-1, 1]) * rng.uniform(7, 12)
        fence(rng, view, x, 14, x * 2.5, 120)
    if chance(rng, 0.35):
        free = view.is_made_of("ripe field", "green field", "ploughed field", "grass").astype(np.uint8)
        free = cv2.erode(free, np.ones((5, view.W // 16 + 1))) > 0  # so that no house stands on the road
        grow(rng, view, free & (view.z > 70) & (view.z < 300), 3, [house], (7, 10))
        view.mention("a farm house")
    if chance(rng, 0.2):
        grow(rng, view, meadow & (view.z > 15) & (view.z < 40), 1, [sign], (2.2, 2.8))
    if chance(rng, 0.12):
        in_the_air(rng, view)
    view.place = "farm fields"
    return view


def village(rng, size):
    view = View(size, rng.uniform(0.36, 0.5), rng.uniform(5, 14))
    start = rng.uniform(700, 1500)
    tall = start * rng.uniform(0.4, 1)
    height = mountains(rng, view, start, tall, 3 * tall) + rolling(rng, view, rng.uniform(6, 22), 240, 40) + 1
    view.set_ground(height)
    dress_mountains(rng, view, ~view.sky, tall)
    ground = view.z < 600
    view.paint("grass", ground)
    view.paint("earth", ground & (fractal(rng, view.x, view.z, 40.0, 4) > 0.75))
    name = rng.choice(["path", "road"])
    middle = track(rng, view, name, 6, ground, rng.uniform(-0.1, 0.1), 260)
    view.mention(f"a {name}")
    homes = ground & view.is_made_of("grass", "earth") & (view.z > 50) & (view.z < 400) & (np.abs(view.x - middle) > 10)
    if chance(rng, 0.3):
        grow(rng, view, homes & (view.z > 150), 10, [tower_block], (14, 30))
        view.mention("buildings")
    grow(rng, view, homes, int(rng.integers(5, 16)), [house], (6, 10))
    wood(rng, view, homes, 24, (7, 14))
    if chance(rng, 0.6):
        x = rng.choice([-1, 1]) * rng.uniform(6, 10)
        stone_wall(rng, view, x, 15, x * 2.2, 70)
    if chance(rng, 0.5):
        grow(rng, view, homes & (view.z < 80), 10, [shrub, flowers], (0.8, 1.8))
    if chance(rng, 0.4):
        people(rng, view, ground, 2)
    view.place = "a village below mountains"
    return view


def desert(rng, size):
    view = View(size, rng.uniform(0.34, 0.6), rng.uniform(8, 26))
    x, z = view.grid_x, view.grid_z
    dunes = fractal(rng, x + 0.3 * z, z * 0.6, rng.uniform(150, 400), 5, gain=0.32, ridged=True)
    height = rng.uniform(20, 60) * dunes * smoothstep(20, 400, z)
    tall = rng.uniform(300, 1200)
    view.set_ground(height + mountains(rng, view, rng.uniform(1500, 3500), tall, 1600))
    dress_mountains(rng, view, ~view.sky, tall)
    plain = view.z < 1500
    view.paint(rng.choice(["sand", "sand", "land", "earth"]), plain)
    ripples = np.sin(2 * np.pi * (view.x * 0.3 + view.z + 6 * fractal(rng, view.x, view.z, 30.0, 3)) / 1.4)
    view.shade *= np.where(plain, 1 + 0.08 * ripples * np.clip(0.35 / view.pixel - 0.5, 0, 1), 1).astype(np.float32)
    if chance(rng, 0.5):
        grow(rng, view, plain & (view.z < 260), 12, [boulder], (1, 7))
        view.mention("rocks")
    if chance(rng, 0.5):
        grow(rng, view, plain & (view.z < 120), 14, [shrub, reeds], (0.6, 1.6))
    if chance(rng, 0.4):
        track(rng, view, rng.choice(["path", "road"]), 6, plain, rng.uniform(-0.2, 0.2), 500)
    if chance(rng, 0.3):
        people(rng, view, plain, 2)
    view.place = "desert dunes"
    return view


def green_hills(rng, size):
    view = View(size, rng.uniform(0.4, 0.6), rng.uniform(10, 40))
    tall = rng.uniform(60, 200)
    height = rolling(rng, view, tall, rng.uniform(500, 1100), 80)
    view.set_ground(height + mountains(rng, view, 4000, rng.uniform(300, 1500), 2400))
    dress_mountains(rng, view, view.z > 4000, 800)
    hills = (view.z <= 4000) & ~view.sky
    view.paint("hill grass", hills)
    patch = fractal(rng, view.x, view.z, 260.0, 5, pixel=view.pixel)
    view.paint("hill forest", hills & (patch > rng.uniform(0.2, 0.8)))
    near = view.z < 140
    view.paint("grass", near)
    if chance(rng, 0.5):
        track(rng, view, "path", 3, view.z < 500, rng.uniform(-0.2, 0.2), 260)
        view.mention("a path")
    wood(rng, view, hills & (view.z > 100) & (view.z < 900), 40)
    grow(rng, view, near, 24, [flowers, shrub, reeds], (0.5, 1.3))
    if chance(rng, 0.7):
        z = rng.uniform(25, 45)
        fence(rng, view, -0.6 * z, z, 0.6 * z, z * rng.uniform(0.7, 1.6))
    if chance(rng, 0.15):
        in_the_air(rng, view)
    view.place = "green hills"
    return view


def harbour(rng, size):
    view = View(size, rng.uniform(0.34, 0.5), rng.uniform(7, 16))
    tall = rng.uniform(200, 900)
    quay = rng.uniform(180, 420)
    height = np.where(view.grid_z > quay, 3.0, -4.0) + mountains(rng, view, quay * 2.5, tall, 1500)
    view.set_ground(height + rolling(rng, view, 30, 300, quay), wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    town = (view.z < quay * 2) & (view.y > 0)
    view.paint("land", town)
    view.paint("wall", (view.y > 0) & (view.y < 2.9) & (view.z < quay * 1.1))
    water_surface(rng, view, rng.choice(["sea", "sea", "water"]))
    grow(rng, view, town & (view.y > 2), int(rng.integers(10, 24)), [tower_block, house, house], (9, 20))
    wood(rng, view, town & (view.y > 2), 20, (7, 13))
    view.mention("buildings")
    afloat(rng, view, sailing_boat, int(rng.integers(1, 6)), (8, 12), 50, quay, "boats")
    if chance(rng, 0.4):
        afloat(rng, view, steamer, 1, (16, 22), 120, quay, "a ship")
    if chance(rng, 0.5):
        pier(rng, view, rng.uniform(-12, 12), rng.uniform(14, 20), rng.uniform(50, 110))
    view.place = "a harbour town"
    return view


# Every scene with how often it is drawn: the classes then take about the shares they have in the competition's masks.
SCENES = [
    (mountain_range, 17),
    (mountain_lake, 6),
    (sea_shore, 3),
    (rocky_coast, 4),
    (open_sea, 3),
    (river_valley, 1.5),
    (waterfall_gorge, 1.4),
    (fields_and_road, 1.3),
    (village, 1),
    (desert, 0.7),
    (green_hills, 1.1),
    (harbour, 1),
]


def make_layout(seed, size=(512, 384)) -> View:
    """The layout of a seed (an int or a sequence of ints, none negative) at a size in pixels (width, height)."""
    rng = np.random.default_rng(seed)
    weights = np.array([weight for _, weight in SCENES])
    view = SCENES[rng.choice(len(SCENES), p=weights / weights.sum())][0](rng, size)
    texture = fractal(rng, view.x, view.y + view.z, 6.0, 6, gain=0.75, pixel=view.pixel)
    broad = fractal(rng, view.x, view.z, 120.0, 4, pixel=view.pixel)
    view.shade *= 1 + ROUGHNESS_OF[view.material] * (0.42 * texture + 0.2 * broad)
    view.wave_seed = int(rng.integers(2**31))
    return view


# ---------------------------------------------------------------------------------------------------------- colours


# Pictures in the making are linear light, float32 [3, H, W]: fields [H, W] and colours [3, 1, 1] then broadcast fast.


def linear(colour):
    """sRGB 0..255 -> linear light 0..1 as [3, 1, 1] (with the gamma taken as 2, whose inverse is a square root)."""
    return np.square(np.float32(colour) / 255)[:, None, None]


def albedo(view, style):
    return np.take(style.palette, view.material, axis=1)


def paint_sky(view, style):
    """The whole picture as sky: gradient, glow round the sun or moon, clouds in perspective, stars."""
    rng = np.random.default_rng(style.seed)
    light = style.light
    rows, columns = np.mgrid[: view.H, : view.W].astype(np.float32)
    up = np.clip((view.horizon - rows) / (0.75 * view.H), 0, 1)
    zenith, horizon, sun = linear(light.zenith), linear(light.horizon), linear(light.sun)
    sky = horizon + (zenith - horizon) * np.sqrt(up)
    if light.ahead:
        sun_row = view.horizon - (0.08 + 0.5 * light.elevation) * 0.75 * view.H
        away = np.sqrt(np.square(columns - style.sun_column * view.W) + np.square(rows - sun_row)) / view.W
        glow = 0.9 * np.exp(-np.square(away / 0.05)) + 0.45 * np.exp(-away / 0.16)
        disc = 1.5 * smoothstep(0.022, 0.018, away)
        sky += (glow * light.power + disc) * sun * 0.8
    far = 1 / (up + 0.12)  # a flat layer of clouds overhead
    density = fractal(rng, (columns / view.W - 0.5) * far, far * 0.9, 0.9, 6, gain=0.55)
    cover = smoothstep(0.75 - 1.75 * light.clouds, 1.3 - 1.6 * light.clouds, density)
    thick = smoothstep(0.2, 1.3, density + 0.4 * light.clouds)
    bright = 0.55 * horizon + 0.45 * np.maximum(sun, 1.2 * horizon) * (0.6 + 0.4 * light.power)
    dark = 0.5 * zenith + 0.3 * horizon
    clouds = bright + (dark - bright) * thick
    sky += (clouds - sky) * (0.88 * cover * smoothstep(0, 0.12, up))
    if max(light.zenith) < 50:  # dark enough for stars
        count = view.W * view.H // 700
        row, column = rng.integers(view.H, size=count), rng.integers(view.W, size=count)
        sky[:, row, column] += rng.uniform(0, 0.5, count) ** 2 * (1 - cover[row, column])
    return sky


def paint_water(view, style, picture):
    """Water as a rippled mirror of what stands above it, over its own colour; `picture` is changed in place."""
    water, sea = view.is_made_of(*WATERS), view.is_made_of("sea")
    if not water.any():
        return
    light, rng = style.light, np.random.default_rng(view.wave_seed)
    rows, columns = np.mgrid[: view.H, : view.W].astype(np.float32)
    below = np.clip((rows - view.horizon) / view.H, 0.002, 1)
    size = np.where(sea, np.float32(9), np.float32(3.5)) * max(view.eye / 10, 0.6)  # of the waves, in metres
    roughness = np.where(sea, np.float32(1.6), np.float32(0.6))
    waves = fractal(rng, view.x / size, 2.2 * view.z / size, 1.0, 5, gain=0.6, pixel=view.pixel / size)
    swing = view.H * (0.006 + 0.11 * below) * roughness * waves
    # what stands on the shore is mirrored there; what lies far behind it, at the horizon
    shore = np.maximum.accumulate(np.where(water, -1, rows), axis=0)  # the last row above that is not water
    ashore, afar = (np.clip(turn - rows + swing, 0, view.H - 1) for turn in (2 * shore + 1, 2 * view.horizon))
    depth_at_shore = np.take_along_axis(view.depth, np.maximum(shore, 0).astype(np.intp), axis=0)
    on_shore = np.take_along_axis(view.depth, ashore.astype(np.intp), axis=0) < 2.5 * depth_at_shore
    column, row = columns + 0.3 * swing, np.where((shore >= 0) & on_shore, ashore, afar).astype(np.float32)
    mirrored = np.stack([cv2.remap(p, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for p in picture])
    # Schlick's approximation of Fresnel's law: the flatter the view, the better the mirror
    grazing = below / np.sqrt(np.square(below) + np.square(0.9 * view.W / view.H))
    mirror = (0.14 + 0.8 * (1 - grazing) ** 5 - 0.12 * waves * roughness).clip(0.05, 0.92)
    body = albedo(view, style) * ((linear(light.ambient) + 0.5 * light.power * linear(light.sun)) * 1.3)
    body *= 1 + 0.3 * waves * roughness
    surface = body + (mirrored * 0.95 - body) * mirror
    if light.ahead:  # the sun's road on the water
        away = (columns / view.W - style.sun_column) / (0.04 + 0.2 * below)
        glitter = np.exp(-np.square(away)) * smoothstep(0.25, 0.9, waves + 0.2)
        surface += (1.1 * light.power * glitter) * linear(light.sun)
    np.copyto(picture, surface, where=water)


def render(view, style):
    """A layout in a style: uint8 RGB [H, W, 3]."""
    light = style.light
    sky = paint_sky(view, style)
    facing = -view.slope_x * style.sun[0] + style.sun[1] - view.slope_z * style.sun[2]
    steep = np.sqrt(1 + np.square(view.slope_x) + np.square(view.slope_z))
    lambert = np.maximum(facing / steep, 0)
    picture = albedo(view, style) * np.clip(view.shade, 0.15, 2)
    picture *= linear(light.ambient) * (0.75 + 0.5 / steep) + linear(light.sun) * (1.1 * light.power * lambert)
    if max(light.ambient) < 140:  # lamps behind the windows when it is dark
        np.copyto(picture, linear((255, 190, 96)), where=view.is_made_of(*WINDOWS))
    picture += (linear(light.horizon) - picture) * (1 - np.exp(-view.depth / light.visibility))
    np.copyto(picture, sky, where=view.is_made_of("sky"))
    # water first shows the sky mirrored at the horizon, then whatever paint_water finds on its shores
    above = np.clip(2 * view.horizon - np.arange(view.H), 0, view.H - 1).astype(int)
    np.copyto(picture, sky[:, above], where=view.is_made_of(*WATERS))
    paint_water(view, style, picture)
    picture *= style.exposure * style.cast[:, None, None]
    grey = 0.3 * picture[0] + 0.59 * picture[1] + 0.11 * picture[2]
    picture = np.sqrt(np.maximum(grey + (picture - grey) * light.saturation, 0))
    picture = np.where(picture > 0.8, 1 - 0.2 * np.exp(4 - 5 * picture), picture)  # a soft shoulder for highlights
    picture += 0.006 * np.random.default_rng(style.seed + 1).standard_normal((view.H, view.W), np.float32)  # grain
    picture = cv2.merge([np.clip(255 * channel + 0.5, 0, 255).astype(np.uint8) for channel in picture])
    return cv2.GaussianBlur(picture, (3, 3), 0.55) if view.W >= 256 else picture  # a lens is not sharper than its pixels


def describe(view, style):
    """A caption in words: the place, what stands in it, the light and the season."""
    listed = " and ".join([", ".join(view.things[:-1])] * (len(view.things) > 1) + view.things[-1:])
    return f"{view.place}{' with ' + listed if listed else ''} {style.words}"


def draw(layout_seed, style_seed, size=(512, 384)):
    """Draw one landscape.

    Seeds are ints or sequences of ints, none negative; `size` is (width, height) in pixels.
    Returns (image uint8 RGB [H, W, 3], mask uint8 [H, W] of classes 0..28, caption). The mask depends on the layout seed alone.
    """
    view, style = make_layout(layout_seed, size), make_style(style_seed)
    return render(view, style), CLASS_OF[view.material], describe(view, style)


# ---------------------------------------------------------------------------------------------------------- files


def write_dataset(root, train, test, seed, size=(512, 384), workers=None, progress=True):
    """Write a set of drawn landscapes in the layout of the contest.

        <root>/train_resized/imgs/*.jpg      RGB JPEG              <root>/train_resized/labels/*.png   16-bit grayscale, 0..28
        <root>/val_A_labels_resized/*.png    masks to generate from
        <root>/label_to_img.json             {"<mask>.png": "<training picture>.jpg"}, each of another picture while train >= test
        <root>/val_A_truth/*.jpg             each test layout drawn in the style of its reference, to compare results with
        <root>/captions.json                 {"<stem>": "<caption>"} of all pictures

    `train` and `test` are numbers of pictures, `size` is (width, height), `workers` a number of threads. A picture depends on
    `seed` and its index alone. All is written into a folder beside `root` that takes the name at the end, so that a
    set which has the name is whole. Raises UserError when `root` exists or a number makes no sense, DiskError when
    writing fails.
    """
    root = Path(root)
    if train < 1 or test < 0 or seed < 0 or min(size) < 16:
        raise UserError(
            f"Cannot draw {train} training and {test} test pictures of size {size[0]}x{size[1]} from seed {seed}: "
            "give at least 1, 0, 16x16 and 0."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} exists already: choose another folder for the drawn landscapes, or remove it.")
    partial = root.with_name(root.name + ".partial")
    references = np.concatenate([np.random.default_rng([seed, 2, i]).permutation(train) for i in range(-(-test // train) or 1)])
    captions, pairs = {}, {}

    def write_one(index):
        """Draw and write picture `index`: training pictures first, then the test ones."""
        is_test = index >= train
        style = int(references[index - train]) if is_test else index
        stem = f"test_{index - train:05d}" if is_test else f"train_{index:05d}"
        image, mask, captions[stem] = draw((seed, 0, index), (seed, 1, style), size)
        write_jpeg(partial / ("val_A_truth" if is_test else "train_resized/imgs") / f"{stem}.jpg", image)
        labels = "val_A_labels_resized" if is_test else "train_resized/labels"
        write_png(partial / labels / f"{stem}.png", mask.astype(np.uint16))
        if is_test:
            pairs[f"{stem}.png"] = f"train_{style:05d}.jpg"

    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        for folder in ("train_resized/imgs", "train_resized/labels", "val_A_labels_resized", "val_A_truth"):
            (partial / folder).mkdir(parents=True)
        with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
            try:
                jobs = pool.map(write_one, range(train + test))
                list(tqdm(jobs, total=train + test, desc="drawing landscapes", unit="picture", disable=not progress))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for name, content in (("label_to_img.json", pairs), ("captions.json", captions)):
            (partial / name).write_text(json.dumps(dict(sorted(content.items())), indent=1))
        os.sync()  # the name must not reach the disk before the pictures
        partial.rename(root)
    except OSError as error:
        raise DiskError(f"Cannot write the drawn landscapes to {root}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
