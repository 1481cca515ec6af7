// The map over the photo: the probability of the class shown, or the winner of each cell, in colours.
const MOST_PIXELS = { still: 1_000_000, moving: 150_000 }; // computed for one picture; a larger stage has it enlarged
const rgba = bytesOfHex(map.colours);
const colours = Uint32Array.from({ length: 256 }, (_, i) => colourOf(rgba, 4 * i));
const opacities = Float32Array.from({ length: 256 }, (_, i) => rgba[4 * i + 3]);
const OTHERS = [128, 128, 128];

function bytesOfHex(hex) { return Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16)); }
function colourOf(bytes, at) { return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16; } // as a canvas has it, still clear

let entry, plane;              // the class shown, and its probability in each cell
let tints, shares;             // the colour of each cell and its opacity, 0 to 255: of winners, or of the class as cells
let greatest = 1;              // the probability at the end of the colour scale
let alpha = opacities;         // of each step of the scale, 0 to 255

const showsWinners = () => document.querySelector("[name=view]:checked").value === "winners";
const drawsCells = () => document.querySelector("[name=drawn]:checked").value === "cells";
const step = (p) => clamp(Math.round(255 * p / greatest), 0, 255);
const opacityOf = (q) => $("veil").checked ? 255 : opacities[q];

// Of each cell its one colour.
function tint() {
  if (showsWinners()) return tintWinners();
  greatest = $("stretch").checked && entry.highest || 1;
  tints = Uint32Array.from(plane, (p) => colours[step(p)]);
  shares = Float32Array.from(plane, (p) => opacityOf(step(p)));
}

// The winners' key: the classes that win the most of the coloured cells, with their colours; the rest is one grey.
let key = [];
let contenders = [];           // the classes of the key, each with its colour and its probability in each cell
// The opacity of a top class, 0 to 255: nothing at the floor, by the formula that pictures have.
function shareOf(p) {
  const floor = +$("floor").value;
  return 255 * 0.75 * Math.sqrt(Math.max(p - floor, 0) / Math.max(1 - floor, 1e-6));
}
let shareTable; // of 1,024 steps, as pixels are many
function tintWinners() {
  const floor = +$("floor").value, { winner, sure } = winnersOf();
  const wins = new Map();
  let coloured = 0;
  for (let c = 0; c < cells; c++) if (probability[sure[c]] >= floor) { wins.set(winner[c], (wins.get(winner[c]) ?? 0) + 1); coloured++; }
  const ranked = [...wins].sort(([a, m], [b, n]) => n - m || a - b);
  const bytes = bytesOfHex(map.keyColours), most = bytes.length / 3;
  const named = ranked.filter(([, n], i) => i < most && n >= map.keyShare * coloured);
  key = named.map(([k, n], i) => ({ entry: classEntry(k), share: n / coloured, colour: bytes.subarray(3 * i, 3 * i + 3) }));
  const others = ranked.slice(named.length);
  if (others.length) key.push({ others: others.length, share: others.reduce((sum, [, n]) => sum + n, 0) / coloured, colour: OTHERS });
  const colourBy = new Map(named.map(([k], i) => [k, colourOf(key[i].colour, 0)])), grey = colourOf(OTHERS, 0);
  tints = Uint32Array.from(winner, (k) => colourBy.get(k) ?? grey);
  shares = Float32Array.from(sure, (q) => shareOf(probability[q]));
  const rest = Float32Array.from(winner, (k, c) => colourBy.has(k) ? 0 : probability[sure[c]]);
  contenders = [...named.map(([k], i) => ({ colour: colourOf(key[i].colour, 0), plane: planeOf([k]) })), { colour: grey, plane: rest }];
}

