// Below the pictures: the photo whose light is taken, words, and what the painter can be told.

import { inEachLanguage, say, sayOption } from "./language.js";
import { sendPhoto } from "./server.js";
import { remember, settings } from "./settings.js";

const FIRST = ["prompt", "guidance", "ref_guidance", "control_weight", "style_noise", "steps"]; // the others are under "more"
const SLIDERS = {
  steps: [1, 60, 1],
  guidance: [1, 10, 0.1],
  ref_guidance: [1, 6, 0.1],
  text_guidance: [1, 12, 0.1],
  control_weight: [0, 2, 0.05],
  style_noise: [0, 2, 0.05],
}; // from, to, step
const photos = document.getElementById("photos");
const seed = document.getElementById("seed");
const name = document.getElementById("name");

export class Panel {
  /** `changed()` is called whenever another picture is wanted. */
  constructor(studio, changed) {
    Object.assign(this, { studio, changed });
    this.own = null; // a photo of one's own: {file, id, address}
    this.chosen = Math.max(0, studio.references.indexOf(settings.reference));
    this.startPhotos();
    this.startSeed();
    inEachLanguage(() => this.showOptions());
    document.getElementById("defaults").addEventListener("click", () => {
      remember({ options: {}, adapters: {}, color_match: null });
      this.showOptions();
      changed();
    });
  }

  // --------------------------------------------------------------------------------------------------------- references

  startPhotos() {
    const thumbnails = this.studio.references.map((called, index) => {
      const button = photoButton(`references/${index}.jpg`, called);
      button.addEventListener("click", () => this.choosePhoto(index));
      return button;
    });
    const adder = document.getElementById("own-photo");
    const input = document.getElementById("own-photo-file");
    adder.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      if (input.files[0]) this.takePhoto(input.files[0]).catch((error) => this.failed(error));
      input.value = "";
    });
    photos.replaceChildren(...thumbnails);
    this.markPhoto();
  }

  choosePhoto(index) {
    this.chosen = index;
    remember({ reference: this.studio.references[index] });
    this.markPhoto();
    this.changed();
  }

  /** A photo of one's own becomes the reference. Raises Failure where the server refuses it. */
  async takePhoto(file) {
    const id = await sendPhoto(file);
    if (this.own) {
      URL.revokeObjectURL(this.own.address);
      photos.querySelector(".own").remove();
    }
    this.own = { file, id, address: URL.createObjectURL(file) };
    const button = photoButton(this.own.address, file.name);
    button.classList.add("own");
    button.addEventListener("click", () => {
      this.chosen = "own";
      this.markPhoto();
      this.changed();
    });
    photos.prepend(button);
    button.click();
  }

  /** Sends the photo again that the server has forgotten, as after a restart; says whether there is one. */
  async sendAgain() {
    if (this.chosen !== "own") return false;
    this.own.id = await sendPhoto(this.own.file);
    return true;
  }

  markPhoto() {
    const at = this.chosen === "own" ? photos.querySelector(".own") : photos.querySelectorAll("button:not(.own)")[this.chosen];
    for (const button of photos.children) button.setAttribute("aria-checked", button === at);
    if (at) photos.scrollLeft = at.offsetLeft - photos.offsetLeft - (photos.clientWidth - at.clientWidth) / 2;
  }

  // ------------------------------------------------------------------------------------------------------ seed and name

  startSeed() {
    seed.value = settings.seed ?? this.studio.seed;
    name.value = settings.name;
    seed.addEventListener("change", () => this.setSeed(Number(seed.value)));
    name.addEventListener("change", () => this.setName(name.value));
    document.getElementById("another").addEventListener("click", () => this.another());
  }

  another() {
    this.setSeed(Number(seed.value) + 1);
  }

  setSeed(value) {
    const whole = Number.isSafeInteger(value) && value >= 0 ? value : this.studio.seed;
    seed.value = whole;
    remember({ seed: whole });
    this.changed();
  }

  setName(value, changed = this.changed) {
    const called = value.normalize().replace(/[^\p{L}\p{N}_.\- ]/gu, "").trim().slice(0, 60) || "shanshui";
    if (called === settings.name && name.value === called) return;
    name.value = called;
    remember({ name: called });
    changed();
  }

  // ------------------------------------------------------------------------------------------------------------ options

  /** What the server is asked beside the mask. */
  wishes() {
    return {
      reference: this.chosen === "own" ? this.own.id : this.chosen,
      name: settings.name,
      seed: Number(seed.value),
      options: this.options(),
      adapters: this.studio.adapters.map((adapter) => this.weight(adapter)),
      color_match: this.colorMatch(),
    };
  }

  /** The remembered options that this painter knows. */
  options() {
    const known = new Set(this.studio.options.map((option) => option.name));
    return Object.fromEntries(Object.entries(settings.options).filter(([option]) => known.has(option)));
  }

  /** How much of an adapter is wanted. */
  weight({ name: called, weight }) {
    return settings.adapters[called] ?? weight;
  }

  colorMatch() {
    const { choices, default: usual } = this.studio.color_match;
    return choices.includes(settings.color_match) ? settings.color_match : usual;
  }

  showOptions() {
    const [first, more, words] = ["options", "more-options", "words"].map((id) => document.getElementById(id));
    for (const place of [first, more, words]) place.replaceChildren();
    const options = [...this.studio.options].sort((a, b) => order(a) - order(b));
    for (const option of options) {
      const value = this.options()[option.name] ?? option.default;
      const set = (chosen) => {
        const { [option.name]: _, ...others } = settings.options;
        remember({ options: chosen === option.default ? others : { ...others, [option.name]: chosen } });
        this.changed();
      };
      const text = option.kind === "str" && !option.choices;
      const place = text ? words : first;
      (FIRST.includes(option.name) ? place : more).append(control(option, value, set));
    }
    for (const adapter of this.studio.adapters) {
      first.append(control({ name: adapter.name, kind: "float", help: "", range: [0, 2, 0.05] }, this.weight(adapter), (chosen) => {
        remember({ adapters: { ...settings.adapters, [adapter.name]: chosen } });
        this.changed();
      }));
    }
    const match = { name: "color_match", kind: "str", ...this.studio.color_match };
    more.append(control(match, this.colorMatch(), (chosen) => {
      remember({ color_match: chosen });
      this.changed();
    }));
    words.hidden = !words.children.length;
  }

  failed(error) {
    dispatchEvent(new CustomEvent("trouble", { detail: error }));
  }
}

