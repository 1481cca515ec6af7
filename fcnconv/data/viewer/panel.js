// The panel: the class shown and its scale or the winners' key, and the window in focus with its best classes.
let row = 0, col = 0, held = false;

function takeClass(chosen) {
  entry = chosen;
  plane = planeOf(entry.members);
  entry.highest = plane.reduce((a, b) => Math.max(a, b), 0);
}

function show(chosen, move = true) {
  takeClass(chosen);
  if (second === entry) second = null; // nothing to compare it with
  if (showsWinners()) document.querySelector("[name=view][value=class]").checked = true;
  tellMap();
  if (move) goToHighest();
  else drawWindow();
}

// What the kinds of maps show, in the words of `docs/localisation.md`.
const MEANING = {
  focused: "Each window’s probability, on the cells that carry the evidence.",
  windows: "The probability of the class in each window.",
  activations: "Each cell’s own probability, from its class activations alone.",
};
// Shows another kind of map: the same class at the same place, or where it is highest.
async function switchTo(one) {
  const { x, y, w, h } = windowBox();
  if (!await take(one)) return;
  takeClass(entry);
  tellKind();
  tellMap();
  if (held || showsWinners()) moveTo(...cellOf({ x: x + w / 2, y: y + h / 2 }));
  else goToHighest();
}
// All that depends on the kind of map.
function tellKind() {
  for (const radio of document.querySelectorAll("[name=kind]")) radio.checked = radio.value === kind.kind;
  $("meaning").textContent = MEANING[kind.kind];
  $("subtitle").textContent = kind.subtitle;
  const unit = kind.unit, title = unit[0].toUpperCase() + unit.slice(1);
  $("window-title").textContent = title;
  $("go").textContent = `go to that ${unit}`;
  $("intro").textContent = `The most probable class of each ${unit}, paler where it is less probable.`;
  $("dotted-label").hidden = new Set(origins.filter((origin) => origin !== NOT_LOOKED_AT)).size < 2; // nothing to tell apart
}

// All that depends on what the map shows.
function tellMap() {
  const winning = showsWinners();
  recolour();
  $("of-class").hidden = winning;
  $("of-winners").hidden = !winning;
  $("of-regions").hidden = winning;
  tellRegions();
  tellSecond();
  for (const chip of $("chips").querySelectorAll("button")) chip.setAttribute("aria-pressed", !winning && chip.entry === entry);
  if (winning) tellKey();
  else tellClass();
  keepAddress();
}

function tellClass() {
  $("shown").textContent = entry.label;
  $("highest").textContent = told(entry.highest);
  const whole = Math.max(...map.categories.map((_, k) => classEntry(k).highest)), faint = Math.max(whole, entry.highest) < NEAR_ZERO;
  $("faint").hidden = entry.highest >= NEAR_ZERO;
  $("faint").textContent = faint ? `No class is more probable than ${told(Math.max(whole, entry.highest))} anywhere in this image.`
    : `Near zero everywhere: ${entry.name} was not found.`;
  drawScale();
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => String(+(t * greatest).toPrecision(2)));
  $("ticks").replaceChildren(...ticks.map((tick) => make("span", tick)));
  $("legend").setAttribute("aria-label", `Colours of probabilities from 0, ${$("veil").checked ? "dark blue" : "clear"}, to ${ticks[4]}, light yellow`);
}

// The colours as they look over the page.
function drawScale() {
  const context = $("scale").getContext("2d"), image = context.createImageData(256, 1), pixels = new Uint32Array(image.data.buffer);
  const strength = $("opacity").value / 100;
  for (let q = 0; q < 256; q++) pixels[q] = colours[q] | Math.round(alpha[q] * strength) << 24;
  context.putImageData(image, 0, 0);
}

function tellKey() {
  $("least").textContent = (+$("floor").value).toFixed(2);
  $("nobody").hidden = key.length > 0;
  $("nobody").textContent = `No ${kind.unit} reaches this probability.`;
  $("key").replaceChildren(...key.map((one) => {
    const item = make("li"), swatch = make("span", "", "swatch"), parts = one.entry ? make("button") : item;
    swatch.style.background = `rgb(${[...one.colour].join()})`;
    parts.append(swatch, make("span", one.entry?.label ?? `${one.others} other${one.others > 1 ? "s" : ""}`), make("span", `${Math.max(1, Math.round(100 * one.share))} %`, "soft number"));
    if (one.entry) {
      parts.type = "button";
      parts.title = "Show its map";
      parts.addEventListener("click", () => { held = true; show(one.entry); $("stage").focus({ preventScroll: true }); });
      item.append(parts);
    }
    return item;
  }));
}