// Of each pixel along an axis: the cell before it, how far it is to the next one, the nearest one; and how much of
// the opacity is left there. Beyond the outermost centres the value stays and fades to nothing at the border, by
// the formula that pictures have.
function along(pixels, from, length, count, size) {
  const before = new Int32Array(pixels), share = new Float32Array(pixels), nearest = new Int32Array(pixels), left = new Float32Array(pixels);
  const first = side / 2, last = size - first - (count - 1) * stride; // the outermost centres' distances from the borders
  for (let i = 0; i < pixels; i++) {
    const at = from + (i + 0.5) / pixels * length;
    const place = clamp((at - first) / stride, 0, count - 1);
    before[i] = Math.min(Math.floor(place), Math.max(count - 2, 0));
    share[i] = place - before[i];
    nearest[i] = Math.round(place);
    const t = clamp(Math.min(at / first, (size - at) / last), 0, 1);
    left[i] = kind.fades ? 1 - (1 - t) ** 2 : 1;
  }
  return { before, share, nearest, left };
}

let picture;                   // kept between drawings of one size
function drawMap(context) {
  const { width: w, height: h } = context.canvas, seen = visible();
  if (picture?.width !== w || picture.height !== h) picture = context.createImageData(w, h);
  const pixels = new Uint32Array(picture.data.buffer);
  const x = along(w, seen.x / perX, seen.w / perX, cols, scanWidth), y = along(h, seen.y / perY, seen.h / perY, rows, scanHeight);
  if (showsWinners()) fillTopClass(pixels, x, y);
  else fillSmooth(pixels, x, y);
  context.putImageData(picture, 0, 0);
}
// Probabilities are interpolated, then the most probable class of each pixel is drawn: borders run between cells.
function fillTopClass(pixels, x, y) {
  const w = x.left.length, { before, share, left } = x;
  shareTable = Float32Array.from({ length: 1024 }, (_, i) => shareOf(i / 1023));
  const lines = contenders.map(() => new Float32Array(cols + 1));
  for (let j = 0, out = 0; j < y.left.length; j++) {
    const a = y.before[j] * cols, b = Math.min(y.before[j] + 1, rows - 1) * cols, down = y.share[j], fade = y.left[j];
    contenders.forEach(({ plane }, n) => {
      for (let c = 0; c < cols; c++) lines[n][c] = plane[a + c] * (1 - down) + plane[b + c] * down;
      lines[n][cols] = lines[n][cols - 1];
    });
    for (let i = 0; i < w; i++, out++) {
      const c = before[i], t = share[i];
      let most = -1, top = 0;
      for (let n = 0; n < lines.length; n++) {
        const p = lines[n][c] + (lines[n][c + 1] - lines[n][c]) * t;
        if (p > most) { most = p; top = n; }
      }
      pixels[out] = contenders[top].colour | (shareTable[most * 1023 | 0] * fade * left[i] + 0.5) << 24;
    }
  }
}
function fillSmooth(pixels, x, y) {
  const w = x.left.length, { before, share, left } = x;
  const line = new Float32Array(cols + 1); // a row of pixels at the cells' columns, as steps of the scale
  const first = before[0], last = Math.min(before[w - 1] + 1, cols - 1), steps = 255 / greatest;
  for (let j = 0, out = 0; j < y.left.length; j++) {
    const a = y.before[j] * cols, b = Math.min(y.before[j] + 1, rows - 1) * cols, down = y.share[j], fade = y.left[j];
    for (let c = first; c <= last; c++) line[c] = (plane[a + c] * (1 - down) + plane[b + c] * down) * steps + 0.5;
    line[last + 1] = line[last];
    for (let i = 0; i < w; i++, out++) {
      const c = before[i], from = line[c], q = from + (line[c + 1] - from) * share[i] | 0;
      pixels[out] = colours[q] | (alpha[q] * fade * left[i] + 0.5) << 24;
    }
  }
}
// Each cell's own square, with hard edges; nothing outside.
const squares = document.createElement("canvas");
function drawCells(context) {
  const canvas = context.canvas, seen = visible(), across = canvas.width / seen.w, down = canvas.height / seen.h;
  context.imageSmoothingEnabled = false;
  context.drawImage(squares, (covered.x - seen.x) * across, (covered.y - seen.y) * down, covered.w * across, covered.h * down);
}