function order(option) {
  const at = FIRST.indexOf(option.name);
  return at < 0 ? FIRST.length : at;
}

function photoButton(address, called) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = called;
  button.setAttribute("role", "radio");
  const picture = document.createElement("img");
  picture.src = address;
  picture.alt = called;
  picture.loading = "lazy";
  button.append(picture);
  return button;
}

/** A field for an option: a slider, a number, a choice or a text. `set(value)` is called with what it is changed to. */
function control(option, value, set) {
  const [called, help] = sayOption(option);
  const label = document.createElement("label");
  label.className = "option";
  label.title = help || called;
  const text = document.createElement("span");
  text.textContent = called;
  label.append(text);
  if (option.choices) label.append(choice(option, value, set));
  else if (option.kind === "str") label.append(sentence(called, value, set));
  else if (option.range || SLIDERS[option.name]) label.append(...slider(option, value, set));
  else label.append(number(option, value, set));
  return label;
}

function choice(option, value, set) {
  const select = document.createElement("select");
  select.append(...option.choices.map((one) => new Option(one === "" ? say("usual") : one, one, false, one === value)));
  const convert = option.kind === "str" ? String : Number;
  select.addEventListener("change", () => set(convert(select.value)));
  return select;
}

function sentence(called, value, set) {
  const area = document.createElement("input");
  Object.assign(area, { type: "text", maxLength: 1000, value, placeholder: called });
  area.addEventListener("change", () => set(area.value.trim()));
  return area;
}

function number(option, value, set) {
  let valid = value; // the last that was
  const input = document.createElement("input");
  Object.assign(input, { type: "number", step: option.kind === "int" ? 1 : "any", value });
  if (option.least !== null) input.min = option.least;
  if (option.most !== null) input.max = option.most;
  input.addEventListener("change", () => {
    if (!input.value || !input.checkValidity()) input.value = valid;
    valid = Number(input.value);
    set(valid);
  });
  return input;
}

function slider(option, value, set) {
  const [least, most, step] = option.range ?? SLIDERS[option.name];
  const range = document.createElement("input");
  Object.assign(range, { type: "range", min: least, max: Math.max(most, value), step, value });
  const shown = document.createElement("output");
  shown.textContent = value;
  range.addEventListener("input", () => (shown.textContent = range.value));
  range.addEventListener("change", () => set(Number(range.value)));
  return [shown, range];
}
