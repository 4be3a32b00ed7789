"""Scenes without open water. A scene takes (rng, size) and returns a finished View."""

import cv2
import numpy as np

from datasets.synthetic.ground import dress_mountains, mountains, patchwork, rolling, track
from datasets.synthetic.noise import fractal, smoothstep
from datasets.synthetic.stamps import boulder, flowers, house, reeds, shrub, sign, tower_block
from datasets.synthetic.things import fence, grow, in_the_air, people, stone_wall, wood
from datasets.synthetic.view import View


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
    if rng.random() < 0.3:
        wood(rng, view, near, 60)
    if rng.random() < 0.3:
        grow(rng, view, near & (view.z < 200), 18, [boulder], (1, 8))
        view.mention("boulders")
    if rng.random() < 0.25:
        track(rng, view, "path", 4, near, rng.uniform(-0.2, 0.2))
        view.mention("a path")
    if rng.random() < 0.25:
        people(rng, view, near, int(rng.integers(1, 4)))
    if rng.random() < 0.1:
        in_the_air(rng, view)
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
    if rng.random() < 0.75:
        slant = rng.uniform(-0.15, 0.15)
        name = rng.choice(["road", "road", "path"])
        width = 7 if name == "road" else 3.5
        track(rng, view, name, width, meadow, slant, 380)
        view.mention(f"a {name}")
    wood(rng, view, plain & (view.z > 180), 45)
    if rng.random() < 0.65:
        x = rng.choice([-1, 1]) * rng.uniform(7, 12)
        fence(rng, view, x, 14, x * 2.5, 120)
    if rng.random() < 0.35:
        free = view.is_made_of("ripe field", "green field", "ploughed field", "grass").astype(np.uint8)
        free = cv2.erode(free, np.ones((5, view.W // 16 + 1))) > 0  # so that no house stands on the road
        grow(rng, view, free & (view.z > 70) & (view.z < 300), 3, [house], (7, 10))
        view.mention("a farm house")
    if rng.random() < 0.2:
        grow(rng, view, meadow & (view.z > 15) & (view.z < 40), 1, [sign], (2.2, 2.8))
    if rng.random() < 0.12:
        in_the_air(rng, view)
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
    if rng.random() < 0.3:
        grow(rng, view, homes & (view.z > 150), 10, [tower_block], (14, 30))
        view.mention("buildings")
    grow(rng, view, homes, int(rng.integers(5, 16)), [house], (6, 10))
    wood(rng, view, homes, 24, (7, 14))
    if rng.random() < 0.6:
        x = rng.choice([-1, 1]) * rng.uniform(6, 10)
        stone_wall(rng, view, x, 15, x * 2.2, 70)
    if rng.random() < 0.5:
        grow(rng, view, homes & (view.z < 80), 10, [shrub, flowers], (0.8, 1.8))
    if rng.random() < 0.4:
        people(rng, view, ground, 2)
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
    if rng.random() < 0.5:
        grow(rng, view, plain & (view.z < 260), 12, [boulder], (1, 7))
        view.mention("rocks")
    if rng.random() < 0.5:
        grow(rng, view, plain & (view.z < 120), 14, [shrub, reeds], (0.6, 1.6))
    if rng.random() < 0.4:
        track(rng, view, rng.choice(["path", "road"]), 6, plain, rng.uniform(-0.2, 0.2), 500)
    if rng.random() < 0.3:
        people(rng, view, plain, 2)
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
    if rng.random() < 0.5:
        track(rng, view, "path", 3, view.z < 500, rng.uniform(-0.2, 0.2), 260)
        view.mention("a path")
    wood(rng, view, hills & (view.z > 100) & (view.z < 900), 40)
    grow(rng, view, near, 24, [flowers, shrub, reeds], (0.5, 1.3))
    if rng.random() < 0.7:
        z = rng.uniform(25, 45)
        fence(rng, view, -0.6 * z, z, 0.6 * z, z * rng.uniform(0.7, 1.6))
    if rng.random() < 0.15:
        in_the_air(rng, view)
    return view