function goToHighest() {
  const cell = plane.indexOf(entry.highest);
  moveTo(Math.floor(cell / cols), cell % cols);
  reveal(windowBox());
}

function moveTo(newRow, newCol) {
  row = clamp(newRow, 0, rows - 1);
  col = clamp(newCol, 0, cols - 1);
  drawWindow();
  keepAddress();
}

// The window or cell in focus, in image px. Of joined windows it is the window of the scale where the best class is
// from, whose centre is nearest.
function windowBox() {
  const joined = kind.unit === "window" ? kind.scales[bestScale[row * cols + col]] : undefined;
  const [w, h, highest, widest] = joined ?? [scanWidth, scanHeight, rows, cols];
  const nearest = (cell, own, other, count) =>
    clamp(Math.floor(((cell * stride + side / 2) * other / own - side / 2) / stride + 0.5), 0, count - 1);
  const x = nearest(col, scanWidth, w, widest) * stride, y = nearest(row, scanHeight, h, highest) * stride;
  return { x: x * width / w, y: y * height / h, w: side * width / w, h: side * height / h };
}

// Where a cell's scores come from.
function originOf(cell) {
  if (origins[cell] === NOT_LOOKED_AT) return "outside the region of interest";
  if (kind.scales.length) return `combined from ${kind.scales.length} scales${map.anchors ? ", corrected by crops" : ""}`;
  if (origins[cell] === EXACT) return "scored as a crop";
  if (!map.anchors) return "dense map";
  return map.mode === "windows" ? "interpolated from crops nearby" : "corrected by crops nearby";
}

// All that depends on the window in focus: its outline, its pixels, its best classes.
function drawWindow() {
  const cell = row * cols + col, { x, y, w, h } = windowBox();
  for (const id of ["under", "over"]) put($(id), x, y, w, h);
  put($("cell"), covered.x + col * stride * perX, covered.y + row * stride * perY, stride * perX, stride * perY);
  Object.assign(stage.dataset, { row, col });

  const unknown = origins[cell] === NOT_LOOKED_AT;
  $("here").textContent = unknown ? "–" : told(plane[cell]);
  $("mark").style.left = `${100 * Math.min(plane[cell] / greatest, 1)}%`;
  const edges = [x, x + w, y, y + h].map((v) => Math.round(v));
  $("where").textContent = `row ${row}, column ${col}\nx ${edges[0]}–${edges[1]}, y ${edges[2]}–${edges[3]}`;
  $("how").textContent = originOf(cell);
  $("held").textContent = held ? "pinned; click to release" : "click to pin";
  drawCrop();

  $("bars").replaceChildren(...(unknown ? [] : best(cell, 5)).map(({ entry: one, p }) => {
    const item = make("li", "", entry.members.includes(one.members[0]) ? "part" : ""), button = make("button"), track = make("span", "", "track"), bar = make("i");
    button.type = "button";
    button.title = "Show its map";
    button.setAttribute("aria-pressed", one === entry && !showsWinners());
    button.addEventListener("click", () => show(one, false));
    bar.style.width = `${100 * p}%`;
    track.append(bar);
    button.append(make("span", one.label, "name"), make("span", told(p), "number"), track);
    item.append(button);
    return item;
  }));
}

function drawCrop() {
  drawPhoto($("crop").getContext("2d"), windowBox());
}

let speaking;
function speak() {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    const cell = row * cols + col, [first] = best(cell, 1);
    const scores = `: ${first.entry.name} ${told(first.p)}; ${entry.name} ${told(plane[cell])}`;
    $("told").textContent = `Row ${row}, column ${col}, ${originOf(cell)}${origins[cell] === NOT_LOOKED_AT ? "" : scores}`;
  }, 250);
}

// The map's opacity in percent; the uniform overlay has its own.
const opacity = { findings: 100, veil: Math.round(100 * map.veil) };
function setOpacity(percent) {
  percent = clamp(percent, 0, 100);
  opacity[$("veil").checked ? "veil" : "findings"] = percent;
  $("opacity").value = percent;
  $("percent").textContent = `${percent} %`;
  $("map").style.opacity = percent / 100;
  drawScale();
  redraw();
}

