// The page as a whole: what there is to choose from, and the picture chosen.

// Radio buttons in a fieldset: arrow keys come with them. `show` gives what is seen of a choice. Where there are more
// than fit beside one another, the chosen one is brought into sight.
function choices(field, items, chosen, show, change) {
  for (const old of field.querySelectorAll(".choice")) old.remove();
  field.hidden = items.length < 2;
  if (field.hidden) return;
  items.forEach((item, i) => {
    const radio = element("input", { type: "radio", name: field.id, checked: i === chosen });
    const label = element("label", { className: "choice" }, radio, element("span", {}, ...show(item, i)));
    radio.addEventListener("change", () => {
      centre(field, label);
      change(i);
    });
    field.append(label);
    if (i === chosen) centre(field, label);
  });
}

function centre(field, label) {
  const [outer, inner] = [field, label].map((each) => each.getBoundingClientRect());
  field.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
}

function showPictures() {
  const show = ({ image, name, moved }) => {
    const flag = moved ? [element("i", { className: "flag", title: "another top class" })] : [];
    return [element("img", { src: image, alt: name, title: name }), ...flag];
  };
  choices($("pictures"), REPORT.pictures, state.picture, show, (i) => {
    choose({ picture: i });
    load();
  });
}

function showViews() {
  choices($("views"), REPORT.views, state.view, ({ label }) => [label], (i) => {
    choose({ view: i, head: 0 });
    showLayers();
  });
  showLayers();
}

function showLayers() {
  choices($("layers"), view().layers, state.layers[state.view] ?? 0, ({ label }) => [label], (i) => {
    state.layers[state.view] = i;
    choose({ head: 0 });
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
  choices($("heads"), Array.from({ length: array?.shape[0] ?? 0 }), state.head, show, (i) => {
    choose({ head: i });
    showPanels();
  });
  showPanels();
}

async function load() {
  const chosen = picture();
  const image = new Image();
  image.src = chosen.image;
  chosen.unpacked ??= Promise.all(chosen.runs.map(unpack));
  const [runs] = await Promise.all([chosen.unpacked, image.decode()]);
  if (picture() !== chosen) return; // another was chosen meanwhile
  scene = { runs, picture: image, grey: greyOf(image) };
  state.label = chosen.runs.flatMap((run) => run.evidence ?? [])[0]?.index ?? null; // the likeliest
  const [best] = chosen.classes;
  const said = best ? span(`  ${best.name}, ${percent(best.probabilities[0])}`, "quiet") : "";
  $("name").replaceChildren(chosen.name, said);
  showClasses();
  showViews();
}

function showComparison() {
  const held = REPORT.comparison;
  $("comparison").hidden = !held;
  if (!held) return;
  const rows = held.layers.map(({ name, points, changed }) =>
    rowOf("td", [name, count(points), count(changed), percent(1 - changed / points)]),
  );
  $("verdict").textContent = held.verdict;
  $("layer-rows").replaceChildren(...rows);
  $("by-layer").hidden = !rows.length;
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
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  $("about").textContent = REPORT.about;
  showTheme();
  showComparison();
  const some = REPORT.pictures.length > 0;
  $("main").hidden = !some;
  $("keys").hidden = !some || REPORT.views[0].kind === "picture";
  $("empty").hidden = some;
  if (!some) return;
  $("opacity").addEventListener("input", repaint);
  $("marks").addEventListener("change", showPanels);
  $("more").addEventListener("click", () => {
    state.all = !state.all;
    showRanking();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && release());
  new ResizeObserver(fit).observe($("panels"));
  showPictures();
  load();
}

start();
