// Regions: the connected areas where the class shown reaches the threshold, their outlines and their list.
const REGION_LINES = 12;       // so many are listed
const threshold = () => +$("threshold").value;
let chosen = false;            // whether the user set the threshold; until then it is half of the class's highest

// Outlines by marching squares over the cells' centres, where the plane is bilinear; it is 0 outside of the map. One
// SVG path in image px: every square adds the segments that cross it.
function outlinesOf(values, level) {
  const at = (r, c) => r < 0 || c < 0 || r >= rows || c >= cols ? 0 : values[r * cols + c];
  const centre = (cell, distance) => cell * stride + distance; // in scanned px
  const parts = [];
  for (let r = -1; r < rows; r++) for (let c = -1; c < cols; c++) {
    const [a, b, d, e] = [at(r, c), at(r, c + 1), at(r + 1, c), at(r + 1, c + 1)]; // left top, right top, left bottom, right bottom
    const inside = (a >= level ? 8 : 0) | (b >= level ? 4 : 0) | (e >= level ? 2 : 0) | (d >= level ? 1 : 0);
    if (inside === 0 || inside === 15) continue;
    const share = (from, to) => (level - from) / (to - from);
    const edges = { top: () => [r, c + share(a, b)], right: () => [r + share(b, e), c + 1], bottom: () => [r + 1, c + share(d, e)], left: () => [r + share(a, d), c] };
    for (const [from, to] of SEGMENTS[inside]) {
      const [p, q] = [edges[from](), edges[to]()].map(([y, x]) => [
        clamp(centre(x, side / 2) * perX, 0, width).toFixed(1), clamp(centre(y, side / 2) * perY, 0, height).toFixed(1)]);
      parts.push(`M${p}L${q}`);
    }
  }
  return parts.join("");
}
const SEGMENTS = {
  1: [["left", "bottom"]], 2: [["bottom", "right"]], 3: [["left", "right"]], 4: [["top", "right"]],
  5: [["top", "left"], ["bottom", "right"]], 6: [["top", "bottom"]], 7: [["top", "left"]], 8: [["top", "left"]],
  9: [["top", "bottom"]], 10: [["top", "right"], ["left", "bottom"]], 11: [["top", "right"]], 12: [["left", "right"]],
  13: [["bottom", "right"]], 14: [["left", "bottom"]],
};

// The connected cells that reach the level, neighbours by an edge: the highest cell of each and how many it has.
function regionsOf(values, level) {
  const seen = new Uint8Array(cells), found = [];
  for (let start = 0; start < cells; start++) {
    if (seen[start] || values[start] < level) continue;
    const stack = [start], region = { peak: start, count: 0 };
    seen[start] = 1;
    while (stack.length) {
      const cell = stack.pop(), c = cell % cols;
      region.count++;
      if (values[cell] > values[region.peak]) region.peak = cell;
      for (const [next, there] of [[cell - cols, cell >= cols], [cell + cols, cell + cols < cells], [cell - 1, c > 0], [cell + 1, c < cols - 1]])
        if (there && !seen[next] && values[next] >= level) { seen[next] = 1; stack.push(next); }
    }
    found.push(region);
  }
  return found.sort((a, b) => values[b.peak] - values[a.peak]);
}

function tellRegions() {
  if (!chosen) $("threshold").value = entry.highest / 2;
  const level = threshold(), found = showsWinners() ? [] : regionsOf(plane, level);
  $("reached").textContent = `≥ ${level.toFixed(2)}`;
  const path = found.length ? outlinesOf(plane, level) : "";
  for (const id of ["rim", "outline"]) $(id).setAttribute("d", path);
  const items = found.slice(0, REGION_LINES).map(({ peak, count }) => {
    const item = make("li"), button = make("button", "");
    button.type = "button";
    const at = [(peak % cols * stride + side / 2) * perX, (Math.floor(peak / cols) * stride + side / 2) * perY].map(Math.round);
    button.append(make("span", `${told(plane[peak])} at ${at.join(", ")}`), make("span", `${share(count / cells)} of the map`, "soft number"));
    button.addEventListener("click", () => { held = true; moveTo(Math.floor(peak / cols), peak % cols); reveal(windowBox()); speak(); });
    item.append(button);
    return item;
  });
  if (found.length > REGION_LINES) items.push(make("li", `${found.length - REGION_LINES} more`, "soft"));
  if (!found.length && !showsWinners()) items.push(make("li", "No part of the map reaches this probability.", "soft"));
  $("regions").replaceChildren(...items);
}
const share = (part) => part < 0.01 ? "< 1 %" : `${Math.round(100 * part)} %`;
$("threshold").addEventListener("input", () => { chosen = true; tellRegions(); });

