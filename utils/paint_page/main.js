// The page: what belongs to what. Each part is in a file of its own.

import { Board } from "./board.js";
import { fromBase64, png, save, toBase64, zip } from "./files.js";
import { HEIGHT, Labels, WIDTH } from "./labels.js";
import { changeLanguage, inEachLanguage, say, sayFailure, translate } from "./language.js";
import { Painting } from "./painting.js";
import { startPalette } from "./palette.js";
import { Panel } from "./panel.js";
import { exampleLabels, Failure, labelsOf, studio as readStudio } from "./server.js";
import { remember, settings } from "./settings.js";

const byId = (id) => document.getElementById(id);
const SKY = 1;
const TOOLS = ["brush", "eraser", "fill", "line", "horizon", "pick"];

let studio, labels, board, panel, painting;
let picture = null; // the last real one: a JPEG's bytes, with the mask and the name it was painted of
let state = { kind: "waiting" };
let remembered = Promise.resolve(); // masks are packed one after the other, so that the newest is the last

// ------------------------------------------------------------------------------------------------------------ what is shown

function showState() {
  const { kind } = state;
  const busy = ["queued", "painting", "first_look", "looking"].includes(kind) && painting?.asked;
  const parts = {
    painting: () => (state.steps ? `${say("painting")} ${state.step} / ${state.steps}` : say("painting")),
    done: () => `${say("done")} ${state.seconds.toFixed(1)} ${say("seconds")} · ${say("seed")} ${state.seed}`,
    error: () => sayFailure(state.error),
  };
  byId("status").textContent = parts[kind] ? parts[kind]() : say(kind);
  byId("status").classList.toggle("trouble", ["error", "away"].includes(kind));
  byId("progress").style.width = kind === "painting" && state.steps ? `${(100 * state.step) / state.steps}%` : kind === "done" ? "100%" : "0";
  byId("progress").parentElement.classList.toggle("busy", Boolean(busy));
  byId("stop").hidden = !busy;
  byId("paint").hidden = Boolean(busy);
  document.body.dataset.state = kind;
}

function tell(next) {
  state = next;
  showState();
}

function showPicture(bytes, quality, { mask, name }) {
  if (quality === "final") picture = { bytes, mask: fromBase64(mask), name };
  const address = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  for (const image of [byId("picture"), byId("under")]) {
    const before = image.src;
    image.src = address;
    image.dataset.quality = quality;
    image.hidden = false;
    if (before.startsWith("blob:") && image.id === "under") URL.revokeObjectURL(before);
  }
  byId("save-picture").disabled = byId("save-pair").disabled = picture === null;
}

function showSettings() {
  byId("workspace").dataset.view = settings.view;
  byId("mask").style.opacity = settings.opacity / 100;
  byId("mask").dataset.tool = settings.tool;
  byId("opacity").value = settings.opacity;
  byId("size").value = settings.size;
  byId("size-shown").textContent = settings.size;
  byId("live").checked = settings.live;
  for (const tool of TOOLS) byId(`tool-${tool}`).setAttribute("aria-pressed", tool === settings.tool);
  for (const view of ["side", "full"]) byId(`view-${view}`).setAttribute("aria-pressed", view === settings.view);
  byId("undo").disabled = !labels.past.length;
  byId("redo").disabled = !labels.future.length;
  const dark = settings.theme === "dark" || (settings.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function change(changes) {
  remember(changes);
  showSettings();
}

// ---------------------------------------------------------------------------------------------------------- what is painted

async function maskFile() {
  return png(labels.map, WIDTH, HEIGHT);
}

async function request(quick) {
  return { mask: toBase64(await maskFile()), quick, ...panel.wishes() };
}

function wanted() {
  if (settings.live) painting.soon();
}

function drawn() {
  showSettings();
  wanted();
  remembered = remembered.then(async () => remember({ mask: toBase64(await maskFile()) }));
}

function stop() {
  painting.stop();
  tell({ kind: "stopped" });
}

function trouble(error) {
  if (!(error instanceof Failure)) throw error;
  if (error.status === 0) painting.wait();
  else tell({ kind: "error", error });
}

// ------------------------------------------------------------------------------------------------------------ what is opened

function open(map) {
  board.giveUp();
  labels.replace(map);
  board.changed(true);
}

async function openExample(index) {
  const example = studio.examples[index];
  const map = await exampleLabels(index);
  panel.setName(example.name, () => {});
  panel.choosePhoto(example.reference);
  open(map);
}

async function openMask(file) {
  open(await labelsOf(file));
  panel.setName(file.name.replace(/\.[^.]*$/, ""), () => {});
}

async function openPhoto(file) {
  await panel.takePhoto(file);
  const mask = await painting.look(file);
  if (!mask) return;
  open(await labelsOf(new Blob([mask])));
  tell({ kind: "waiting" });
}

function fromDialog(action) {
  byId("opener").close();
  action().catch(trouble);
}

function startOpener() {
  const thumbnails = studio.examples.map((example, index) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    Object.assign(image, { src: `examples/${index}.png`, alt: example.name, loading: "lazy" });
    button.type = "button";
    button.title = example.name;
    button.append(image);
    button.addEventListener("click", () => fromDialog(() => openExample(index)));
    return button;
  });
  byId("examples").replaceChildren(...thumbnails);
  for (const [id, action] of [["mask-file", openMask], ["photo-file", openPhoto]]) {
    byId(`open-${id}`).addEventListener("click", () => byId(id).click());
    byId(id).addEventListener("change", () => {
      const [file] = byId(id).files;
      byId(id).value = "";
      if (file) fromDialog(() => action(file));
    });
  }
  byId("open-photo-file").disabled = !studio.judge;
  byId("no-judge").hidden = studio.judge;
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) (file.type === "image/png" && event.target.closest("#surface") ? openMask(file) : panel.takePhoto(file)).catch(trouble);
  });
}

