"""Large maps computed piece by piece, in the memory that one piece takes."""

import math
from collections.abc import Callable
from itertools import product

import jittor as jt
import numpy as np


def in_tiles(compute: Callable[[jt.Var], jt.Var], x: jt.Var, tile: int, scale: int, margin: int = 0) -> np.ndarray:
    """About compute(x), float32 [B, C', H·scale, W·scale], for x [B, C, H, W] and a `compute` that enlarges by `scale`.

    Tiles have `tile` cells of x a side, or as many as there are, overlap by a quarter and more, and fade into each other linearly. Where
    others cover the place, a tile's outer `margin` cells count for nothing, less than an eighth of it: near its border a network sees
    zeros instead of the neighbours.
    """
    rows, columns = x.shape[2:]
    height, width = min(tile, rows), min(tile, columns)
    total, result = np.zeros((rows * scale, columns * scale), np.float32), None
    for top, left in product(tile_starts(rows, height), tile_starts(columns, width)):
        part = compute(x[:, :, top : top + height, left : left + width]).numpy()
        if result is None:
            result = np.zeros((*part.shape[:2], *total.shape), np.float32)
        here = (..., slice(top * scale, (top + height) * scale), slice(left * scale, (left + width) * scale))
        down, across = (ramp(*edges, scale, margin) for edges in ((top, height, rows), (left, width, columns)))
        weight = np.outer(down, across).astype(np.float32)
        result[here] += weight * part
        total[here] += weight
    return result / total


def ramp(start: int, tile: int, cells: int, scale: int, margin: int) -> np.ndarray:
    """Weights [tile · scale] of the rows of a tile that begins at row `start` of `cells`: they rise with the distance to the tile's nearer
    border, but for one that is the map's own. Where two tiles overlap, their weights add up to a constant."""
    n = tile * scale
    before = np.arange(n) if start > 0 else np.full(n, n)
    behind = np.arange(n)[::-1] if start + tile < cells else np.full(n, n)
    return np.maximum(np.minimum(before, behind) + 1.0 - margin * scale, 0)


def tile_starts(cells: int, tile: int) -> list[int]:
    """Where the fewest tiles begin that cover `cells` and overlap by a quarter, spread evenly."""
    count = 1 + math.ceil((cells - tile) / (tile * 3 / 4))
    return [round(start) for start in np.linspace(0, cells - tile, count)]
