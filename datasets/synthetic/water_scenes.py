"""Scenes with a lake, a river or the sea. A scene takes (rng, size) and returns a finished View."""

import numpy as np

from datasets.synthetic.ground import carve, dress_mountains, mountains, rolling, water_surface
from datasets.synthetic.materials import WATERS
from datasets.synthetic.noise import fractal, smoothstep
from datasets.synthetic.stamps import boulder, flowers, house, reeds, rowing_boat, sailing_boat, shrub, steamer, tower_block
from datasets.synthetic.things import afloat, bridge, fence, grow, people, pier, wood
from datasets.synthetic.view import View


def mountain_lake(rng, size):
    view = View(size, rng.uniform(0.36, 0.55), rng.uniform(5, 16))
    shore = rng.uniform(350, 1500)
    tall = shore * rng.uniform(0.6, 1.4)
    height = mountains(rng, view, shore, tall, tall * rng.uniform(2.2, 4), rng.choice([0, 0.5, 0.9]))
    height += 24 * smoothstep(shore * 0.7, shore * 1.6, view.grid_z + 0.4 * shore * fractal(rng, view.grid_x, view.grid_z, shore, 4)) - 3
    bank = rng.random() < 0.5
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
    if rng.random() < 0.6:
        wood(rng, view, shore_line, 120, (14, 30))
    if rng.random() < 0.4:
        pier(rng, view, rng.uniform(-5, 5), rng.uniform(14, 22), rng.uniform(45, 90))
    if rng.random() < 0.35:
        make, label = ((rowing_boat, "a rowing boat"), (sailing_boat, "a sailing boat"))[rng.integers(2)]
        afloat(rng, view, make, 1 + rng.integers(2), (1, 1.6) if make is rowing_boat else (8, 12), 40, 220, label)
    if rng.random() < 0.15:
        grow(rng, view, shore_line & (view.z < 700), 3, [house], (8, 12))
        view.mention("houses")
    return view


def sea_shore(rng, size):
    view = View(size, rng.uniform(0.3, 0.52), rng.uniform(5, 14))
    slant = rng.uniform(-0.9, 0.9)
    edge = rng.uniform(28, 80) + 10 * fractal(rng, view.grid_x, view.grid_z, 90.0, 4) + slant * view.grid_x
    height = 0.06 * (edge - view.grid_z)
    height = np.clip(height, -12, 3.2) + 0.15 * fractal(rng, view.grid_x, view.grid_z, 8.0, 4)
    tall = rng.uniform(150, 700)
    if rng.random() < 0.6:
        side = rng.choice([-1, 1])
        head = mountains(rng, view, rng.uniform(900, 3000), tall, rng.uniform(900, 2200))
        height += (head + 14 * (head > 2)) * smoothstep(-0.2, 0.4, side * view.grid_x / view.grid_z + rng.uniform(-0.1, 0.3))
    view.set_ground(height, wet=True)
    view.paint("sand", ~view.sky)
    dress_mountains(rng, view, (view.z > 500) & (view.y > 0), tall)
    beach = (view.z < 500) & (view.y > 0.3)
    dry = fractal(rng, view.x, view.z, 25.0, 4)
    if rng.random() < 0.4:
        view.paint(rng.choice(["grass", "land", "earth"]), beach & (view.y + 0.7 * dry > 2.6))
    water_surface(rng, view, "sea")
    shallow = view.is_made_of("sea", "surf", "sand", "wet sand") & (view.z < 160) & (view.y < 1)
    if rng.random() < 0.5:
        grow(rng, view, shallow, 12, [boulder], (0.6, 4))
        view.mention("rocks")
    if rng.random() < 0.35:
        people(rng, view, beach, int(rng.integers(1, 5)))
    if rng.random() < 0.25:
        x = rng.uniform(-12, 12)
        pier(rng, view, x, rng.uniform(16, 24), rng.uniform(70, 160))
    if rng.random() < 0.3:
        afloat(rng, view, sailing_boat, 1 + rng.integers(3), (9, 14), 120, 700, "sailing boats")
    if rng.random() < 0.25:
        afloat(rng, view, steamer, 1, (25, 40), 600, 3000, "a ship")
    if rng.random() < 0.2:
        z = rng.uniform(14, 24)
        fence(rng, view, -0.7 * z, z, 0.7 * z, z * rng.uniform(0.9, 1.4), "railing")
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
    if rng.random() < 0.3:
        grow(rng, view, crag & (view.y > 3), 12, [shrub, reeds], (0.8, 2.5))
        view.mention("shrubs")
    if rng.random() < 0.2:
        people(rng, view, crag & (view.steep < 0.6), 1)
    if rng.random() < 0.2:
        afloat(rng, view, steamer, 1, (25, 40), 700, 4000, "a ship")
    return view


def open_sea(rng, size):
    view = View(size, rng.uniform(0.35, 0.72), rng.uniform(6, 30))
    tall = rng.uniform(150, 900)
    isles = mountains(rng, view, rng.uniform(2500, 6000), tall, rng.uniform(1500, 3500))
    isles = np.where(isles > 0.1 * tall, isles, 0) * smoothstep(0.2, -0.3, np.abs(view.grid_x / view.grid_z - rng.uniform(-0.4, 0.4)) - 0.3)
    view.set_ground(isles - 3, wet=True)
    dress_mountains(rng, view, ~view.sky, tall)
    water_surface(rng, view, "sea")
    if rng.random() < 0.45:
        afloat(rng, view, steamer, 1 + rng.integers(2), (25, 45), 350, 2500, "a ship")
    if rng.random() < 0.4:
        afloat(rng, view, sailing_boat, 1 + rng.integers(4), (9, 15), 90, 600, "sailing boats")
    if rng.random() < 0.3:
        z = rng.uniform(12, 20)
        deck = view.eye - rng.uniform(2.5, 4)
        for level in (0, 0.55, 1.1):
            view.bar("railing", (-z, deck + level, z), (z, deck + level, z), 0.09)
        for x in np.arange(-z, z, 2.0):
            view.bar("railing", (x, deck - 12, z), (x, deck + 1.15, z), 0.12)
        view.mention("a railing")
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
    if rng.random() < 0.3:
        view.paint("rapids", view.is_made_of("river") & (fractal(rng, view.x, view.z * 0.5, 9.0, 4, pixel=view.pixel) > 1.0))
    meadow = plain & (view.y > 0.9)
    if rng.random() < 0.5:
        z = rng.uniform(80, 170)
        bridge(rng, view, z, -0.35 * z - 25, 0.35 * z + 25)
    wood(rng, view, meadow & (view.z > 70), 70)
    grow(rng, view, meadow & (view.z < 90), 16, [shrub, boulder, flowers], (0.7, 1.8))
    if rng.random() < 0.2:
        afloat(rng, view, rowing_boat, 1, (1, 1.5), 30, 120, "a rowing boat")
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
    if rng.random() < 0.3:
        grow(rng, view, (view.y > 0) & (view.z < 70) & (view.steep < 1), 14, [shrub, reeds], (0.8, 2))
    if rng.random() < 0.15:
        bridge(rng, view, brink * 0.6, -45, 45)
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
    if rng.random() < 0.4:
        afloat(rng, view, steamer, 1, (16, 22), 120, quay, "a ship")
    if rng.random() < 0.5:
        pier(rng, view, rng.uniform(-12, 12), rng.uniform(14, 20), rng.uniform(50, 110))
    return view
