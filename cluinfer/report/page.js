// The page: choosers, panels, facts. One state; every choice changes it and shows what follows from it.

const $ = (id) => document.getElementById(id);
const RANKED = 8;
const state = { picture: 0, view: 0, layers: {}, head: 0, label: null, lit: null, pinned: null, all: false };
let scene = null; // what is loaded for the chosen picture
let panels = [];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 2 : 1)} %`);
const width = (share) => `${100 * Math.min(1, Math.max(0, share))}%`;
const count = (number) => number.toLocaleString("en-US");
const several = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toPrecision(3)}`;
const plain = (value) => `${value < 0 ? "−" : ""}${Number(Math.abs(value).toPrecision(3))}`;

const picture = () => REPORT.pictures[state.picture];
const view = () => REPORT.views[state.view];
const layer = () => view().layers[state.layers[state.view] ?? 0];
const compared = () => REPORT.engines.length > 1;

// --- choosers

// Radio buttons in a fieldset: arrow keys come with them. `show` gives what is seen of a choice.
function choices(field, group, items, chosen, show, choose) {
  for (const old of field.querySelectorAll(".choice")) old.remove();
  field.hidden = items.length < 2;
  if (field.hidden) return;
  items.forEach((item, i) => {
    const radio = element("input", { type: "radio", name: group, checked: i === chosen });
    radio.addEventListener("change", () => choose(i));
    const seen = element("span", {}, ...show(item, i));
    field.append(element("label", { className: "choice" }, radio, seen));
  });
}

function unlit(changes) {
  Object.assign(state, changes, { lit: null, pinned: null });
}

function showPictures() {
  const show = (each) => {
    const image = element("img", { src: each.image, alt: each.name, title: each.name });
    return each.moved ? [image, element("i", { className: "flag", title: "another top class" })] : [image];
  };
  choices($("pictures"), "picture", REPORT.pictures, state.picture, show, (i) => {
    unlit({ picture: i });
    load();
  });
}

function showViews() {
  choices($("views"), "view", REPORT.views, state.view, (each) => [each.label], (i) => {
    unlit({ view: i, head: 0 });
    showLayers();
  });
  showLayers();
}

function showLayers() {
  choices($("layers"), "layer", view().layers, state.layers[state.view] ?? 0, (each) => [each.label], (i) => {
    state.layers[state.view] = i;
    unlit({ head: 0 });
    showHeads();
  });
  showHeads();
}

function showHeads() {
  const array = view().kind === "clusters" ? scene.runs[0].get(layer().array) : null;
  const show = (_, i) => {
    const small = cells(part(array, i), (id) => [...colorOf(id), 1]);
    small.setAttribute("role", "img");
    small.setAttribute("aria-label", `Head ${i}`);
    return [small];
  };
  choices($("heads"), "head", Array.from({ length: array?.shape[0] ?? 0 }), state.head, show, (i) => {
    unlit({ head: i });
    showPanels();
  });
  showPanels();
}

// --- panels

// What is to be seen, one panel each: {title, remark, map, color, ...}, see `paint`.
function contents() {
  const { kind } = view();
  const titled = (run) => (compared() ? REPORT.engines[run] : "");
  if (kind === "clusters") {
    return scene.runs.flatMap((arrays, run) => {
      const array = arrays.get(layer().array);
      if (!array) return [];
      const other = scene.runs[1 - run]?.get(layer().array);
      const changed = compared() && other && $("marks").querySelector("input").checked ? part(other, state.head) : null;
      return [{ run, title: titled(run), remark: "", map: part(array, state.head), color: colorOf, edges: true, changed }];
    });
  }
  if (kind === "evidence") {
    const known = scene.runs.map((arrays, run) => evidence(arrays, run));
    const heat = heatOf(known.flatMap((each) => (each ? [...each.values] : [])));
    return known.flatMap((each, run) => {
      if (!each) return [];
      const map = tokens(scene.runs[run], each);
      const value = (id) => each.values[id] ?? 0;
      const total = each.values.reduce((a, b) => a + b, 0);
      return [{
        run, title: titled(run), remark: `sum ${signed(total)}`, map, columns: each.columns, value, heat, edges: true,
        color: (id) => heat.color(value(id)), strength: (id) => heat.strength(value(id)),
      }];
    });
  }
  if (kind === "attention") {
    return scene.runs.flatMap((arrays, run) => {
      const array = arrays.get(layer().array);
      return (picture().runs[run].attention?.classes ?? []).map((label, i) => {
        const values = part(array, i);
        const heat = heatOf(values.values);
        const value = (id) => values.values[id];
        return {
          run, title: [titled(run), label.name].filter(Boolean).join(": "), remark: label.remark,
          map: positions(values.rows, values.columns), columns: values.columns, value, heat, smooth: true,
          color: (id) => heat.color(value(id)), strength: (id) => heat.strength(value(id)),
        };
      });
    });
  }
  return [{ run: 0, title: "", remark: "", map: null }];
}

