// When pictures are asked for: a quick one while the mask is being drawn, the real one when the hand rests. The newest wishes win.

import { fromBase64 } from "./files.js";
import { Failure, judged, painted, studio } from "./server.js";

const REST = 350; // milliseconds without a change, after which the real picture is painted
const RETRY = 1500; // between two looks whether the server is back

export class Painting {
  /**
   * `request(quick)` makes what the server is asked; `lost()` is called where the server has forgotten the photo it named;
   * `tell(state)` is told {kind, …} of all that happens; `show(bytes, quality, request)` shows a JPEG of what the server was asked:
   * "preview", "quick" or "final".
   */
  constructor({ quickly, request, lost, tell, show }) {
    Object.assign(this, { quickly, request, lost, tell, show });
    this.asked = null; // the AbortController of what the server is doing
    this.quick = false; // whether that is a quick one
    this.stale = false; // whether the mask has changed since a quick one was asked for
    this.timer = 0; // that of the real picture, while the hand rests; 0 for none
    this.away = false;
  }

  /** The mask is being changed. */
  drawing() {
    this.wakes();
    if (!this.quickly || this.away) return;
    if (this.asked && this.quick) this.stale = true;
    else this.paint(true);
  }

  /** Something has changed, and may change again soon. */
  soon() {
    this.wakes();
    this.timer = setTimeout(() => this.paint(false), REST);
  }

  /** The hand does not rest any more. */
  wakes() {
    clearTimeout(this.timer);
    this.timer = 0;
  }

  stop() {
    this.wakes();
    this.asked?.abort();
    this.asked = null;
  }

  async paint(quick) {
    const own = this.begin(quick);
    const request = await this.request(quick);
    if (this.asked !== own) return;
    this.tell({ kind: quick ? "first_look" : "queued" });
    let last;
    try {
      last = await this.follow(own, painted(request, own.signal), (event) => this.take(event, quick, request));
    } catch (error) {
      return this.failed(error, quick);
    }
    if (!last) return;
    if (quick && this.stale && !this.timer) this.paint(true); // with one, the real picture comes in a moment, and would be given up
    else if (last.event === "superseded") this.tell({ kind: "superseded" });
    else this.tell({ kind: quick ? "first_look" : "done", seconds: last.seconds, seed: request.seed });
  }

  take(event, quick, request) {
    if (event.event === "begun" && !quick) this.tell({ kind: "painting", step: 0, steps: 0 });
    if (event.event === "step" && !quick) this.tell({ kind: "painting", step: event.step, steps: event.steps });
    if (event.picture) this.show(fromBase64(event.picture), event.event === "step" ? "preview" : quick ? "quick" : "final", request);
  }

  /** The mask that the judge sees in a photo, a PNG; null where something else was wanted meanwhile. Raises Failure. */
  async look(photo) {
    const own = this.begin(false);
    this.tell({ kind: "looking" });
    const last = await this.follow(own, judged(photo, own.signal), () => {});
    if (last?.event === "superseded") this.tell({ kind: "superseded" });
    return last?.mask ? fromBase64(last.mask) : null;
  }

  /** What is asked for from here on takes the place of what was. */
  begin(quick) {
    this.stop();
    [this.asked, this.quick, this.stale] = [new AbortController(), quick, false];
    return this.asked;
  }

  /** Hands events to `take` as they come; returns the last, or null where something else was wanted meanwhile. Raises Failure. */
  async follow(own, events, take) {
    const current = () => this.asked === own;
    let last = null;
    try {
      for await (last of events) {
        if (!current()) return null;
        this.away = false;
        take(last);
      }
      return current() ? last : null;
    } catch (error) {
      if (!current()) return null;
      throw error;
    } finally {
      if (current()) this.asked = null;
    }
  }

  async failed(error, quick) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 0) return this.wait();
    if (error.status === 410) {
      const own = this.begin(quick);
      const again = await this.lost().catch((failure) => failure);
      if (this.asked !== own) return; // somebody draws on, or has stopped it
      this.asked = null;
      if (again instanceof Error) return this.failed(again, quick);
      if (again) return this.paint(quick);
    }
    this.tell({ kind: "error", error });
  }

  /** Until the server answers again; then all goes on. */
  async wait() {
    this.tell({ kind: "away" });
    if (this.away) return;
    this.away = true;
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
