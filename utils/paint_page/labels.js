// The mask: one class a pixel, whole numbers and no colours, so that there is nothing to smooth and nothing to guess back.

export const WIDTH = 512;
export const HEIGHT = 384;
const MOST_STEPS = 60; // that can be undone

export class Labels {
  constructor(fill) {
    this.map = new Uint8Array(WIDTH * HEIGHT).fill(fill);
    this.base = this.map.slice(); // what the eraser brings back: the mask as it was opened
    this.past = [];
    this.future = [];
    this.before = null; // what there was before the change that is under way, as in `past` and `future`: {map, base}
  }

  at(x, y) {
    return this.map[clamp(y, HEIGHT) * WIDTH + clamp(x, WIDTH)];
  }

  // ---------------------------------------------------------------------------------------------------------- history

  begin() {
    this.before = this.now();
  }

  /** Ends a change; says whether it has changed anything. */
  end() {
    const before = this.before;
    this.before = null;
    if (!before || same(before.map, this.map)) return false;
    this.past.push(before);
    if (this.past.length > MOST_STEPS) this.past.shift();
    this.future = [];
    return true;
  }

  /** Takes the change back that is under way. */
  cancel() {
    if (this.before) this.bringBack(this.before);
    this.before = null;
  }

  undo() {
    return this.step(this.past, this.future);
  }

  redo() {
    return this.step(this.future, this.past);
  }

  step(from, to) {
    if (this.before || !from.length) return false;
    to.push(this.now());
    this.bringBack(from.pop());
    return true;
  }

  now() {
    return { map: this.map.slice(), base: this.base };
  }

  bringBack({ map, base }) {
    this.map.set(map);
    this.base = base;
  }

  /** Opens another mask in the place of this one. */
  replace(map) {
    this.begin();
    this.map.set(map);
    this.base = map.slice();
    return this.end();
  }

  // ---------------------------------------------------------------------------------------------------------- drawing

  /** All pixels within size / 2 of the line between two points. `label` null erases. */
  line(x0, y0, x1, y1, size, label) {
    const radius = Math.max(size, 1) / 2;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    const [left, right] = range(Math.min(x0, x1) - radius, Math.max(x0, x1) + radius, WIDTH);
    const [top, bottom] = range(Math.min(y0, y1) - radius, Math.max(y0, y1) + radius, HEIGHT);
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const along = length ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / length)) : 0;
        const [a, b] = [x - x0 - along * dx, y - y0 - along * dy];
        if (a * a + b * b <= radius * radius) this.set(y * WIDTH + x, label);
      }
    }
  }

  /** All that is connected to a point and of its class. */
  fill(x, y, label) {
    const from = this.at(x, y);
    if (label === from) return;
    const waiting = [clamp(y, HEIGHT) * WIDTH + clamp(x, WIDTH)];
    const seen = new Uint8Array(WIDTH * HEIGHT);
    seen[waiting[0]] = 1;
    const visit = (i) => {
      if (!seen[i] && this.map[i] === from) {
        seen[i] = 1;
        waiting.push(i);
      }
    };
    while (waiting.length) {
      const i = waiting.pop();
      const column = i % WIDTH;
      if (column > 0) visit(i - 1);
      if (column < WIDTH - 1) visit(i + 1);
      if (i >= WIDTH) visit(i - WIDTH);
      if (i < WIDTH * (HEIGHT - 1)) visit(i + WIDTH);
      this.map[i] = label;
    }
  }

  /** All from a height down. */
  horizon(y, label) {
    this.map.fill(label, Math.max(0, Math.min(HEIGHT, Math.round(y))) * WIDTH);
  }

  set(i, label) {
    this.map[i] = label === null ? this.base[i] : label;
  }
}

function clamp(value, size) {
  return Math.max(0, Math.min(size - 1, Math.round(value)));
}

function range(from, to, size) {
  return [Math.max(0, Math.floor(from)), Math.min(size - 1, Math.ceil(to))];
}

function same(a, b) {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
