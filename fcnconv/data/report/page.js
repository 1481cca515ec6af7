// The report: its cards, and what chooses, sorts and draws them.
const facts = JSON.parse($("facts").textContent);
$("facts").remove();
const images = facts.images.map(([path, page, thumbnail, width, height, agreement, shown, panels, told]) => {
  const peaks = []; // highest first
  for (let i = 0; i < told.length; i += 2) peaks.push({ of: told[i], p: told[i + 1] / 1e4 });
  return { path, page, thumbnail, width, height, agreement, shown, panels, peaks };
});

// What can be searched. key: as it stands in an address; two classes may have one name, and are told by their index.
const classes = facts.classes.map(([index, name, twice], number) => ({
  name, members: [number], key: twice ? String(index) : name, label: twice ? `${name} (class ${index})` : name,
}));
const concepts = facts.concepts.map(([name, also, members]) => ({
  name, members, also, key: name, label: `${name} (${members.length} ${members.length === 1 ? "class" : "classes"} here)`,
}));
const entries = [...classes, ...concepts];
const having = classes.map(() => []); // of each class, the images that tell it, and its peaks there
images.forEach((image, i) => { for (const { of, p } of image.peaks) having[of].push([i, p]); });

const state = { entry: null, text: "", least: 0, sort: "name" };
let value;       // of each image the peak that counts: of the class that is chosen, or the highest; -1 where none is told
let view = [];   // the images that fit, in order

// The peak of an entry in each image, -1 where it is not told.
function peaksOf(entry) {
  const found = new Float32Array(images.length).fill(-1);
  for (const member of entry.members) for (const [i, p] of having[member]) if (p > found[i]) found[i] = p;
  return found;
}
const highest = Float32Array.from(images, (image) => image.peaks[0]?.p ?? -1);
const many = (n) => `${n.toLocaleString("en")} ${n === 1 ? "image" : "images"}`;

function update() {
  const { entry, least, sort } = state, text = plain(state.text);
  value = entry ? peaksOf(entry) : highest;
  view = [];
  images.forEach((image, i) => {
    if ((entry ? value[i] < 0 : false) || value[i] < least) return;
    if (text && !(image.plain ??= plain(image.path)).includes(text)) return;
    view.push(i);
  });
  const order = {
    peak: (i, j) => value[j] - value[i], "-peak": (i, j) => value[i] - value[j],
    agreement: (i, j) => (images[i].agreement ?? 2) - (images[j].agreement ?? 2),
  }[sort];
  if (order) view.sort(order); // the rest of the order is that of the names
  $("count").textContent = view.length === images.length ? many(images.length) : `${view.length.toLocaleString("en")} of ${many(images.length)}`;
  $("nothing").hidden = view.length > 0;
  $("nothing").textContent = images.length ? "No image fits." : "No image has a map.";
  shown.clear();
  grid.replaceChildren();
  layOut();
}

// The grid: of all cards only those near the part in sight are there.
const grid = $("grid"), shown = new Map(); // place in the view -> element
const GAP = 14, WORDS = 127, AHEAD = 600;
let columns = 1, wide = 0, high = 0, focused = -1;
function layOut() {
  const width = grid.clientWidth, least = width < 600 ? 150 : 225;
  columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
  wide = (width - GAP * (columns - 1)) / columns;
  const picture = Math.round(wide * 0.75);
  high = picture + WORDS;
  for (const [name, length] of [["wide", wide], ["picture", picture], ["high", high]]) grid.style.setProperty(`--${name}`, `${length}px`);
  grid.style.height = `${Math.max(0, Math.ceil(view.length / columns) * (high + GAP) - GAP)}px`;
  for (const [place, item] of shown) put(item, place);
  draw();
}
function put(item, place) {
  item.style.transform = `translate(${(place % columns) * (wide + GAP)}px, ${Math.floor(place / columns) * (high + GAP)}px)`;
}
function draw() {
  const top = -grid.getBoundingClientRect().top, row = high + GAP;
  const first = Math.max(0, Math.floor((top - AHEAD) / row)) * columns;
  const last = Math.min(view.length, Math.ceil((top + innerHeight + AHEAD) / row) * columns);
  const wanted = new Set();
  for (let place = first; place < last; place++) wanted.add(place);
  if (focused >= 0 && focused < view.length && shown.has(focused)) wanted.add(focused); // the focus is not lost
  for (const [place, item] of shown) if (!wanted.has(place)) { item.remove(); shown.delete(place); }
  let after = null; // from the last to the first, so that the order of the elements is that of the view
  for (const place of [...wanted].sort((a, b) => b - a)) {
    let item = shown.get(place);
    if (!item) {
      item = card(images[view[place]], view[place]);
      item.setAttribute("aria-posinset", place + 1);
      item.setAttribute("aria-setsize", view.length);
      put(item, place);
      shown.set(place, item);
      grid.insertBefore(item, after);
    }
    after = item;
  }
}
let drawing = 0;
addEventListener("scroll", () => { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); }, { passive: true });
new ResizeObserver(() => { if (grid.clientWidth !== Math.round(columns * (wide + GAP) - GAP)) layOut(); }).observe(grid);

