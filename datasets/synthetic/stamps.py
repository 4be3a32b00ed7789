"""Stamps: small upright pictures of things, drawn by a function `make(rng, pixels)` at the height in pixels at which they are seen."""

from itertools import pairwise

import cv2
import numpy as np

from datasets.synthetic.materials import INDEX

NOTHING = 255  # in Stamp.paint, where the stamp shows no material: what is behind it is seen


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
