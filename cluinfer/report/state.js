// What is chosen, how to say numbers, how to make elements.

const state = {
  picture: 0,
  view: 0,
  layers: {}, // the layer chosen in each view
  head: 0,
  label: null, // the class that evidence is for
  lit: null, // the cluster under the pointer
  pinned: null, // the one that stays lit
  all: false, // whether every cluster is listed
};
let scene = null; // the chosen picture and its arrays
let panels = []; // what is to be seen of it

const $ = (id) => document.getElementById(id);
const picture = () => REPORT.pictures[state.picture];
const view = () => REPORT.views[state.view];
const layer = () => view().layers[state.layers[state.view] ?? 0];
const compared = () => REPORT.engines.length > 1;
const lit = () => state.pinned ?? state.lit;

function choose(changes) {
  Object.assign(state, changes, { lit: null, pinned: null });
}

const MINUS = "\u2212";
const count = (number) => number.toLocaleString("en-US");
const several = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
const signed = (value) => `${value < 0 ? MINUS : "+"}${Math.abs(value).toPrecision(3)}`;
const plain = (value) => `${value < 0 ? MINUS : ""}${Number(Math.abs(value).toPrecision(3))}`;
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %`);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function span(text, className = "") {
  return element("span", { className, textContent: text });
}

function barOf(share, className = "") {
  const bar = element("i", { className });
  bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("span", { className: "bar" }, bar);
}

function swatchOf(color) {
  const swatch = span("", "swatch");
  swatch.style.background = `rgb(${color.join(" ")})`;
  return swatch;
}

function rowOf(cell, texts, header = cell) {
  return element("tr", {}, ...texts.map((text, i) => element(i ? cell : header, { textContent: text })));
}

// What lights up when it is pointed at, be it by mouse or by focus. On a touch screen a tap does both; it pins alone.
function lightsUp(target, idOf) {
  target.addEventListener("pointermove", (event) => event.pointerType !== "touch" && light(idOf(event)));
  target.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && light(null));
  target.addEventListener("blur", () => light(null));
}

function light(id) {
  if (state.lit === id) return;
  state.lit = id;
  if (state.pinned === null) showLit();
}

function pin(id) {
  state.pinned = state.pinned === id ? null : id;
  showLit();
}

function release() {
  choose({});
  for (const panel of panels) panel.cursor = null;
  showLit();
}

function showLit() {
  repaint();
  showDetail();
  for (const button of $("ranking").querySelectorAll("button")) {
    button.classList.toggle("lit", Number(button.value) === lit());
    button.setAttribute("aria-pressed", Number(button.value) === state.pinned);
  }
}