// ------------------------------------------------------------------------------------------------------------- what is saved

async function saveMask() {
  save(await maskFile(), `${settings.name}.png`, "image/png");
}

function savePicture() {
  if (picture) save(picture.bytes, `${picture.name}.jpg`, "image/jpeg");
}

function savePair() {
  const { bytes, mask, name } = picture;
  save(zip({ [`${name}.png`]: mask, [`${name}.jpg`]: bytes }), `${name}.zip`, "application/zip");
}

// -------------------------------------------------------------------------------------------------------------- what is done

const ACTIONS = {
  undo: () => labels.undo() && board.changed(true),
  redo: () => labels.redo() && board.changed(true),
  clear: () => board.change(() => labels.map.fill(settings.label)),
  open: () => byId("opener").showModal(),
  help: () => byId("keys").showModal(),
  more: () => byId("all-options").showModal(),
  paint: () => painting.paint(false),
  stop: () => stop(),
  "save-mask": saveMask,
  "save-picture": savePicture,
  "save-pair": savePair,
  language: changeLanguage,
  theme: () => change({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" }),
  "view-side": () => change({ view: "side" }),
  "view-full": () => change({ view: "full" }),
};

const KEYS = {
  b: () => change({ tool: "brush" }), e: () => change({ tool: "eraser" }), g: () => change({ tool: "fill" }),
  l: () => change({ tool: "line" }), h: () => change({ tool: "horizon" }), i: () => change({ tool: "pick" }),
  "[": () => board.resize(-1), "]": () => board.resize(1), "?": ACTIONS.help, o: ACTIONS.open, p: ACTIONS.paint, s: savePicture, m: saveMask,
  n: () => panel.another(), v: () => change({ view: settings.view === "side" ? "full" : "side" }), Escape: () => painting.asked && stop(),
};

function pressed(event) {
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), textarea, select") || document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const command = event.ctrlKey || event.metaKey;
  const action = command ? { z: event.shiftKey ? ACTIONS.redo : ACTIONS.undo, y: ACTIONS.redo }[key] : !event.altKey && KEYS[key];
  if (!action) return;
  event.preventDefault();
  action();
}

function startActions() {
  for (const [id, action] of Object.entries(ACTIONS)) byId(id).addEventListener("click", action);
  for (const tool of TOOLS) byId(`tool-${tool}`).addEventListener("click", () => change({ tool }));
  for (const [id, name] of [["size", "size"], ["opacity", "opacity"]]) {
    byId(id).addEventListener("input", () => change({ [name]: Number(byId(id).value) }));
  }
  byId("live").addEventListener("change", () => {
    change({ live: byId("live").checked });
    wanted();
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => (event.target === dialog || event.target.closest("[data-close]")) && dialog.close());
  }
  addEventListener("keydown", pressed);
  addEventListener("trouble", (event) => trouble(event.detail));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showSettings);
}

async function start() {
  labels = new Labels(SKY);
  showSettings();
  translate();
  studio = await readStudio();
  startPalette(studio.classes);
  painting = new Painting({ quickly: studio.in_steps, request, lost: () => panel.sendAgain(), tell, show: showPicture });
  board = new Board(labels, studio.classes, { drawing: () => settings.live && painting.drawing(), drawn, sized: showSettings });
  panel = new Panel(studio, wanted);
  startOpener();
  startActions();
  inEachLanguage(() => {
    byId("run").textContent = studio.shipped ? say("shipped") : studio.run;
    byId("keys-shown").replaceChildren(...say("keys").split("|").map((line) => Object.assign(document.createElement("p"), { textContent: line })));
    showState();
  });
  if (settings.mask) open(await labelsOf(new Blob([fromBase64(settings.mask)])));
  else if (studio.examples.length) await openExample(0);
  document.body.dataset.ready = "";
}

start().catch((error) => {
  byId("status").textContent = error.message || say("away");
  throw error;
});
