// The facts beside the panels: classes, separability, the cluster that is lit, the largest clusters.

const RANKED = 8; // clusters listed at first
const WORDS = { clusters: "Cluster", evidence: "Token", attention: "Position" };

function showClasses() {
  const { classes, runs } = picture();
  const choosable = new Set(runs.flatMap((run) => (run.evidence ?? []).map(({ index }) => index)));
  $("no-classes").hidden = classes.length > 0;
  $("top").replaceChildren(
    ...classes.map(({ index, name, probabilities }) => {
      const bars = probabilities.map((share, run) => barOf(share ?? 0, run ? "other" : ""));
      const texts = [span(name, "label"), span(probabilities.map(percent).join(" · "))];
      const row = element("span", { className: "row" }, ...texts, element("span", { className: "bars" }, ...bars));
      if (!choosable.has(index)) return element("li", {}, row);
      const radio = element("input", { type: "radio", name: "label", value: index, checked: index === state.label });
      radio.addEventListener("change", () => {
        state.label = index;
        if (view().kind === "evidence") showPanels();
        showDetail();
      });
      return element("li", {}, element("label", { className: "choice" }, radio, row));
    }),
  );
  $("class-key").hidden = !(compared() && classes.length);
  $("class-key").replaceChildren(
    ...REPORT.engines.map((name, run) => element("span", {}, span("", run ? "key other" : "key"), name)),
  );
  $("class-note").hidden = !choosable.size;
}

function showSeparability() {
  const attention = view().kind === "attention";
  const known = attention ? picture().runs.map((run) => run.attention?.separability[layer().array] ?? null) : [];
  $("separability").hidden = known.every((value) => value === null);
  $("separabilities").replaceChildren(
    ...known.map((value, run) => {
      const engine = compared() ? span(` ${REPORT.engines[run]}`, "quiet") : "";
      const number = element("p", { className: "number" }, value === null ? "–" : value.toFixed(2), engine);
      return element("div", {}, number, barOf(value ?? 0, run ? "other" : ""));
    }),
  );
}

// With nothing lit the same rows stay, empty: what lies below must not move under the pointer.
function showDetail() {
  const [panel] = panels;
  $("cluster").hidden = !panel?.map;
  if (!panel?.map) return;
  const id = lit();
  const word = WORDS[view().kind];
  const head = element("div", { className: "head" });
  if (id === null) head.append(span(`Point at a ${word.toLowerCase()}, click to pin it`, "quiet"));
  else {
    head.append(swatchOf(panel.color(id)), `${word} ${id}`);
    const { columns } = panel;
    if (columns) head.append(span(`row ${Math.floor(id / columns)}, column ${id % columns}`, "quiet"));
    if (state.pinned !== null) head.append(span("pinned", "pin"));
  }
  const titles = panels.length > 1 ? [rowOf("th", ["", ...panels.map(({ title }) => title)])] : [];
  const texts = facts(id).map(([name, ...told]) => [name, ...(id === null ? told.fill("–") : told)]);
  const rows = texts.map((each) => rowOf("td", each, "th"));
  $("cluster-title").textContent = word;
  $("detail").classList.toggle("several", panels.length > 1);
  $("detail").replaceChildren(head, element("table", {}, ...titles, ...rows));
}

// What is known of a cluster, token or position: a name and, for each panel, a text.
function facts(id) {
  const { kind } = view();
  const told = (name, tell) => [name, ...panels.map(tell)];
  if (kind === "attention") return [told("Attention", (panel) => plain(panel.value(id)))];
  const size = ({ map }) => sizes(map).get(id) ?? 0;
  const known = [];
  if (kind === "clusters" || scene.runs[0].has("segments")) {
    known.push(told("Points", (panel) => count(size(panel))));
    known.push(told("Share", (panel) => percent(size(panel) / panel.map.values.length)));
    if (layer()?.similarity) known.push(told("Mean similarity", (panel) => similarity(panel, id)));
  }
  const share = kind === "evidence" ? (panel) => signed(panel.value(id)) : (panel) => evidenceAt(panel, id);
  if (state.label !== null) known.push(told(`Evidence for ${nameOf(state.label)}`, share));
  if (panels.every(({ other }) => other)) {
    const only = (here, there) => here.reduce((sum, value, i) => sum + (value === id && there[i] !== id), 0);
    known.push(told("Only here", ({ map, other }) => count(only(map.values, other.values))));
  }
  return known;
}

function similarity(panel, id) {
  const means = scene.runs[panel.run].get(layer().similarity);
  const value = means ? part(means, state.head).values[id] : NaN;
  return Number.isFinite(value) ? value.toFixed(3) : "–";
}

function nameOf(label) {
  return picture().runs.flatMap((run) => run.evidence ?? []).find(({ index }) => index === label)?.name ?? "";
}

// The evidence of a cluster for the chosen class; about that where it had to be spread over pixels.
function evidenceAt(panel, id) {
  const shares = evidence(panel.run);
  if (!shares) return "–";
  const alike = panel.map.rows === shares.rows && panel.map.columns === shares.columns;
  panel.sums ??= new Map();
  if (!panel.sums.has(state.label)) {
    panel.sums.set(state.label, evidenceOf(panel.map, shares, tokens(scene.runs[panel.run], shares)));
  }
  const about = alike || layer().array === "segments" ? "" : "≈ ";
  return about + signed(panel.sums.get(state.label).get(id) ?? 0);
}

function showRanking() {
  const [panel] = panels;
  const { kind } = view();
  $("largest").hidden = !panel?.map || kind === "attention";
  if ($("largest").hidden) return;
  const strongest = kind === "evidence";
  const rankOf = (id, size) => (strongest ? Math.abs(panel.value(id)) : size);
  const known = [...sizes(panel.map)].map(([id, size]) => ({ id, size, rank: rankOf(id, size) }));
  known.sort((a, b) => b.rank - a.rank || a.id - b.id);
  $("largest-title").textContent = strongest ? `Strongest evidence for ${nameOf(state.label)}` : "Largest clusters";
  $("ranking").replaceChildren(
    ...known.slice(0, state.all ? known.length : RANKED).map(({ id, size, rank }) => {
      const said = strongest ? signed(panel.value(id)) : percent(size / panel.map.values.length);
      const shown = [swatchOf(panel.color(id)), span(id), barOf(rank / (known[0].rank || 1)), span(said, "share")];
      const button = element("button", { type: "button", value: id }, ...shown);
      button.setAttribute("aria-pressed", state.pinned === id);
      button.setAttribute("aria-label", `${WORDS[kind]} ${id}`);
      button.addEventListener("focus", () => light(id));
      button.addEventListener("click", () => pin(id));
      lightsUp(button, () => id);
      return element("li", {}, button);
    }),
  );
  $("more").hidden = known.length <= RANKED;
  $("more").textContent = state.all ? "Show fewer" : `Show all ${count(known.length)}`;
}