function card(image, i) {
  const item = make("li"), link = make("a", "", "card"), picture = make("span", "", "picture"), words = make("span", "", "words");
  const cut = image.path.lastIndexOf("/");
  const lines = image.peaks.slice(0, 3).map(({ of, p }) => ({ label: classes[of].label, p, part: !!state.entry?.members.includes(of) }));
  if (state.entry && !(state.entry.members.length === 1 && lines[0]?.part)) {
    const rest = state.entry.members.length === 1 ? lines.filter((line) => !line.part) : lines;
    lines.splice(0, 3, { label: state.entry.name, p: value[i], part: true }, ...rest.slice(0, 2));
  }
  link.href = image.page + (state.entry ? `#class=${encodeURIComponent(state.entry.key)}` : "");
  const known = [`${image.width.toLocaleString("en")} × ${image.height.toLocaleString("en")} px`];
  if (image.agreement !== null) known.push(`agrees with crops in ${Math.round(100 * image.agreement)} % of the windows`);
  link.title = [image.path, ...known].join("\n");
  link.setAttribute("aria-label", `${image.path}: ${lines.map(({ label, p }) => `${label} ${told(p)}`).join(", ")}`);
  const photo = make("img");
  photo.alt = "";
  photo.loading = "lazy";
  photo.decoding = "async";
  photo.src = image.thumbnail;
  // Its thumbnails stand below each other, one for each peak: that of the class that was searched is in sight.
  const searched = image.panels > 1 && state.entry ? image.peaks.findIndex(({ of }) => state.entry.members.includes(of)) : -1;
  const panel = searched < 0 ? image.shown : searched;
  const clip = make("span", "", "clip"), place = image.panels > 1 ? panel : 0;
  for (const [name, value] of [["ratio", image.width / image.height], ["panels", image.panels], ["panel", place]]) clip.style.setProperty(`--${name}`, value);
  clip.append(photo);
  picture.append(clip, make("span", classes[image.peaks[panel].of].label, "name"));
  words.append(make("strong", image.path.slice(cut + 1), "line"), make("span", image.path.slice(0, Math.max(cut, 0)) || " ", "soft line"));
  for (const { label, p, part } of lines) {
    const bar = make("span", "", part ? "bar part" : "bar"), track = make("span", "", "track"), length = make("i");
    length.style.width = `${100 * p}%`;
    track.append(length);
    bar.append(make("span", label, "line"), make("span", told(p), "number"), track);
    words.append(bar);
  }
  link.append(picture, words);
  item.append(link);
  return item;
}

