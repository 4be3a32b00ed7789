"""All scenes, and the layout that a seed stands for."""

import numpy as np

from datasets.synthetic.land_scenes import desert, fields_and_road, green_hills, mountain_range, village
from datasets.synthetic.materials import ROUGHNESS_OF
from datasets.synthetic.noise import fractal
from datasets.synthetic.view import View
from datasets.synthetic.water_scenes import harbour, mountain_lake, open_sea, river_valley, rocky_coast, sea_shore, waterfall_gorge

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
    scene, _ = SCENES[rng.choice(len(SCENES), p=weights / weights.sum())]
    view = scene(rng, size)
    view.scene = scene.__name__.replace("_", " ")
    texture = fractal(rng, view.x, view.y + view.z, 6.0, 6, gain=0.75, pixel=view.pixel)
    broad = fractal(rng, view.x, view.z, 120.0, 4, pixel=view.pixel)
    view.shade *= 1 + ROUGHNESS_OF[view.material] * (0.42 * texture + 0.2 * broad)
    view.wave_seed = int(rng.integers(2**31))
    return view
