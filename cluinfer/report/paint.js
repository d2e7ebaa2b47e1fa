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
  const whole = new Uint32Array(image.data.buffer); // a pixel at once, in whatever order this machine has its bytes
  const one = new Uint8ClampedArray(4);
  const known = new Map();
  map.values.forEach((id, i) => {
    let color = known.get(id);
    if (color === undefined) {
      const [red, green, blue, opacity] = paint(id);
      one.set([red, green, blue, 255 * opacity]);
      [color] = new Uint32Array(one.buffer);
      known.set(id, color);
    }
    whole[i] = color;
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

// The lines between cells that `differ` tells apart, in units of cells. With `frame`, the map's border counts too:
// outside of it, ids are `undefined`.
function lines({ rows, columns, values }, differ, frame = false) {
  const path = new Path2D();
  const trace = (across, along, stride, step, line) => {
    for (let a = frame ? 0 : 1; a < across + (frame ? 1 : 0); a++) {
      let start = -1;
      for (let b = 0; b <= along; b++) {
        const before = a > 0 ? values[(a - 1) * stride + b * step] : undefined;
        const after = a < across ? values[a * stride + b * step] : undefined;
        const parted = b < along && differ(before, after);
        if (parted && start < 0) start = b;
        if (!parted && start >= 0) {
          line(a, start, b);
          start = -1;
        }
      }
    }
  };
  trace(rows, columns, columns, 1, (row, from, to) => {
    path.moveTo(from, row);
    path.lineTo(to, row);
  });
  trace(columns, rows, 1, columns, (column, from, to) => {
    path.moveTo(column, from);
    path.lineTo(column, to);
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
  const dark = (id) => [...VEIL.map((light, i) => light + 0.22 * panel.color(id)[i]), 0.8];
  const veiled = (id) => (id === lit ? [0, 0, 0, 0] : dark(id));
  context.imageSmoothingEnabled = Boolean(panel.smooth);
  context.imageSmoothingQuality = "low"; // linear: in its middle, a cell has its own colour
  context.drawImage(cells(map, dims ? veiled : (id) => [...panel.color(id), hiding(id)]), 0, 0, width, height);

  if (panel.edges) {
    panel.borders ??= lines(map, (a, b) => a !== b);
    const strength = dims ? 0.16 : Math.min(panel.strength ? 0.45 : 0.9, 4 * opacity);
    stroke(panel.borders, `rgb(255 255 255 / ${strength})`, 1);
  }
  if (panel.changed) {
    const moved = map.values.map((id, i) => Number(id !== panel.changed.values[i]));
    panel.moved ??= cells({ ...map, values: moved }, (there) => [0, 0, 0, there]);
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
