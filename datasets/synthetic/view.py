"""The view: a terrain seen by a pinhole camera, and what is known of every pixel of the picture."""

import cv2
import numpy as np

from datasets.synthetic.materials import INDEX, MATERIALS
from datasets.synthetic.stamps import NOTHING


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
        """Boolean [H, W]: the pixels of any of these materials."""
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
        """Have the captions name a thing, once, where it is seen."""
        if thing not in self.things:
            self.things.append(thing)