// The evidence [rows, columns] of the chosen class in a run, if it has that class.
function evidence(arrays, run) {
  const found = (picture().runs[run].evidence ?? []).findIndex((each) => each.index === state.label);
  return found < 0 ? null : part(arrays.get("evidence"), found);
}

// Which final token each pixel belongs to: composed from the pools where they are known, else by place.
function tokens(arrays, { rows, columns }) {
  const segments = arrays.get("segments");
  return segments ? part(segments, 0) : positions(rows, columns);
}

function showPanels() {
  panels = contents().map((each) => ({ ...each, picture: scene.picture, grey: scene.grey }));
  const field = $("panels");
  field.replaceChildren();
  for (const panel of panels) {
    panel.canvas = element("canvas", { className: panel.map ? "live" : "" });
    panel.canvas.style.aspectRatio = `${scene.picture.width} / ${scene.picture.height}`;
    panel.canvas.setAttribute("aria-label", [picture().name, view().label, panel.title].filter(Boolean).join(", "));
    panel.canvas.setAttribute("role", panel.map ? "application" : "img");
    if (panel.map) listen(panel);
    const caption = panel.title || panel.remark
      ? [element("figcaption", {}, element("span", { textContent: panel.title }), element("span", { textContent: panel.remark }))]
      : [];
    field.append(element("figure", {}, ...caption, panel.canvas));
  }
  if (!panels.length) field.append(element("p", { className: "notice remark", textContent: "Nothing is known of this class here." }));
  showScale();
  explain();
  fit();
  showSeparability();
  showDetail();
  showRanking();
}

function showScale() {
  const heat = panels[0]?.heat;
  $("scale").hidden = !heat;
  $("opacity").hidden = !panels[0]?.map;
  $("marks").hidden = !(compared() && view().kind === "clusters");
  if (!heat) return;
  const [low, bar, high] = $("scale").children;
  low.textContent = plain(heat.low);
  high.textContent = view().kind === "attention" ? "strongest" : plain(heat.high);
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...heat.table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  bar.getContext("2d").putImageData(image, 0, 0);
}

function explain() {
  const { kind, note } = view();
  const said = [note];
  if (kind === "clusters") {
    const { map } = panels[0];
    const { array, about } = layer();
    const head = scene.runs[0].get(array).shape[0] > 1 ? `, head ${state.head}` : "";
    said.unshift(`${about}${head}: ${count(map.rows)} × ${several(map.columns, "point")} in ${several(sizes(map).size, "cluster")}.`);
    const changed = picture().changes?.[array]?.[state.head];
    const all = map.values.length;
    if (changed !== undefined) said.push(`${count(changed)} of ${several(all, "point")} changed (${percent(changed / all)}).`);
  }
  $("explained").textContent = [...said, picture().note].filter(Boolean).join(" ");
}

// Canvases have as many pixels as the screen gives them.
function fit() {
  for (const { canvas, picture } of panels) {
    const width = Math.round(Math.min(canvas.clientWidth || 560, 1200) * Math.min(window.devicePixelRatio || 1, 2));
    const height = Math.max(1, Math.round((width * picture.height) / picture.width));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  }
  repaint();
}

