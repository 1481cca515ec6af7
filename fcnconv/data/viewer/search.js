// Search: by WordNet id or index too. Among equal matches the more probable come first. A concept counts by its most
// probable class until its sum is known, which takes a moment.
function fit(e, query) {
  e.found = 0;
  return e.wnid === query || (!e.concept && String(e.members[0]) === query) ? 0 : fitNames(e, query);
}
const likely = (e) => e.highest ?? Math.max(...e.members.map((k) => classEntry(k).highest ?? 0));
function find(text) {
  const query = plain(text);
  const fits = query ? entries.map((e) => [fit(e, query), e]).filter(([rank]) => rank < 9)
    : entries.filter((e) => !e.concept).map((e) => [0, e]);
  if (fits.length <= 60) fits.forEach(([, e]) => highestOf(e)); // a concept's takes a moment, and is kept
  fits.sort(([a, e], [b, f]) => a - b || likely(f) - likely(e));
  return fits.slice(0, 30).map(([, e]) => e);
}
function openList() {
  const noteOf = (e) => {
    const note = make("span", told(highestOf(e)), "soft number");
    note.title = "highest in this image";
    return note;
  };
  listEntries(find(search.value), noteOf, choose, `No class fits “${search.value}”.`);
  setActive(0);
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

