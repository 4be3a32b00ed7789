// The 29 classes to paint with.

import { className, inEachLanguage, say } from "./language.js";
import { remember, settings } from "./settings.js";

const list = document.getElementById("classes");
const search = document.getElementById("search");
let buttons = [];

export function color(one) {
  return `rgb(${one.color.join(" ")})`;
}

export function startPalette(classes) {
  settings.label = Math.min(Math.max(0, settings.label | 0), classes.length - 1);
  const nothing = document.createElement("p");
  nothing.className = "hint";
  buttons = classes.map((one, label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "class";
    button.setAttribute("role", "radio");
    button.dataset.label = label;
    const swatch = document.createElement("i");
    swatch.style.background = color(one);
    button.append(swatch, document.createElement("span"), document.createElement("small"));
    button.addEventListener("click", () => choose(label));
    return button;
  });
  list.replaceChildren(...buttons, nothing);
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const [label, button] of buttons.entries()) {
      button.hidden = !`${label} ${classes[label].en} ${classes[label].zh}`.includes(wanted);
    }
    nothing.hidden = buttons.some((button) => !button.hidden);
  };
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    const first = buttons.find((button) => !button.hidden);
    if (event.key === "Enter" && first) choose(Number(first.dataset.label));
    if (event.key === "Escape") {
      search.value = "";
      search.blur();
      filter();
    }
  });
  list.addEventListener("keydown", (event) => {
    const move = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const shown = buttons.filter((button) => !button.hidden);
    const at = shown.indexOf(document.activeElement);
    if (!move || at < 0) return;
    event.preventDefault();
    const next = shown[(at + move + shown.length) % shown.length];
    choose(Number(next.dataset.label));
    next.focus();
  });
  inEachLanguage(() => {
    for (const [label, button] of buttons.entries()) {
      button.children[1].textContent = className(classes[label]);
      button.children[2].textContent = settings.language === "zh" ? classes[label].en : classes[label].zh;
      button.title = `${label} ${classes[label].en} ${classes[label].zh}`;
    }
    nothing.textContent = say("nothing_found");
  });
  filter();
  choose(settings.label);
}

export function choose(label) {
  remember({ label });
  for (const [other, button] of buttons.entries()) {
    button.setAttribute("aria-checked", other === label);
    button.tabIndex = other === label ? 0 : -1;
  }
  const top = buttons[label].offsetTop - list.offsetTop;
  if (top < list.scrollTop || top + buttons[label].offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 2;
}
