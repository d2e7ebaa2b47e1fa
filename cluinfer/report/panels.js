// The panels: what is to be seen of the chosen picture, painted, explained, and pointed at.

// One panel each: run, title, remark, and what `paint` wants. `columns` is there where ids are places in rows.
function contents() {
  const runs = scene.runs.map((arrays, run) => ({ arrays, run, title: compared() ? REPORT.engines[run] : "" }));
  const { kind } = view();
  if (kind === "clusters") return runs.flatMap(clusterPanel);
  if (kind === "attention") return runs.flatMap(attentionPanels);
  if (kind === "picture") return [{ run: 0, title: "", remark: "", map: null }];
  const known = runs.map((each) => ({ ...each, shares: evidence(each.run) })).filter(({ shares }) => shares);
  const values = known.flatMap(({ shares }) => [...shares.values]);
  const heat = heatOf(values, true); // one scale for both engines
  return known.map(({ shares, ...each }) => ({
    ...each,
    ...heatPanel(tokens(each.arrays, shares), shares, heat),
    remark: `sum ${signed(shares.values.reduce((a, b) => a + b, 0))}`,
    edges: true,
  }));
}

function clusterPanel({ arrays, run, title }) {
  const [array, others] = [arrays, scene.runs[1 - run]].map((each) => each?.get(layer().array));
  if (!array || state.head >= array.shape[0]) return [];
  const other = others && String(array.shape) === String(others.shape) ? part(others, state.head) : null;
  const changed = $("marks").querySelector("input").checked ? other : null;
  return [{ run, title, remark: "", map: part(array, state.head), color: colorOf, edges: true, other, changed }];
}

function attentionPanels({ arrays, run, title }) {
  const array = arrays.get(layer().array);
  return (picture().runs[run].attention?.classes ?? []).map((label, i) => {
    const values = part(array, i);
    const panel = heatPanel(positions(values.rows, values.columns), values, heatOf(values.values, false));
    const named = [title, label.name].filter(Boolean).join(": ");
    return { ...panel, run, title: named, remark: label.remark, smooth: true };
  });
}

function heatPanel(map, { values, columns }, heat) {
  const value = (id) => values[id] ?? 0;
  const [color, strength] = [(id) => heat.color(value(id)), (id) => heat.strength(value(id))];
  return { map, columns, value, heat, color, strength };
}

// The evidence [rows, columns] of the chosen class in a run, if it has that class.
function evidence(run) {
  const found = (picture().runs[run].evidence ?? []).findIndex((each) => each.index === state.label);
  return found < 0 ? null : part(scene.runs[run].get("evidence"), found);
}

// Which final token each pixel belongs to: composed from the pools where they are known, else by place.
function tokens(arrays, { rows, columns }) {
  const segments = arrays.get("segments");
  return segments ? part(segments, 0) : positions(rows, columns);
}

function showPanels() {
  panels = contents().map((each) => ({ ...each, picture: scene.picture, grey: scene.grey }));
  const figures = panels.map((panel) => {
    const { title, remark, map } = panel;
    panel.canvas = element("canvas", { className: map ? "live" : "" });
    panel.canvas.style.aspectRatio = `${scene.picture.width} / ${scene.picture.height}`;
    panel.canvas.setAttribute("role", map ? "application" : "img");
    panel.canvas.setAttribute("aria-label", [picture().name, view().label, title].filter(Boolean).join(", "));
    if (map) listen(panel);
    const caption = title || remark ? [element("figcaption", { title }, span(title), span(remark))] : [];
    return element("figure", {}, ...caption, panel.canvas);
  });
  const nothing = element("p", { className: "notice", textContent: "This class's evidence is not in the report." });
  $("panels").replaceChildren(...(figures.length ? figures : [nothing]));
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
  const said = [view().note, picture().note];
  if (view().kind === "clusters") {
    const { map } = panels[0];
    const { array, about } = layer();
    const head = scene.runs[0].get(array).shape[0] > 1 ? `, head ${state.head}` : "";
    const size = `${count(map.rows)} × ${several(map.columns, "point")} in ${several(sizes(map).size, "cluster")}`;
    said.unshift(`${about}${head}: ${size}.`);
    const changed = picture().changes?.[array]?.[state.head];
    const all = map.values.length;
    const share = changed === undefined ? "" : ` changed (${percent(changed / all)}).`;
    if (share) said.push(`${count(changed)} of ${several(all, "point")}${share}`);
  }
  $("explained").textContent = said.filter(Boolean).join(" ");
}

// Canvases have as many pixels as the screen gives them.
function fit() {
  const density = Math.min(window.devicePixelRatio || 1, 2);
  for (const { canvas, picture } of panels) {
    const width = Math.round(Math.min(canvas.clientWidth || 560, 1200) * density);
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
    for (const panel of panels) paint(panel, { opacity, lit: lit() });
  });
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function listen(panel) {
  const { canvas, map } = panel;
  const inside = ({ row, column }) => row >= 0 && column >= 0 && row < map.rows && column < map.columns;
  const idAt = ({ row, column }) => map.values[row * map.columns + column];
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * map.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * map.columns);
    return inside({ row, column }) ? { row, column } : null;
  };
  // To the next cluster in a direction; the first key starts in the middle.
  const move = ([down, right]) => {
    const start = panel.cursor;
    let place = start ?? { row: map.rows >> 1, column: map.columns >> 1 };
    while (start && idAt(place) === idAt(start)) {
      const next = { row: place.row + down, column: place.column + right };
      if (!inside(next)) break;
      place = next;
    }
    panel.cursor = place;
    choose({});
    state.lit = idAt(place);
    showLit();
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("aria-describedby", "keys");
  lightsUp(canvas, (event) => {
    const place = under(event);
    return place && idAt(place);
  });
  canvas.addEventListener("click", (event) => {
    const place = under(event);
    if (!place) return;
    panel.cursor = place;
    pin(idAt(place));
  });
  canvas.addEventListener("keydown", (event) => {
    if (STEPS[event.key]) move(STEPS[event.key]);
    else if (event.key !== "Enter" && event.key !== " ") return;
    else if (lit() === null) move([0, 0]);
    else pin(lit());
    event.preventDefault();
  });
}
