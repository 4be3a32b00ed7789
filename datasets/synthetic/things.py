"""Things in a view: woods, people, fences, piers, bridges, boats. Most of the functions also add the thing to what the caption mentions."""

from itertools import pairwise

import numpy as np

from datasets.synthetic.materials import WATERS
from datasets.synthetic.noise import fractal
from datasets.synthetic.stamps import balloon, broadleaf, conifer, person


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
