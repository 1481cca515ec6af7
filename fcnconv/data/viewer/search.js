// Search. Entries that fit, best fit first: equal, a whole word, start, start of a word, part, all words somewhere.
const plain = (text) => text.normalize("NFD").replace(/[\p{M}'’]/gu, "").toLowerCase().replace(/[\s_-]+/g, " ").trim();
function fit(e, query) {
  e.found = 0;
  if (e.wnid === query || (!e.concept && String(e.members[0]) === query)) return 0;
  e.plain ??= [e.name, ...(e.also ?? [])].map(plain);
  const ranks = e.plain.map((name) => fitName(name, query));
  e.found = ranks.indexOf(Math.min(...ranks)); // 0: by its usual name
  return ranks[e.found];
}
function fitName(name, query) {
  if (name === query) return 0;
  if (` ${name} `.includes(` ${query} `)) return 1;
  if (name.startsWith(query)) return 2;
  if (name.includes(" " + query)) return 3;
  if (name.includes(query)) return 4;
  return query.split(" ").every((word) => name.includes(word)) ? 5 : 9;
}
function find(text) {
  const query = plain(text);
  const fits = query ? entries.map((e) => [fit(e, query), e]).filter(([rank]) => rank < 9)
    : entries.filter((e) => !e.concept).map((e) => [0, e]);
  if (fits.length <= 60) fits.forEach(([, e]) => highestOf(e)); // a concept's takes a moment, and is kept
  fits.sort(([a, e], [b, f]) => a - b || (e.concept ? 1 : 0) - (f.concept ? 1 : 0) || (f.highest ?? 0) - (e.highest ?? 0));
  return fits.slice(0, 30).map(([, e]) => e);
}
const search = $("search"), found = $("found");
let active = 0;
function openList() {
  const list = find(search.value);
  found.replaceChildren(...list.map((e, i) => {
    const item = make("li");
    item.id = `found-${i}`;
    item.setAttribute("role", "option");
    item.entry = e;
    const note = make("span", told(highestOf(e)), "soft number");
    note.title = "highest in this image";
    item.append(make("span", e.found ? `${e.label}: ${e.also[e.found - 1]}` : e.label), note);
    item.addEventListener("pointerdown", (event) => event.preventDefault()); // the box keeps the focus
    item.addEventListener("click", () => choose(e));
    return item;
  }));
  if (!list.length) found.append(make("li", `No class fits “${search.value}”.`, "none soft"));
  found.hidden = false;
  search.setAttribute("aria-expanded", "true");
  setActive(0);
}
function closeList() {
  found.hidden = true;
  search.setAttribute("aria-expanded", "false");
  search.removeAttribute("aria-activedescendant");
}
function setActive(i) {
  const options = [...found.querySelectorAll("[role=option]")];
  active = clamp(i, 0, options.length - 1);
  options.forEach((option, n) => option.setAttribute("aria-selected", n === active));
  if (!options.length) return;
  options[active].scrollIntoView({ block: "nearest" });
  search.setAttribute("aria-activedescendant", options[active].id);
}
function choose(e) {
  search.value = "";
  closeList();
  search.blur();
  $("stage").focus({ preventScroll: true });
  held = true; // the pointer's way back over the photo shall not move the window
  show(e);
  speak();
}
search.addEventListener("focus", openList);
search.addEventListener("input", openList);
search.addEventListener("blur", closeList);
search.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); if (found.hidden) openList(); else setActive(active + step); }
  else if (event.key === "Enter") { const option = found.querySelectorAll("[role=option]")[active]; if (!found.hidden && option) choose(option.entry); }
  else if (event.key === "Escape") { search.value = ""; closeList(); $("stage").focus({ preventScroll: true }); }
});

