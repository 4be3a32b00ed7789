// When pictures are asked for: a quick one while the mask is being drawn, the real one when the hand rests. The newest wishes win.

import { fromBase64 } from "./files.js";
import { Failure, painted, studio } from "./server.js";

const REST = 350; // milliseconds without a change, after which the real picture is painted
const RETRY = 1500; // between two looks whether the server is back

export class Painting {
  /**
   * `request(quick)` makes what the server is asked; `lost()` is called where the server has forgotten the photo it named;
   * `tell(state)` is told {kind, …} of all that happens; `show(bytes, quality)` shows a JPEG: "preview", "quick" or "final".
   */
  constructor({ quickly, request, lost, tell, show }) {
    Object.assign(this, { quickly, request, lost, tell, show });
    this.asked = null; // the AbortController of what is being painted
    this.quick = false; // whether that is a quick one
    this.stale = false; // whether the mask has changed since a quick one was asked for
    this.timer = 0;
    this.away = false;
  }

  /** The mask is being changed. */
  drawing() {
    clearTimeout(this.timer);
    if (!this.quickly || this.away) return;
    if (this.asked && this.quick) this.stale = true;
    else this.paint(true);
  }

  /** Something has changed, and may change again soon. */
  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.paint(false), REST);
  }

  stop() {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.asked = null;
  }

  async paint(quick) {
    this.stop();
    const own = new AbortController();
    [this.asked, this.quick, this.stale] = [own, quick, false];
    const current = () => this.asked === own;
    try {
      const request = await this.request(quick);
      if (!current()) return;
      this.tell({ kind: quick ? "first_look" : "queued" });
      for await (const event of painted(request, own.signal)) {
        if (!current()) return;
        this.away = false;
        this.take(event, quick, request);
      }
    } catch (error) {
      if (!current() || error.name === "AbortError") return;
      this.asked = null;
      return this.failed(error, quick);
    }
    if (!current()) return;
    this.asked = null;
    if (quick && this.stale) this.paint(true);
  }

  take(event, quick, request) {
    if (event.event === "begun" && !quick) this.tell({ kind: "painting", step: 0, steps: 0 });
    if (event.event === "step" && !quick) this.tell({ kind: "painting", step: event.step, steps: event.steps });
    if (event.picture) this.show(fromBase64(event.picture), event.event === "step" ? "preview" : quick ? "quick" : "final");
    if (event.event === "picture") this.tell({ kind: quick ? "first_look" : "done", seconds: event.seconds, seed: request.seed });
    if (event.event === "superseded") this.tell({ kind: "superseded" });
  }

  async failed(error, quick) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 0) return this.wait();
    if (error.status === 410 && (await this.lost())) return this.paint(quick);
    this.tell({ kind: "error", error: error.message });
  }

  /** Until the server answers again; then all goes on. */
  async wait() {
    if (this.away) return;
    this.away = true;
    this.tell({ kind: "away" });
    while (this.away) {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
      try {
        await studio();
        this.away = false;
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
      }
    }
    this.tell({ kind: "back" });
    this.paint(false);
  }
}