let asked = false;
function repaint() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const opacity = $("opacity").querySelector("input").value / 100;
    for (const panel of panels) paint(panel, { opacity, lit: state.pinned ?? state.lit });
  });
}

// --- lighting up

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
  Object.assign(state, { lit: null, pinned: null });
  for (const panel of panels) panel.cursor = null;
  showLit();
}

function showLit() {
  repaint();
  showDetail();
  const lit = state.pinned ?? state.lit;
  for (const button of $("ranking").querySelectorAll("button")) {
    button.classList.toggle("lit", Number(button.value) === lit);
    button.setAttribute("aria-pressed", Number(button.value) === state.pinned);
  }
}

function listen(panel) {
  const { canvas, map } = panel;
  canvas.tabIndex = 0;
  canvas.setAttribute("aria-describedby", "keys");
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * map.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * map.columns);
    const inside = row >= 0 && column >= 0 && row < map.rows && column < map.columns;
    return inside ? { row, column } : null;
  };
  const idAt = (place) => (place ? map.values[place.row * map.columns + place.column] : null);
  canvas.addEventListener("pointermove", (event) => event.pointerType !== "touch" && light(idAt(under(event))));
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && light(null));
  canvas.addEventListener("click", (event) => {
    const place = under(event);
    if (!place) return;
    panel.cursor = place;
    pin(idAt(place));
  });
  canvas.addEventListener("blur", () => light(null));
  canvas.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Escape") release();
    else if (event.key === "Enter" || event.key === " ") state.pinned === null && state.lit === null ? move(0, 0) : pin(state.pinned ?? state.lit);
    else if (down || right) move(down, right);
    else return;
    event.preventDefault();
  });
  // To the next cluster in a direction; the first key starts in the middle.
  function move(down, right) {
    const start = panel.cursor;
    let place = start ?? { row: Math.floor(map.rows / 2), column: Math.floor(map.columns / 2) };
    while (start && idAt(place) === idAt(start)) {
      const next = { row: place.row + down, column: place.column + right };
      if (next.row < 0 || next.column < 0 || next.row >= map.rows || next.column >= map.columns) break;
      place = next;
    }
    panel.cursor = place;
    state.pinned = null;
    state.lit = undefined;
    light(idAt(place));
  }
}

// --- facts

function showClasses() {
  const list = $("top");
  const { classes, runs } = picture();
  $("no-classes").hidden = classes.length > 0;
  $("no-classes").textContent = "This model is a backbone: it gives features, not classes.";
  const choosable = new Set(runs.flatMap((run) => (run.evidence ?? []).map((each) => each.index)));
  list.replaceChildren(...classes.map((each) => {
    const inner = element("span", { className: "row" },
      element("span", { className: "label", textContent: each.name }),
      element("span", { textContent: each.probabilities.map(percent).join(" · ") }),
      element("span", { className: "bars" }, ...each.probabilities.map((share, run) => {
        const bar = element("i", { className: run ? "other" : "" });
        bar.style.width = width(share ?? 0);
        return element("span", { className: "bar" }, bar);
      })));
    if (!choosable.has(each.index)) return element("li", {}, inner);
    const radio = element("input", { type: "radio", name: "label", value: each.index, checked: each.index === state.label });
    radio.addEventListener("change", () => {
      state.label = each.index;
      if (view().kind === "evidence") showPanels();
      showDetail();
    });
    return element("li", {}, element("label", { className: "choice" }, radio, inner));
  }));
  const said = [];
  if (compared() && classes.length) {
    said.push(element("span", { className: "key" }), REPORT.engines[0], "   ", element("span", { className: "key other" }), REPORT.engines[1]);
  }
  if (choosable.size) said.push(...(said.length ? [element("br")] : []), "Choose a class to see the evidence for it; ≈ where a position's share is spread over its pixels.");
  $("class-note").replaceChildren(...said);
  $("class-note").hidden = !said.length;
}

