// What the page remembers until the next visit. A browser that keeps nothing (a private window) is no reason to fail.

const KEY = "shanshui";

export const settings = {
  language: navigator.language.startsWith("zh") ? "zh" : "en",
  theme: "auto", // light, dark, or as the system has it
  view: "side", // by side, or full
  live: true, // paint while drawing
  tool: "brush",
  label: 0,
  size: 28,
  opacity: 100,
  name: "shanshui",
  seed: null, // null: what the server was started with
  reference: null, // the name of one of the server's photos
  options: {}, // those that differ from the server's
  adapters: {}, // weights, by name, that differ likewise
  color_match: null,
  mask: null, // PNG in base64
};

try {
  const kept = JSON.parse(localStorage.getItem(KEY) || "{}");
  for (const name of Object.keys(settings)) if (name in kept) settings[name] = kept[name];
} catch {
  // nothing was kept, or something else
}

let due = 0;

export function remember(changes = {}) {
  Object.assign(settings, changes);
  clearTimeout(due);
  due = setTimeout(keep, 300);
}

function keep() {
  clearTimeout(due);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // full, or forbidden
  }
}

addEventListener("pagehide", keep);
