// Keys, controls, the address, and the start.
const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const middleOfWindow = () => { const { x, y, w, h } = windowBox(); return { x: x + w / 2, y: y + h / 2 }; };
// Zooms by keys and buttons, and says so to those who do not see it.
function zoomAndTell(factor, place) {
  if (factor) zoomBy(factor, place);
  else lookAt(1, view.x, view.y);
  $("told").textContent = zoomed() ? `Enlarged ${view.zoom.toFixed(1)} times` : "Whole photo";
}
const keys = {
  "/": () => $("search").focus(),
  "+": () => zoomAndTell(1.5, middleOfWindow()),
  "=": () => zoomAndTell(1.5, middleOfWindow()),
  "-": () => zoomAndTell(1 / 1.5, middleOfWindow()),
  0: () => zoomAndTell(0),
  "[": () => setOpacity(+$("opacity").value - 5),
  "]": () => setOpacity(+$("opacity").value + 5),
  c: () => document.querySelector("[name=drawn]:not(:checked)").click(),
  k: () => document.querySelectorAll("[name=kind]")[(map.kinds.indexOf(kind) + 1) % map.kinds.length]?.click(),
  w: () => document.querySelector("[name=view]:not(:checked)").click(),
  m: () => { held = true; goToHighest(); speak(); },
  Escape: () => { held = false; drawWindow(); },
};
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.tagName === "INPUT" && (target.type === "text" || key in arrows)) return; // a slider has arrows of its own
  if (key in arrows) {
    const far = event.shiftKey ? Math.max(1, Math.floor(side / stride)) : 1;
    held = true;
    moveTo(row + far * arrows[key][0], col + far * arrows[key][1]);
    if (zoomed()) reveal(windowBox());
    speak();
  } else if (Object.hasOwn(keys, key)) keys[key]();
  else return;
  event.preventDefault();
});

$("in").addEventListener("click", () => zoomAndTell(1.5, view));
$("out").addEventListener("click", () => zoomAndTell(1 / 1.5, view));
$("fit").addEventListener("click", () => zoomAndTell(0));
$("go").addEventListener("click", () => { held = true; goToHighest(); speak(); });
$("opacity").addEventListener("input", () => setOpacity(+$("opacity").value));
$("veil").addEventListener("change", () => { setOpacity(opacity[$("veil").checked ? "veil" : "findings"]); tellMap(); });
$("stretch").addEventListener("change", () => { tellMap(); drawWindow(); });
$("floor").addEventListener("input", tellMap);
$("dotted").addEventListener("change", redraw);
for (const radio of document.querySelectorAll("[name=drawn]")) radio.addEventListener("change", redraw);
for (const radio of document.querySelectorAll("[name=view]")) radio.addEventListener("change", () => { tellMap(); drawWindow(); });
for (const radio of document.querySelectorAll("[name=kind]"))
  radio.addEventListener("change", () => switchTo(map.kinds.find((one) => one.kind === radio.value)));
new ResizeObserver(redraw).observe(stage);
document.addEventListener("DOMContentLoaded", redraw); // the last tiles may have come after the first drawing

// The address keeps what is shown: a class is a step in the browser's history, the window and the view are not.
let written = null, keeping;
function keepAddress() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const parts = new URLSearchParams({ class: entry.label, window: `${row},${col}` });
    if (zoomed()) parts.set("view", [view.zoom.toFixed(2), Math.round(view.x), Math.round(view.y)].join());
    if (showsWinners()) parts.set("show", "winners");
    if (kind !== map.kinds[0]) parts.set("map", kind.kind);
    const before = new URLSearchParams(location.hash.slice(1));
    const step = before.has("class") && ["class", "show", "map"].some((name) => before.get(name) !== parts.get(name));
    if (step) location.hash = parts;
    else location.replace(`#${parts}`);
    written = location.hash;
  }, 300);
}
// Shows what the address says, as far as it says something that this map has.
async function followAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const other = map.kinds.find((one) => one.kind === parts.get("map")) ?? map.kinds[0];
  if (other !== kind) await switchTo(other);
  const numbers = (name) => (parts.get(name) ?? "").split(",").map(Number);
  const named = [...offered, ...entries].find((e) => e.label === parts.get("class"));
  const [atRow, atCol] = numbers("window"), [zoom, x, y] = numbers("view");
  if (named) show(named);
  if (parts.get("show") === "winners") { document.querySelector("[name=view][value=winners]").checked = true; tellMap(); }
  if (atRow >= 0 && atCol >= 0) { held = true; moveTo(Math.floor(atRow), Math.floor(atCol)); }
  if (zoom > 1 && x >= 0 && y >= 0) lookAt(zoom, x, y);
  else if (named) lookAt(1, view.x, view.y);
}
window.addEventListener("hashchange", () => { if (location.hash !== written) followAddress(); });

async function start() {
  await Promise.all([$("photo").decode(), take(map.kinds[0])]);
  overview = await createImageBitmap($("photo"));
  const strongest = find("").slice(0, 10), foremost = classEntry(map.foremost);
  $("chips").replaceChildren(...[...new Set([...offered, foremost, ...strongest])].slice(0, Math.max(10, offered.length)).map((e) => {
    const item = make("li"), chip = make("button", e.label);
    chip.type = "button";
    chip.entry = e;
    chip.addEventListener("click", () => { held = true; show(e); });
    item.append(chip);
    return item;
  }));
  setOpacity(opacity.findings);
  tellKind();
  show(offered[0] ?? foremost);
  await followAddress();
  draw();
  document.documentElement.dataset.ready = "yes";
}
start().catch((error) => {
  $("trouble").textContent = `The map could not be drawn: ${error.message}. It needs a browser of 2023 or later.`;
  $("trouble").hidden = false;
});
