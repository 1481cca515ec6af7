"use strict";
// What the pages share: words, numbers, elements, and the list of names that a search finds.
const $ = (id) => document.getElementById(id);
const told = (p) => p > 0 && p < 0.005 ? "< 0.01" : p.toFixed(2);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
function make(tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text ?? "";
  if (className) element.className = className;
  return element;
}

// How well an entry's names fit what is searched, 0 best, 9 not: equal, a whole word, start, start of a word, part, all
// words somewhere. found: by which of its names, 0 its usual one.
const plain = (text) => text.normalize("NFD").replace(/[\p{M}'’]/gu, "").toLowerCase().replace(/[\s_-]+/g, " ").trim();
function fitNames(entry, query) {
  entry.plain ??= [entry.name, ...(entry.also ?? [])].map(plain);
  const ranks = entry.plain.map((name) => fitName(name, query));
  entry.found = ranks.indexOf(Math.min(...ranks));
  return ranks[entry.found];
}
function fitName(name, query) {
  if (name === query) return 0;
  if (` ${name} `.includes(` ${query} `)) return 1;
  if (name.startsWith(query)) return 2;
  if (name.includes(" " + query)) return 3;
  if (name.includes(query)) return 4;
  return query.split(" ").every((word) => name.includes(word)) ? 5 : 9;
}

// The list under the box of the search, which keeps the focus.
const search = $("search"), found = $("found");
let active = 0;
function listEntries(list, noteOf, choose, nothing) {
  found.replaceChildren(...list.map((entry, i) => {
    const item = make("li");
    item.id = `found-${i}`;
    item.setAttribute("role", "option");
    item.entry = entry;
    item.append(make("span", entry.found ? `${entry.label}: ${entry.also[entry.found - 1]}` : entry.label), noteOf(entry));
    item.addEventListener("pointerdown", (event) => event.preventDefault());
    item.addEventListener("click", () => choose(entry));
    return item;
  }));
  if (!list.length) found.append(make("li", nothing, "none soft"));
  found.hidden = false;
  search.setAttribute("aria-expanded", "true");
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