function showSeparability() {
  const known = view().kind === "attention" ? picture().runs.map((run) => run.attention?.separability[layer().array] ?? null) : [];
  $("separability").hidden = known.every((value) => value === null);
  $("separabilities").replaceChildren(...known.map((value, run) => {
    const bar = element("i", { className: run ? "other" : "" });
    bar.style.width = width(value ?? 0);
    const engine = compared() ? element("span", { className: "quiet", textContent: ` ${REPORT.engines[run]}` }) : "";
    return element("div", {}, element("p", { className: "number" }, value === null ? "–" : value.toFixed(2), engine), element("span", { className: "bar" }, bar));
  }));
}

function showDetail() {
  const lit = state.pinned ?? state.lit;
  const [panel] = panels;
  $("cluster").hidden = !panel?.map;
  if (!panel?.map) return;
  const word = { clusters: "Cluster", evidence: "Token", attention: "Position" }[view().kind];
  $("cluster-title").textContent = word;
  // With nothing lit the same rows stay, empty: what lies below must not move under the pointer.
  const head = element("div", { className: "head" });
  if (lit === null) {
    head.append(element("span", { className: "quiet", textContent: `Point at a ${word.toLowerCase()}, click to pin it` }));
  } else {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `rgb(${panel.color(lit).join(" ")})`;
    head.append(swatch, `${word} ${lit}`);
    if (panel.columns) {
      const place = `row ${Math.floor(lit / panel.columns)}, column ${lit % panel.columns}`;
      head.append(element("span", { className: "quiet", textContent: place }));
    }
    if (state.pinned !== null) head.append(element("span", { className: "pin", textContent: "pinned" }));
  }
  const row = ([name, ...texts], cell) => {
    const shown = texts.map((text) => element(cell, { textContent: lit === null && cell === "td" ? "–" : text }));
    return element("tr", {}, element("th", { scope: "row", textContent: name }), ...shown);
  };
  const titles = panels.length > 1 ? [row(["", ...panels.map((each) => each.title)], "th")] : [];
  $("detail").replaceChildren(head, element("table", {}, ...titles, ...facts(lit).map((fact) => row(fact, "td"))));
}

// What is known of a cluster, token or position: a name and, for each panel, a text.
function facts(id) {
  const { kind } = view();
  const each = (tell) => panels.map((panel) => tell(panel, scene.runs[panel.run]));
  const known = [];
  if (kind === "attention") known.push(["Attention", ...each((panel) => plain(panel.value(id)))]);
  if (kind === "clusters" || (kind === "evidence" && scene.runs[0].has("segments"))) {
    const shares = each(({ map }) => (sizes(map).get(id) ?? 0) / map.values.length);
    const numbers = each(({ map }) => count(sizes(map).get(id) ?? 0));
    known.push([kind === "clusters" ? "Points" : "Pixels", ...numbers], ["Share of the picture", ...shares.map(percent)]);
  }
  if (kind === "evidence") known.push([`Evidence for ${nameOf(state.label)}`, ...each((panel) => signed(panel.value(id)))]);
  if (kind === "clusters" && state.label !== null) {
    known.push([`Evidence for ${nameOf(state.label)}`, ...each((panel) => evidenceAt(panel, id) ?? "–")]);
  }
  if (kind === "clusters" && panels.length > 1 && panels[0].map.values.length === panels[1].map.values.length) {
    const [here, there] = panels.map((panel) => panel.map.values);
    const only = (a, b) => count(a.reduce((sum, value, i) => sum + (value === id && b[i] !== id), 0));
    known.push(["Only here", only(here, there), only(there, here)]);
  }
  return known;
}

const nameOf = (label) => picture().runs.flatMap((run) => run.evidence ?? []).find((each) => each.index === label)?.name ?? "";

// The evidence of a cluster for the chosen class; about that where it had to be spread over pixels.
function evidenceAt(panel, id) {
  const arrays = scene.runs[panel.run];
  const shares = arrays.has("evidence") ? evidence(arrays, panel.run) : null;
  if (!shares) return null;
  const exact = panel.map.rows === shares.rows && panel.map.columns === shares.columns;
  panel.sums ??= new Map();
  if (!panel.sums.has(state.label)) panel.sums.set(state.label, evidenceOf(panel.map, shares, tokens(arrays, shares)));
  return `${exact ? "" : "≈ "}${signed(panel.sums.get(state.label).get(id) ?? 0)}`;
}

