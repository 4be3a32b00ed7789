// Where the mask is drawn: the canvas, the tools, and the hand that holds them (mouse, pen, finger or keys).

import { HEIGHT, WIDTH } from "./labels.js";
import { choose } from "./palette.js";
import { remember, settings } from "./settings.js";

const SIZES = [1, 160];
const canvas = document.getElementById("mask");
const ring = document.getElementById("ring");
const pen = canvas.getContext("2d");
const image = pen.createImageData(WIDTH, HEIGHT);
const pixels = new Uint32Array(image.data.buffer);

export class Board {
  /** `drawing()` is called while the mask changes, `drawn()` when a change has ended. */
  constructor(labels, classes, { drawing, drawn, sized }) {
    Object.assign(this, { labels, drawing, drawn, sized });
    const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
    this.colors = classes.map(({ color: [r, g, b] }) => (little ? (255 << 24) | (b << 16) | (g << 8) | r : (r << 24) | (g << 16) | (b << 8) | 255));
    this.hand = null; // the pointer that draws
    this.finger = false; // whether that is a finger
    this.at = { x: WIDTH / 2, y: HEIGHT / 2 };
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => event.pointerId === this.hand && this.giveUp());
    canvas.addEventListener("pointerleave", () => (ring.hidden = true));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => (ring.hidden = true));
    this.show();
  }

  show() {
    const { map } = this.labels;
    for (let i = 0; i < map.length; i++) pixels[i] = this.colors[map[i]];
    pen.putImageData(image, 0, 0);
  }

  // ------------------------------------------------------------------------------------------------------- the pointer

  /** Where on the mask, in pixels; whole numbers are their middles. */
  place(event) {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * WIDTH - 0.5,
      y: ((event.clientY - box.top) / box.height) * HEIGHT - 0.5,
      size: event.pointerType === "pen" && event.pressure > 0 ? settings.size * (0.3 + 0.7 * event.pressure) : settings.size,
    };
  }

  down(event) {
    if (this.hand !== null) {
      if (!this.finger || event.pointerType === "mouse") return;
      this.giveUp(); // a second finger: it was not meant to draw; or a pen, and the finger is the palm of its hand
      if (event.pointerType === "touch") return;
    }
    if (event.button > 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    const at = this.place(event);
    if (settings.tool === "pick" || event.altKey) {
      choose(this.labels.at(at.x, at.y));
      return;
    }
    this.hand = event.pointerId;
    this.finger = event.pointerType === "touch";
    canvas.setPointerCapture(event.pointerId);
    this.from = this.last = at;
    this.labels.begin();
    this.apply([at], event.shiftKey);
  }

  move(event) {
    this.showRing(event);
    if (event.pointerId !== this.hand) return;
    const each = event.getCoalescedEvents?.() ?? [];
    this.apply((each.length ? each : [event]).map((one) => this.place(one)), event.shiftKey);
  }

  up(event) {
    if (event.pointerId !== this.hand) return;
    this.hand = null;
    if (event.pointerType !== "mouse") ring.hidden = true;
    this.labels.end();
    this.drawn(); // also where nothing has changed: drawing has broken off what was being painted
  }

  giveUp() {
    if (this.hand === null) return;
    this.hand = null;
    this.labels.cancel();
    this.show();
    this.drawn();
  }

  /** What the tool does when the hand goes from place to place. */
  apply(places, straight) {
    const { tool, label } = settings;
    const to = places.at(-1);
    if (tool === "brush" || tool === "eraser") {
      for (const at of places) {
        this.labels.line(this.last.x, this.last.y, at.x, at.y, at.size, tool === "eraser" ? null : label);
        this.last = at;
      }
    } else if (tool === "fill") {
      if (to === this.from) this.labels.fill(to.x, to.y, label);
    } else {
      this.labels.map.set(this.labels.before.map); // a line, or a horizon, is still being moved
      if (tool === "horizon") this.labels.horizon(to.y + 0.5, label);
      else {
        const end = straight ? level(this.from, to) : to;
        this.labels.line(this.from.x, this.from.y, end.x, end.y, to.size, label);
      }
    }
    this.show();
    this.drawing();
  }

  wheel(event) {
    if (event.ctrlKey || !event.deltaY) return;
    event.preventDefault();
    this.resize(event.deltaY < 0 ? 1 : -1);
    this.showRing(event);
  }

  /** Makes the brush larger or smaller by a tenth, or a pixel. */
  resize(direction) {
    const size = settings.size + direction * Math.max(1, Math.round(settings.size / 10));
    remember({ size: Math.min(SIZES[1], Math.max(SIZES[0], size)) });
    this.sized();
  }

  showRing(event) {
    if (event.pointerType === "touch") return;
    const box = canvas.getBoundingClientRect();
    this.placeRing(event.clientX - box.left, event.clientY - box.top, box.width / WIDTH);
  }

  placeRing(x, y, scale) {
    const round = ["brush", "eraser", "line"].includes(settings.tool);
    const side = Math.max(4, round ? settings.size * scale : 8);
    ring.hidden = false;
    ring.style.width = ring.style.height = `${side}px`;
    ring.style.transform = `translate(${x - side / 2}px, ${y - side / 2}px)`;
  }

  // ---------------------------------------------------------------------------------------------------------- the keys

  key(event) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (event.ctrlKey || event.metaKey || this.hand !== null) return;
    if (x || y) {
      const far = event.shiftKey ? 1 : Math.max(2, Math.round(settings.size / 3));
      const to = { x: Math.min(WIDTH - 1, Math.max(0, this.at.x + x * far)), y: Math.min(HEIGHT - 1, Math.max(0, this.at.y + y * far)) };
      this.at = to;
    } else if (event.key === " " && settings.tool === "pick") {
      choose(this.labels.at(this.at.x, this.at.y));
    } else if (event.key === "Enter" || (event.key === " " && settings.tool === "fill")) {
      this.change(() => this.labels.fill(this.at.x, this.at.y, settings.label));
    } else if (event.key === " ") {
      this.change(() => {
        if (settings.tool === "horizon") this.labels.horizon(this.at.y, settings.label);
        else this.labels.line(this.at.x, this.at.y, this.at.x, this.at.y, settings.size, settings.tool === "eraser" ? null : settings.label);
      });
    } else {
      return;
    }
    event.preventDefault();
    const scale = canvas.getBoundingClientRect().width / WIDTH;
    this.placeRing(this.at.x * scale, this.at.y * scale, scale);
  }

  /** A change made at once. */
  change(make) {
    if (this.hand !== null) return;
    this.labels.begin();
    make();
    this.changed(this.labels.end());
  }

  changed(really) {
    this.show();
    if (really) this.drawn();
  }
}

/** `at` brought to the height of `from`, or below it, whichever is nearer. */
function level(from, at) {
  return Math.abs(at.x - from.x) > Math.abs(at.y - from.y) ? { ...at, y: from.y } : { ...at, x: from.x };
}
