// The map: what the page holds of it, and what can be shown of it.
const map = JSON.parse($("facts").textContent);
const [width, height] = map.imageSize;
let kind;                      // the map that is shown, of `map.kinds`: focused, windows, or activations
let rows, cols, cells, kept, side, stride, scanWidth, scanHeight;
let perX, perY;                // image px a scanned px
let covered;                   // in image px; each cell owns the square of one stride around its window's centre
const probability = Float32Array.from({ length: 256 }, (_, q) => (q / 255) ** 2);
const concept = ([name, members, wnid, also]) => ({ name, members, wnid, also, concept: true });
const entries = [ // what can be shown
  ...map.concepts.map(concept),
  ...map.categories.map((name, i) => ({ name, members: [i], wnid: map.wnids[i] })),
];
const times = new Map(); // two classes may have one name: the lists then tell them by WordNet id or index
for (const { name } of entries) times.set(name, (times.get(name) ?? 0) + 1);
for (const e of entries) {
  const more = e.concept ? `${e.members.length} classes` : times.get(e.name) > 1 ? e.wnid ?? `class ${e.members[0]}` : "";
  e.label = more ? `${e.name} (${more})` : e.name;
}
const classEntry = (i) => entries[map.concepts.length + i];
const offered = map.shown.map((one) => one[1].length === 1 ? classEntry(one[1][0])
  : entries.find((e) => e.concept && e.name === one[0] && e.wnid === one[2])
    ?? { ...concept(one), label: `${one[0]} (${one[1].length} classes)` });

let values, index;             // the packed bytes; index only where the best classes alone are kept
let origins;                   // of each cell, where its scores come from
let bestScale;                 // of each cell, the scale that its best class is from, where several were joined

const EXACT = 1, NOT_LOOKED_AT = 2; // of origins: a real crop; no scores at all
const NEAR_ZERO = 0.1;         // a class that is nowhere more probable was not found

async function inflated(id) {
  const bytes = bytesOf($(id).textContent);
  $(id).remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

async function unpack({ kind: name, rows, cols, kept, indexBytes }) {
  const [buffer, bytes, best] = await Promise.all(["data", "origins", "best"].map((part) => inflated(`${part}-${name}`)));
  const Index = indexBytes === 2 ? Uint16Array : Uint32Array, count = kept * rows * cols;
  return {
    index: kept ? new Index(buffer, 0, count) : null,
    values: new Uint8Array(buffer, count * indexBytes),
    bestScale: new Uint8Array(best),
    origins: new Uint8Array(bytes),
  };
}

// Takes another kind of map, unpacked when it is first wanted. Gives false where meanwhile another one was wanted.
let wanted;
async function take(one) {
  wanted = one;
  const unpacked = await (one.unpacked ??= unpack(one));
  if (wanted !== one) return false;
  kind = one;
  ({ rows, cols, kept, window: side, stride, scanSize: [scanWidth, scanHeight] } = kind);
  ({ index, values, bestScale, origins } = unpacked);
  cells = rows * cols;
  perX = width / scanWidth;
  perY = height / scanHeight;
  covered = { x: (side - stride) / 2 * perX, y: (side - stride) / 2 * perY, w: cols * stride * perX, h: rows * stride * perY };
  winners = null;
  for (const e of [...entries, ...offered]) e.highest = undefined;
  highestOfEach();
  return true;
}

// The probability of a set of classes in each cell.
function planeOf(members) {
  const sum = new Float32Array(cells);
  if (!kept) for (const k of members) for (let c = 0, v = k * cells; c < cells; c++, v++) sum[c] += probability[values[v]];
  else {
    const member = new Uint8Array(map.categories.length);
    for (const k of members) member[k] = 1;
    for (let s = 0, v = 0; s < kept; s++) for (let c = 0; c < cells; c++, v++) if (member[index[v]]) sum[c] += probability[values[v]];
  }
  return sum.map((p) => Math.min(p, 1));
}

// The n most probable classes of one cell, best first.
function best(cell, n) {
  const found = [];
  const count = kept || map.categories.length;
  for (let s = 0; s < count; s++) {
    const q = values[s * cells + cell];
    if (found.length === n && q <= found[n - 1].q) continue;
    let place = found.length;
    while (place && found[place - 1].q < q) place--;
    found.splice(place, 0, { q, k: kept ? index[s * cells + cell] : s });
    if (found.length > n) found.pop();
  }
  return found.map(({ q, k }) => ({ entry: classEntry(k), p: probability[q] }));
}

// The highest byte of each class anywhere in the image.
function highestOfEach() {
  const highest = new Uint8Array(map.categories.length);
  for (let v = 0; v < values.length; v++) {
    const k = kept ? index[v] : Math.floor(v / cells);
    if (values[v] > highest[k]) highest[k] = values[v];
  }
  map.categories.forEach((_, k) => { classEntry(k).highest = probability[highest[k]]; });
}
const highestOf = (e) => e.highest ??= planeOf(e.members).reduce((a, b) => Math.max(a, b), 0);

// The most probable class of each cell, and its probability's byte.
let winners;
function winnersOf() {
  if (winners) return winners;
  if (kept) return winners = { winner: index.subarray(0, cells), sure: values.subarray(0, cells) };
  const winner = new Uint32Array(cells), sure = values.slice(0, cells);
  for (let k = 1, v = cells; v < values.length; k++)
    for (let c = 0; c < cells; c++, v++) if (values[v] > sure[c]) { sure[c] = values[v]; winner[c] = k; }
  return winners = { winner, sure };
}

function put(element, x, y, width, height) {
  for (const [key, value] of Object.entries({ x, y, width, height })) element.setAttribute(key, value);
}

