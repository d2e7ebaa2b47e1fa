// What the report holds: its arrays unpacked, its clusters counted. Nothing here touches the page.

const REPORT = JSON.parse(document.getElementById("data").textContent);
const TYPES = { u1: Uint8Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array };
const PALETTE = bytesOf(REPORT.palette);
const HEAT = { plain: bytesOf(REPORT.heat.plain), signed: bytesOf(REPORT.heat.signed) };

function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// The arrays of a run by name: {shape, values}; they lie one after the other, deflated.
async function unpack(run) {
  const packed = new Blob([bytesOf(run.packed)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(packed).arrayBuffer();
  const arrays = new Map();
  let at = 0;
  for (const { name, type, shape } of run.arrays) {
    const bytes = shape.reduce((a, b) => a * b, 1) * TYPES[type].BYTES_PER_ELEMENT;
    arrays.set(name, { shape, values: new TYPES[type](buffer.slice(at, at + bytes)) });
    at += bytes;
  }
  return arrays;
}

// One [rows, columns] part of an array [parts, rows, columns].
function part(array, i) {
  const [, rows, columns] = array.shape;
  return { rows, columns, values: array.values.subarray(i * rows * columns, (i + 1) * rows * columns) };
}

// A map whose every position is a cluster of its own.
function positions(rows, columns) {
  return { rows, columns, values: Int32Array.from({ length: rows * columns }, (_, i) => i) };
}

function colorOf(id) {
  const at = 3 * (((id % (PALETTE.length / 3)) + PALETTE.length / 3) % (PALETTE.length / 3));
  return [PALETTE[at], PALETTE[at + 1], PALETTE[at + 2]];
}

// The colours of values: from zero, or centred on it where they are signed.
function heatOf(values, signed) {
  let far = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    far = Math.max(far, Math.abs(value));
  }
  const high = far || 1;
  const low = signed ? -high : 0;
  const table = signed ? HEAT.signed : HEAT.plain;
  return {
    low,
    high,
    table,
    strength: (value) => (Number.isFinite(value) ? Math.abs(value) / high : 0),
    color: (value) => {
      if (!Number.isFinite(value)) return [128, 128, 128];
      const step = 3 * Math.round((255 * (value - low)) / (high - low));
      return [table[step], table[step + 1], table[step + 2]];
    },
  };
}

// How many points each cluster has.
function sizes(map) {
  const counts = new Map();
  for (const id of map.values) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
}

// For a pixel of a rows x columns map, the point of `map` under its middle.
function at(map, row, column, rows, columns) {
  const y = Math.floor(((row + 0.5) * map.rows) / rows);
  const x = Math.floor(((column + 0.5) * map.columns) / columns);
  return map.values[y * map.columns + x];
}

// The evidence of each cluster of a map: the sum of its positions' shares. Where the map is not the last stage's, a
// position's share is spread evenly over the pixels that `tokens` says it consists of.
function evidenceOf(map, evidence, tokens) {
  const sums = new Map();
  const add = (id, value) => sums.set(id, (sums.get(id) ?? 0) + value);
  if (map.rows === evidence.rows && map.columns === evidence.columns) {
    map.values.forEach((id, i) => add(id, evidence.values[i]));
    return sums;
  }
  const rows = Math.max(map.rows, tokens.rows);
  const columns = Math.max(map.columns, tokens.columns);
  const pixels = new Float64Array(evidence.values.length);
  const each = (visit) => {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const token = at(tokens, row, column, rows, columns);
        if (token >= 0 && token < pixels.length) visit(token, at(map, row, column, rows, columns));
      }
    }
  };
  each((token) => pixels[token]++);
  each((token, id) => add(id, evidence.values[token] / pixels[token]));
  return sums;
}