function showRanking() {
  const [panel] = panels;
  const { kind } = view();
  $("largest").hidden = !panel?.map || kind === "attention";
  if ($("largest").hidden) return;
  const total = panel.map.values.length;
  const rank = kind === "evidence" ? (id) => Math.abs(panel.value(id)) : (id, size) => size;
  const known = [...sizes(panel.map)].filter(([id]) => id >= 0).map(([id, size]) => ({ id, size, rank: rank(id, size) }));
  known.sort((a, b) => b.rank - a.rank || a.id - b.id);
  const [first] = known;
  $("largest-title").textContent = kind === "evidence" ? `Strongest evidence for ${nameOf(state.label)}` : "Largest clusters";
  $("ranking").replaceChildren(...known.slice(0, state.all ? known.length : RANKED).map(({ id, size, rank }) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `rgb(${panel.color(id).join(" ")})`;
    const bar = element("i");
    bar.style.width = width(rank / (first.rank || 1));
    const button = element("button", { type: "button", value: id }, swatch, element("span", { textContent: id }),
      element("span", { className: "bar" }, bar),
      element("span", { className: "share", textContent: kind === "evidence" ? signed(panel.value(id)) : percent(size / total) }));
    button.setAttribute("aria-pressed", state.pinned === id);
    button.setAttribute("aria-label", `${kind === "evidence" ? "Token" : "Cluster"} ${id}`);
    button.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && light(id));
    button.addEventListener("pointerleave", () => light(null));
    button.addEventListener("focus", () => light(id));
    button.addEventListener("blur", () => light(null));
    button.addEventListener("click", () => pin(id));
    return element("li", {}, button);
  }));
  $("more").hidden = known.length <= RANKED;
  $("more").textContent = state.all ? "Show fewer" : `Show all ${count(known.length)}`;
}

// --- the page as a whole

async function load() {
  const wanted = state.picture;
  const chosen = picture();
  const image = new Image();
  image.src = chosen.image;
  chosen.unpacked ??= Promise.all(chosen.runs.map(unpack));
  const [runs] = await Promise.all([chosen.unpacked, image.decode()]);
  if (state.picture !== wanted) return; // another was chosen meanwhile
  scene = { runs, picture: image, grey: greyOf(image) };
  const known = chosen.runs.flatMap((run) => (run.evidence ?? []).map((each) => each.index));
  if (!known.includes(state.label)) state.label = known[0] ?? null;
  const [best] = chosen.classes;
  const said = best ? element("span", { className: "quiet", textContent: `  ${best.name}, ${percent(best.probabilities[0])}` }) : "";
  $("name").replaceChildren(chosen.name, said);
  showClasses();
  showViews();
}

function showComparison() {
  const held = REPORT.comparison;
  $("comparison").hidden = !held;
  if (!held) return;
  $("verdict").textContent = held.verdict;
  const row = (cell, texts) => element("tr", {}, ...texts.map((text) => element(cell, { textContent: text })));
  $("by-layer").replaceChildren(
    element("thead", {}, row("th", ["Layer", "Points", "Changed", "Same"])),
    element("tbody", {}, ...held.layers.map(({ name, points, changed }) => row("td", [name, count(points), count(changed), percent(1 - changed / points)]))),
  );
  $("by-layer").closest("details").hidden = !held.layers.length;
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  $("theme").textContent = isDark() ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
}

function start() {
  $("about").textContent = REPORT.about;
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
  showComparison();
  if (!REPORT.pictures.length) {
    $("empty").hidden = false;
    $("empty").textContent = "No pictures were given, so there is nothing to show.";
    $("keys").hidden = true;
    return;
  }
  $("main").hidden = false;
  state.view = REPORT.first;
  $("opacity").addEventListener("input", repaint);
  $("marks").addEventListener("change", showPanels);
  $("more").addEventListener("click", () => {
    state.all = !state.all;
    showRanking();
  });
  new ResizeObserver(fit).observe($("panels"));
  document.addEventListener("keydown", (event) => event.key === "Escape" && release());
  showPictures();
  load();
}

start();
