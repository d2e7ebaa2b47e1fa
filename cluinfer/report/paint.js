// Painting one panel: a picture, a map of cells over it, lines between them, and whatever is lit.

const VEIL = [14, 16, 20];

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// A canvas with one pixel a cell; `paint` gives [red, green, blue, opacity from 0 to 1] of an id.
function cells(map, paint) {
  const canvas = canvasOf(map.columns, map.rows);
  const image = new ImageData(map.columns, map.rows);
  const known = new Map();
  map.values.forEach((id, i) => {
    if (!known.has(id)) known.set(id, paint(id));
    const [red, green, blue, opacity] = known.get(id);
    image.data.set([red, green, blue, Math.round(255 * opacity)], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function greyOf(picture) {
  const canvas = canvasOf(picture.width, picture.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < image.data.length; i += 4) {
    const light = 0.299 * image.data[i] + 0.587 * image.data[i + 1] + 0.114 * image.data[i + 2];
    image.data.fill(light, i, i + 3);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// The lines between cells that `differ` tells apart, in units of cells; outside the map is `undefined`.
function lines(map, differ, frame = false) {
  const path = new Path2D();
  const value = (row, column) =>
    row < 0 || column < 0 || row >= map.rows || column >= map.columns ? undefined : map.values[row * map.columns + column];
  const trace = (across, along, pair, line) => {
    for (let a = frame ? 0 : 1; a < across + (frame ? 1 : 0); a++) {
      for (let b = 0; b < along; b++) {
        const start = b;
        while (b < along && differ(...pair(a, b))) b++;
        if (b > start) line(a, start, b);
      }
    }
  };
  trace(map.rows, map.columns, (a, b) => [value(a - 1, b), value(a, b)], (a, from, to) => {
    path.moveTo(from, a);
    path.lineTo(to, a);
  });
  trace(map.columns, map.rows, (a, b) => [value(b, a - 1), value(b, a)], (a, from, to) => {
    path.moveTo(a, from);
    path.lineTo(a, to);
  });
  return path;
}

// Stripes in black and white, to be seen on every colour, with the colour in between.
function stripes(context, unit) {
  const tile = canvasOf(12, 12);
  const brush = tile.getContext("2d");
  for (const [color, across] of [["#fff", 5], ["#000", 2.5]]) {
    brush.strokeStyle = color;
    brush.lineWidth = across;
    for (const shift of [-12, 0, 12]) {
      brush.beginPath();
      brush.moveTo(shift - 3, 15);
      brush.lineTo(shift + 15, -3);
      brush.stroke();
    }
  }
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(unit * 0.75));
  return pattern;
}

// Paint what a panel shows:
//   picture, grey           the picture, in colour and without
//   map, color, strength    cells, the colour of an id, and, of heat, how strong it is, from 0 to 1
//   smooth, edges           whether cells run into one another, or have lines between them
//   changed                 ids of another map of the same size, whose difference is marked; or null
//   opacity, lit            as chosen; lit is an id, or null
function paint(panel, { opacity, lit }) {
  const { canvas, picture, grey, map } = panel;
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const unit = Math.max(1, width / 560);
  const whole = new DOMMatrix([width / (map?.columns ?? 1), 0, 0, height / (map?.rows ?? 1), 0, 0]);
  const stroke = (path, color, thickness) => {
    const scaled = new Path2D();
    scaled.addPath(path, whole);
    context.strokeStyle = color;
    context.lineWidth = thickness * unit;
    context.stroke(scaled);
  };
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = picture.width > 96;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  if (!map) return;

  const dims = lit !== null && !panel.smooth; // what is not lit steps back, and the lit pixels show as they are
  if (!dims) {
    context.globalAlpha = Math.min(1, 2 * opacity);
    context.drawImage(grey, 0, 0, width, height);
    context.globalAlpha = 1;
  }
  const hiding = (id) => (panel.strength ? opacity ** (3 - 2.6 * panel.strength(id)) : opacity);
  const veiled = (id) => (id === lit ? [0, 0, 0, 0] : [...VEIL.map((dark, i) => dark + 0.22 * panel.color(id)[i]), 0.8]);
  context.imageSmoothingEnabled = Boolean(panel.smooth);
  context.imageSmoothingQuality = "low"; // linear: in its middle, a cell has its own colour
  context.drawImage(cells(map, dims ? veiled : (id) => [...panel.color(id), hiding(id)]), 0, 0, width, height);

  if (panel.edges) {
    panel.borders ??= lines(map, (a, b) => a !== b);
    stroke(panel.borders, `rgb(255 255 255 / ${dims ? 0.16 : Math.min(0.9, 4 * opacity)})`, 1);
  }
  if (panel.changed) {
    panel.moved ??= cells({ ...map, values: map.values.map((id, i) => (id === panel.changed.values[i] ? 0 : 1)) }, (moved) => [0, 0, 0, moved]);
    const marked = canvasOf(width, height);
    const brush = marked.getContext("2d");
    brush.imageSmoothingEnabled = false;
    brush.drawImage(panel.moved, 0, 0, width, height);
    brush.globalCompositeOperation = "source-in";
    brush.fillStyle = stripes(brush, unit);
    brush.fillRect(0, 0, width, height);
    context.globalAlpha = dims ? 0.5 : 0.9;
    context.drawImage(marked, 0, 0);
    context.globalAlpha = 1;
  }
  if (lit !== null) {
    const outline = lines(map, (a, b) => (a === lit) !== (b === lit), true);
    stroke(outline, "rgb(0 0 0 / 0.55)", 5);
    stroke(outline, "#fff", 2);
  }
}