// A second class beside the first: the same part of the photo with its own map.
let second = null, secondPlane;
function tellSecond() {
  const two = Boolean(second) && !showsWinners();
  $("beside").hidden = !two;
  document.querySelector(".frame").classList.toggle("two", two);
  $("compare").textContent = second ? "Close the comparison" : "Compare two classes";
  if (!second) return;
  secondPlane = planeOf(second.members);
  const words = `${second.label}, up to ${told(highestOf(second))}`;
  document.querySelector("#beside figcaption").textContent = words;
  $("second").setAttribute("aria-label", `Photo with the map of ${words}`);
}
function drawSecond(fine, coarse) {
  if (!second || showsWinners()) return;
  const canvas = $("second"), box = stage.getBoundingClientRect();
  const w = Math.max(1, Math.round(box.width * fine)), h = Math.max(1, Math.round(box.height * fine));
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  drawPhoto(context, visible());
  const over = document.createElement("canvas");
  Object.assign(over, { width: Math.round(box.width * coarse), height: Math.round(box.height * coarse) });
  const first = plane;
  plane = secondPlane;
  drawMap(over.getContext("2d"));
  plane = first;
  context.globalAlpha = $("opacity").value / 100;
  context.drawImage(over, 0, 0, w, h);
  context.globalAlpha = 1;
}
$("compare").addEventListener("click", () => {
  if (second) second = null;
  else {
    const others = [...$("chips").querySelectorAll("button")].map((chip) => chip.entry).filter((one) => one !== entry && !one.concept);
    second = entry; // stays, and the next choice stands beside it
    if (others.length) { show(others[0]); return; }
  }
  tellMap();
});

// What the stage shows as a PNG, with the class and its highest probability below.
$("export").addEventListener("click", () => {
  const ground = $("ground"), ratio = ground.width / stage.clientWidth, line = Math.round(34 * ratio);
  const pictures = [ground, ...(second && !showsWinners() ? [$("second")] : [])];
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: ground.width * pictures.length, height: ground.height + line });
  const context = canvas.getContext("2d");
  context.fillStyle = "#121214";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(ground, 0, 0);
  context.globalAlpha = $("opacity").value / 100;
  context.drawImage($("map"), 0, 0, ground.width, ground.height);
  context.globalAlpha = 1;
  if (second && !showsWinners()) context.drawImage($("second"), ground.width, 0);
  const path = $("outline").getAttribute("d");
  if (path && !showsWinners()) {
    const seen = visible(), outline = new Path2D();
    outline.addPath(new Path2D(path), new DOMMatrix([ground.width / seen.w, 0, 0, ground.height / seen.h, -seen.x * ground.width / seen.w, -seen.y * ground.height / seen.h]));
    context.save();
    context.beginPath();
    context.rect(0, 0, ground.width, ground.height);
    context.clip();
    for (const [colour, wide] of [["#0008", 4], ["#fff", 1.5]]) { context.strokeStyle = colour; context.lineWidth = wide * ratio; context.stroke(outline); }
    context.restore();
  }
  context.fillStyle = "#f0f0f0";
  context.textBaseline = "middle";
  context.font = `${Math.round(15 * ratio)}px system-ui, sans-serif`;
  const words = showsWinners() ? ["most probable class of each place"]
    : [entry, ...(second ? [second] : [])].map((one) => `${one.label}, up to ${told(highestOf(one))}`);
  words.forEach((text, i) => context.fillText(text, i * ground.width + 12 * ratio, ground.height + line / 2, ground.width - 24 * ratio));
  canvas.toBlob((blob) => {
    const link = make("a"), address = URL.createObjectURL(blob);
    link.href = address;
    link.download = `${map.name.replace(/\.[^.]*$/, "")}-${showsWinners() ? "top-class" : entry.name.replace(/\W+/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
});
