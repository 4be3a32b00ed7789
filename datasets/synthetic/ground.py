"""The ground: height fields of mountains and hills, and the materials that cover them. Height fields lie over the grid of a View."""

import numpy as np

from datasets.synthetic.materials import WATERS
from datasets.synthetic.noise import fractal, smoothstep


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