// Keys among the cards: arrows go from one to the next, Home and End to the first and the last.
grid.addEventListener("focusin", (event) => { focused = placeOf(event.target); });
grid.addEventListener("focusout", () => { focused = -1; });
const placeOf = (element) => [...shown].find(([, item]) => item.contains(element))?.[0] ?? -1;
grid.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const place = placeOf(event.target);
  const to = { ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: view.length - 1 }[event.key];
  if (to === undefined || place < 0) return;
  event.preventDefault();
  if (to < 0 || to >= view.length) return;
  const bar = document.querySelector(".tools"), under = getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  const top = grid.getBoundingClientRect().top + scrollY + Math.floor(to / columns) * (high + GAP);
  if (top - GAP - under < scrollY) scrollTo(0, top - GAP - under);
  else if (top + high + GAP > scrollY + innerHeight) scrollTo(0, top + high + GAP - innerHeight);
  draw();
  shown.get(to).firstChild.focus({ preventScroll: true });
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  event.preventDefault();
  search.focus();
});

// Search: of equal fit those of more images come first.
function find(text) {
  const query = plain(text);
  const fits = (query ? entries : classes).map((entry) => [query ? fitNames(entry, query) : (entry.found = 0), entry]).filter(([rank]) => rank < 9);
  for (const [, entry] of fits) {
    if (entry.count !== undefined) continue;
    const peaks = peaksOf(entry).filter((p) => p >= 0);
    entry.count = peaks.length;
    entry.highest = peaks.reduce((a, b) => Math.max(a, b), 0);
  }
  fits.sort(([a, e], [b, f]) => a - b || f.count - e.count || f.highest - e.highest);
  return fits.slice(0, 40).map(([, entry]) => entry);
}
function openList() {
  const noteOf = (entry) => make("span", `${many(entry.count)}, up to ${told(entry.highest)}`, "soft number");
  const list = find(search.value === state.entry?.label ? "" : search.value);
  listEntries(list, noteOf, choose, `No class that occurs fits “${search.value}”.`);
  setActive(Math.max(0, list.indexOf(state.entry)));
}
function leaveList() {
  closeList();
  search.value = state.entry?.label ?? "";
}
function choose(entry) {
  if (entry && !state.entry && state.sort === "name") state.sort = "peak";
  state.entry = entry;
  leaveList();
  if (document.activeElement === search) search.select(); // the next word replaces it
  tell();
  update();
}
search.addEventListener("focus", () => { search.select(); openList(); });
search.addEventListener("click", () => { if (found.hidden) openList(); });
search.addEventListener("input", openList);
search.addEventListener("blur", leaveList);
search.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); if (found.hidden) openList(); else setActive(active + step); }
  else if (event.key === "Enter") {
    const option = found.querySelectorAll("[role=option]")[active];
    if (!search.value.trim()) choose(null);
    else if (!found.hidden && option) choose(option.entry);
  } else if (event.key === "Escape") leaveList();
});
$("clear").addEventListener("click", () => { choose(null); search.focus(); });
$("text").addEventListener("input", () => { state.text = $("text").value; tell(); update(); });
$("least").addEventListener("input", () => { state.least = clamp(+$("least").value || 0, 0, 1); tell(); update(); });
$("sort").addEventListener("change", () => { state.sort = $("sort").value; tell(); update(); });

// The state stands in the address, behind the #.
function tell() {
  $("clear").hidden = !state.entry;
  $("sort").value = state.sort;
  const parts = [["class", state.entry?.key], ["text", state.text], ["least", state.least || ""], ["sort", state.sort === "name" ? "" : state.sort]];
  const told = parts.filter(([, value]) => value).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  history.replaceState(null, "", told ? `#${told}` : location.pathname + location.search);
}
function restore() {
  const asked = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const key = asked.get("class");
  state.entry = entries.find((entry) => entry.key === key) ?? null;
  state.text = asked.get("text") ?? "";
  state.least = clamp(+asked.get("least") || 0, 0, 1);
  state.sort = [...$("sort").options].some(({ value }) => value === asked.get("sort")) ? asked.get("sort") : "name";
  $("text").value = state.text;
  $("least").value = state.least;
  $("sort").value = state.sort;
  $("clear").hidden = !state.entry;
  search.value = state.entry?.label ?? "";
  update();
}
addEventListener("hashchange", restore);
try {
  restore();
  document.documentElement.dataset.ready = "yes";
} catch (error) {
  $("trouble").textContent = `The images could not be listed: ${error.message}. It needs a browser of 2023 or later.`;
  $("trouble").hidden = false;
}
