"""Rendering: the picture of a layout in a style, with its mask and captions.

Pictures in the making are linear light, float32 [3, H, W]: fields [H, W] and colours [3, 1, 1] then broadcast fast.
"""

import cv2
import numpy as np

from datasets.synthetic.captions import captions
from datasets.synthetic.materials import CLASS_OF, WATERS, WINDOWS
from datasets.synthetic.noise import fractal, smoothstep
from datasets.synthetic.scenes import make_layout
from datasets.synthetic.styles import make_style


def linear(colour):
    """sRGB 0..255 -> linear light 0..1 as [3, 1, 1] (with the gamma taken as 2, whose inverse is a square root)."""
    return np.square(np.float32(colour) / 255)[:, None, None]


def albedo(view, style):
    """The colour of every pixel's material, before light falls on it: linear light [3, H, W]."""
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


def draw(layout_seed, style_seed, size=(512, 384)):
    """Draw one landscape.

    Seeds are ints or sequences of ints, none negative; `size` is (width, height) in pixels.
    Returns (image uint8 RGB [H, W, 3], mask uint8 [H, W] of classes 0..28, captions). The mask depends on the layout seed alone.
    """
    view, style = make_layout(layout_seed, size), make_style(style_seed)
    return render(view, style), CLASS_OF[view.material], captions(view, style)
