// The photo: its overview, and where that is not sharp enough tiles of the finer levels, decoded when first seen.
const MOST_TILES = 200;        // decoded at once: 200 MB
const tiles = new Map();       // by their element's id, the last seen at the end
const decoding = new Set();
let overview;

function tile(id) {
  const bitmap = tiles.get(id);
  if (!bitmap) decode(id);
  else { tiles.delete(id); tiles.set(id, bitmap); }
  return bitmap;
}
async function decode(id) {
  const element = $(id);
  if (!element || decoding.has(id) || decoding.size > 7) return; // a later drawing asks again
  decoding.add(id);
  tiles.set(id, await createImageBitmap(new Blob([bytesOf(element.textContent)], { type: "image/webp" })));
  decoding.delete(id);
  for (const [old, bitmap] of tiles) {
    if (tiles.size <= MOST_TILES) break;
    tiles.delete(old);
    bitmap.close();
  }
  redraw();
}

// Draws a part of the image, in image px, over a whole canvas.
function drawPhoto(context, part) {
  const canvas = context.canvas, scale = canvas.width / part.w;
  const across = (x) => Math.round((x - part.x) * scale), down = (y) => Math.round((y - part.y) * canvas.height / part.h);
  const ratioX = overview.width / width, ratioY = overview.height / height;
  context.imageSmoothingQuality = moving ? "low" : "high";
  context.drawImage(overview, part.x * ratioX, part.y * ratioY, part.w * ratioX, part.h * ratioY, 0, 0, canvas.width, canvas.height);
  if (scale <= ratioX) return;
  const enough = map.levels.findIndex((size) => size[0] / width >= scale * 0.8);
  const wanted = enough < 0 ? map.levels.length - 1 : enough;
  for (let level = 0; level <= wanted; level++) { // the coarser ones until the wanted one is decoded
    const stepX = map.tile * width / map.levels[level][0], stepY = map.tile * height / map.levels[level][1];
    const last = { row: Math.ceil(Math.min(part.y + part.h, height) / stepY), col: Math.ceil(Math.min(part.x + part.w, width) / stepX) };
    for (let r = Math.max(Math.floor(part.y / stepY), 0); r < last.row; r++) for (let c = Math.max(Math.floor(part.x / stepX), 0); c < last.col; c++) {
      const id = `tile-${level}-${r}-${c}`, bitmap = level === wanted ? tile(id) : tiles.get(id);
      if (!bitmap) continue;
      const x0 = across(c * stepX), y0 = down(r * stepY); // whole pixels, so that no seam shows
      const x1 = across(Math.min((c + 1) * stepX, width)), y1 = down(Math.min((r + 1) * stepY, height));
      context.drawImage(bitmap, x0, y0, x1 - x0, y1 - y0);
    }
  }
}

