// The view: which part of the image the stage shows, and the gestures that change it.
const stage = $("stage");
const view = { zoom: 1, x: width / 2, y: height / 2 }; // 1 is the whole image; the place in its middle, in image px
const zoomed = () => view.zoom > 1;
const mostZoom = () => Math.max(4, 8 * width / stage.clientWidth); // 8 CSS px an image px

let moving = false, settling;  // what moves is drawn coarser, so that it keeps up

// The visible part of the image, in image px.
function visible() {
  const w = width / view.zoom, h = height / view.zoom;
  return { x: view.x - w / 2, y: view.y - h / 2, w, h };
}

function lookAt(zoom, x, y) {
  view.zoom = clamp(zoom, 1, mostZoom());
  const w = width / view.zoom, h = height / view.zoom;
  view.x = clamp(x, w / 2, width - w / 2);
  view.y = clamp(y, h / 2, height - h / 2);
  stage.classList.toggle("zoomed", zoomed());
  moving = true;
  clearTimeout(settling);
  settling = setTimeout(() => { moving = false; redraw(); }, 150);
  redraw();
  keepAddress();
}

// Zooms by a factor about a place of the image, which stays where it is on the screen.
function zoomBy(factor, { x, y }) {
  const zoom = clamp(view.zoom * factor, 1, mostZoom()), left = view.zoom / zoom;
  lookAt(zoom, x + (view.x - x) * left, y + (view.y - y) * left);
}

// Moves the view as little as shows a part of the image, or else its middle.
function reveal({ x, y, w, h }) {
  const seen = visible();
  const start = (from, length, low, size) => size > length ? low + (size - length) / 2 : clamp(from, low + size - length, low);
  lookAt(view.zoom, start(seen.x, seen.w, x, w) + seen.w / 2, start(seen.y, seen.h, y, h) + seen.h / 2);
}

// The place in the image under a pointer.
function placeAt({ clientX, clientY }) {
  const box = stage.getBoundingClientRect(), seen = visible();
  return { x: seen.x + (clientX - box.left) / box.width * seen.w, y: seen.y + (clientY - box.top) / box.height * seen.h };
}
const cellAt = (event) => cellOf(placeAt(event));
function cellOf({ x, y }) {
  return [Math.floor((y - covered.y) / (stride * perY)), Math.floor((x - covered.x) / (stride * perX))];
}

// Pointers: hover moves the window, a click or a tap holds it, a drag moves the view, two fingers zoom it.
const fingers = new Map();
let dragged = false;
const middle = ([a, b]) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
function panFrom(before, after) {
  const a = placeAt(before), b = placeAt(after);
  lookAt(view.zoom, view.x + a.x - b.x, view.y + a.y - b.y);
}
stage.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  if (!fingers.size) dragged = false;
  const { clientX, clientY } = event;
  fingers.set(event.pointerId, { clientX, clientY, startX: clientX, startY: clientY });
});
stage.addEventListener("pointermove", (event) => {
  const finger = fingers.get(event.pointerId);
  if (!finger || (fingers.size === 1 && !zoomed())) {
    if (!held || event.pointerType !== "mouse") moveTo(...cellAt(event));
    return;
  }
  if (!dragged && Math.hypot(event.clientX - finger.startX, event.clientY - finger.startY) < 5) return;
  dragged = true;
  stage.classList.add("dragged");
  stage.setPointerCapture(event.pointerId); // also where the pointer leaves the photo
  const before = [...fingers.values()].map((one) => ({ ...one }));
  Object.assign(finger, { clientX: event.clientX, clientY: event.clientY });
  const after = [...fingers.values()];
  if (after.length === 2) {
    zoomBy(apart(after) / Math.max(apart(before), 1), placeAt(middle(before)));
    panFrom(middle(before), middle(after));
  } else if (after.length === 1) panFrom(before[0], after[0]);
});
for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(end, (event) => {
  fingers.delete(event.pointerId);
  if (!fingers.size) stage.classList.remove("dragged");
});
stage.addEventListener("pointerleave", (event) => { if (!dragged) fingers.delete(event.pointerId); });
stage.addEventListener("touchmove", (event) => { // one finger scrolls the page while the whole photo is seen
  if (event.cancelable && (event.touches.length > 1 || zoomed())) event.preventDefault();
}, { passive: false });
stage.addEventListener("click", (event) => {
  if (dragged) return;
  held = !held || event.pointerType === "touch";
  moveTo(...cellAt(event));
});

// The wheel zooms the photo, but not where somebody scrolls down the page past it, or back up to it: what a turn
// of the wheel does is settled at its start.
let turned = -Infinity, turnZooms = false;
stage.addEventListener("wheel", (event) => {
  if (event.timeStamp - turned > 250) turnZooms = event.ctrlKey || zoomed() || (event.deltaY < 0 && window.scrollY <= 0);
  turned = event.timeStamp;
  if (!turnZooms && !event.ctrlKey) return;
  event.preventDefault();
  const px = event.deltaY * [1, 20, 400][event.deltaMode];
  zoomBy(Math.exp(-clamp(px, -300, 300) * (event.ctrlKey ? 0.01 : 0.002)), placeAt(event)); // a pinch on a trackpad has ctrl
}, { passive: false });