// To be called when what the map shows has changed.
function recolour() {
  tint();
  alpha = opacities.map((_, q) => opacityOf(q));
  squares.width = cols;
  squares.height = rows;
  const context = squares.getContext("2d"), image = context.createImageData(cols, rows), pixels = new Uint32Array(image.data.buffer);
  for (let c = 0; c < cells; c++) pixels[c] = tints[c] | Math.round(shares[c]) << 24;
  context.putImageData(image, 0, 0);
  redraw();
}

// A dot on each real crop.
function drawDots(context) {
  const { width: w, height: h } = context.canvas, seen = visible();
  context.clearRect(0, 0, w, h);
  if (!$("dotted").checked) return;
  const across = w / seen.w, down = h / seen.h, ratio = w / stage.clientWidth;
  const dot = clamp(stride * perX * across / 6, ratio, 5 * ratio), rim = dot >= 3 * ratio ? ratio : 0;
  const [firstRow, lastRow] = [seen.y, seen.y + seen.h].map((v) => clamp(Math.floor((v - covered.y) / (stride * perY)), 0, rows - 1));
  const [firstCol, lastCol] = [seen.x, seen.x + seen.w].map((v) => clamp(Math.floor((v - covered.x) / (stride * perX)), 0, cols - 1));
  for (const [colour, size] of [["#000a", dot + 2 * rim], ["#fff", dot]]) {
    context.fillStyle = colour;
    for (let r = firstRow; r <= lastRow; r++) for (let c = firstCol; c <= lastCol; c++) if (origins[r * cols + c] === EXACT)
      context.fillRect(((c * stride + side / 2) * perX - seen.x) * across - size / 2, ((r * stride + side / 2) * perY - seen.y) * down - size / 2, size, size);
  }
}

// Everything on the stage, at the next frame.
let due = 0;
function redraw() { due ||= requestAnimationFrame(draw); }
function draw() {
  due = 0;
  const box = stage.getBoundingClientRect(), fine = window.devicePixelRatio || 1;
  if (!box.width || !entry) return;
  const coarse = Math.min(fine, Math.sqrt(MOST_PIXELS[moving ? "moving" : "still"] / (box.width * box.height)));
  const context = (id, ratio) => {
    const canvas = $(id), w = Math.max(1, Math.round(box.width * ratio)), h = Math.max(1, Math.round(box.height * ratio));
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    return canvas.getContext("2d");
  };
  const ground = context("ground", fine), seen = visible();
  drawPhoto(ground, seen);
  if ($("veil").checked) drawGrey(ground, seen);
  const over = context("map", drawsCells() ? fine : coarse);
  over.clearRect(0, 0, over.canvas.width, over.canvas.height);
  if (drawsCells()) drawCells(over);
  else drawMap(over);
  drawDots(context("dots", fine));
  drawSecond(fine, coarse);
  document.querySelector("#stage svg").setAttribute("viewBox", `${seen.x} ${seen.y} ${seen.w} ${seen.h}`);
  drawCrop();
}

// Under an even veil the photo is grey, whose hues cannot mislead; at low opacity its own colours come back.
function drawGrey(context, seen) {
  const { width: w, height: h } = context.canvas;
  const part = drawsCells() ? covered : { x: 0, y: 0, w: width, h: height };
  context.save();
  context.globalCompositeOperation = "saturation";
  context.globalAlpha = Math.min(1, $("opacity").value / 30);
  context.fillStyle = "#808080";
  context.fillRect((part.x - seen.x) * w / seen.w, (part.y - seen.y) * h / seen.h, part.w * w / seen.w, part.h * h / seen.h);
  context.restore();
}

