"""Labels: the names of a classifier's classes and of the concepts above them, and the search by name, with
suggestions for names that are spelt nearly like a word.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

from fcnconv.errors import UsageError
from fcnconv.provenance import Activation

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Selection:
    """A category, or a concept above several categories. The probability of a concept is their sum.

    name: the usual name.
    classes: class indices, ascending; a category has one.
    wnid: the WordNet id; None if the classes have no ids.
    also: other names of a concept.
    """

    name: str
    classes: tuple[int, ...]
    wnid: str | None = None
    also: tuple[str, ...] = ()

    @property
    def class_idx(self) -> int | None:
        """The class index of a category; None for a concept."""
        return self.classes[0] if len(self.classes) == 1 else None

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the selection, the usual one first."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier, in index order.

    categories: one readable name per class.
    wnids: one WordNet id per class (``n02124075``), or empty if the classes have no ids.
    concepts: WordNet's concepts above the categories, the widest first; empty if the classes have no ids.
    activation: whether the classes exclude each other, see `activations.ACTIVATIONS`.
    """

    categories: tuple[str, ...]
    wnids: tuple[str, ...] = ()
    concepts: tuple[Selection, ...] = ()
    activation: Activation = "softmax"

    def under(self, activation: Activation | None) -> Labels:
        """The same classes under another activation.

        Only classes that exclude each other keep their concepts, because the probability of a concept is a
        sum over classes.

        Args:
            activation: the activation. None is softmax, and sigmoid for a single class.

        Raises:
            UsageError: softmax for a single class, which would be 1 for every image.
        """
        if activation == "softmax" and len(self) == 1:
            raise UsageError(
                "--activation softmax of a single output is 1 everywhere; leave it out to use sigmoid"
            )
        activation = activation or ("sigmoid" if len(self) == 1 else "softmax")
        concepts = self.concepts if activation == "softmax" else ()
        return replace(self, concepts=concepts, activation=activation)

    def __len__(self) -> int:
        return len(self.categories)

    def wnid(self, class_idx: int) -> str | None:
        """The WordNet id of a class; None if the classes have no ids."""
        return self.wnids[class_idx] if self.wnids else None

    def category(self, class_idx: int) -> Selection:
        """The selection of one class."""
        return Selection(self.categories[class_idx], (class_idx,), self.wnid(class_idx))

    def all_categories(self) -> tuple[Selection, ...]:
        """A selection for each class, in index order."""
        return tuple(map(self.category, range(len(self))))

    def selections(self) -> tuple[Selection, ...]:
        """All selections: the categories in index order, then the concepts."""
        return (*self.all_categories(), *self.concepts)

    def same(self, class_idx: int | None, name: str) -> Selection:
        """The selection of an answer: the class with this index, or without an index the concept `name`."""
        if class_idx is not None:
            return self.category(class_idx)
        return next(concept for concept in self.concepts if concept.name == name)

    def search(self, pattern: str) -> list[Selection]:
        """Every category and concept with `pattern` in a name or in its WordNet id, the concepts first."""
        text = folded(pattern)
        return [
            s
            for s in (*self.concepts, *self.all_categories())
            if any(text in folded(name) for name in (*s.names, s.wnid or ""))
        ]

    def find(self, query: str) -> Selection:
        """Find the category or concept that `query` names.

        Args:
            query: a class index, a WordNet id, or a name. Case does not matter, ``_`` stands for a space, and
                apostrophes may be missing. Whole names (or their plurals) are tried first, then the starts of
                names, then parts of names. In each of these steps, categories are tried before concepts.

        Raises:
            UsageError: nothing fits, with close spellings; or several names fit, with their indices.
        """
        text = folded(query)
        if text.isdecimal():
            if len(text) < 10 and int(text) < len(self):
                return self.category(int(text))
            raise UsageError(
                f"class index {text} is out of range: this model has classes 0 to {len(self) - 1}"
            )
        categories = self.all_categories()
        exact = [s for s in (*categories, *self.concepts) if s.wnid == text or s.name == query.strip()]
        if len(exact) == 1:  # "Cardigan" is a dog, but "cardigan" is a garment
            return exact[0]
        for fits in (str.__eq__, _is_plural, str.startswith, str.__contains__):
            for pool in (categories, self.concepts):
                matches = [s for s in pool if text and any(fits(folded(name), text) for name in s.names)]
                if len(matches) == 1:
                    if fits in (str.startswith, str.__contains__):
                        log.info(
                            "class %r: the only name with this part is %s", query, _some(matches, give="")
                        )
                    return matches[0]
                if matches:
                    raise UsageError(f"class {query!r} fits several: {_some(matches)}")
        spellings = {folded(name): name for s in (*categories, *self.concepts) for name in s.names}
        hint = " or ".join(repr(spellings[name]) for name in close_names(text, spellings))
        raise UsageError(
            f"unknown class {query!r}; "
            + (f"did you mean {hint}? " if hint else "")
            + "'fcnconv classes' lists all names"
        )


@lru_cache(maxsize=8192)  # holds all names of ImageNet, which every search compares
def folded(name: str) -> str:
    """A name normalized for comparison: without case and apostrophes, and with spaces for ``_``."""
    return " ".join(name.casefold().replace("_", " ").replace("'", "").split())


def _is_plural(name: str, text: str) -> bool:
    return text in (f"{name}s", f"{name}es")


def _some(matches: Sequence[Selection], give: str | None = None) -> str:
    names = (s.name if s.class_idx is None else f"{s.class_idx} {s.name}" for s in matches[:6])
    more = f" and {len(matches) - 6} more" if len(matches) > 6 else ""
    give = (
        "; give " + ("the whole name" if matches[0].class_idx is None else "the index")
        if give is None
        else give
    )
    return f"{', '.join(names)}{more}{give}"


@cache
def imagenet() -> Labels:
    """The 1,000 classes of ILSVRC 2012, in index order, with their WordNet ids and concepts."""
    wnids, categories = zip(*_table("imagenet.tsv"), strict=True)
    concepts = []
    for wnid, names, indices in _table("concepts.tsv"):
        name, *also = names.split(", ")
        concepts.append(Selection(name, tuple(_indices(indices)), wnid, tuple(also)))
    return Labels(categories, wnids, tuple(concepts))


def _table(name: str) -> Iterable[list[str]]:
    text = files("fcnconv").joinpath("data", name).read_text(encoding="utf-8")
    return (line.split("\t") for line in text.splitlines())


def _indices(ranges: str) -> Iterable[int]:
    """The numbers of a list of ranges such as ``0-6,9``."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def numbered(num_classes: int) -> Labels:
    """Labels for classes without names: ``class 0``, ``class 1``, …"""
    return Labels(tuple(f"class {i}" for i in range(num_classes)))


def named(categories: Sequence[str]) -> Labels:
    """Labels with the given names, in index order.

    ImageNet's list, as names or as WordNet ids, also gets ImageNet's concepts. In other lists, WordNet ids of
    ImageNet become ImageNet's names.
    """
    known = imagenet()
    by_wnid = dict(zip(known.wnids, known.categories, strict=True))
    if tuple(categories) in (known.categories, known.wnids):
        return known
    if all(name in by_wnid for name in categories):
        return Labels(tuple(by_wnid[name] for name in categories), tuple(categories))
    return Labels(tuple(by_wnid.get(name, name) for name in categories))


LETTERS_AN_EDIT = 4
"""One wrong letter is allowed per so many letters of the longer word, and at least one in every word.

Measured on ImageNet's names, with 30 everyday words that are not in the list, such as giraffe, donkey or
maple: one word gets a suggestion (moose: mouse). With difflib's ratio and a cutoff of 0.6, 28 words get one.
All 30 misspellings in `tests/test_spelling.py` find their name. Some worse ones (vehical, chiwawa) do not.
"""

_SHORT = 4
"""In words of up to so many letters, a replaced letter usually makes another word (rose, robe)."""


def close_names(word: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Find the names that a word may misspell, the closest first.

    A name also counts if one of its words is close (`pengiun`: king penguin), or if it is the end of a
    compound that begins like a known name (`honeybea`: bee, because there is a honeycomb).

    Args:
        word: the word that the user typed, in lower case.
        names: all known names, in lower case.
        most: how many names to return.
    """
    known = list(dict.fromkeys(names))
    whole = {name: distance for name in known if (distance := spelling_distance(word, name)) is not None}
    if not whole:
        parts = {name: [part for part in name.split() if len(part) > _SHORT] for name in known}
        whole = {
            name: min(distances)
            for name, words in parts.items()
            if (distances := [d for part in words if (d := spelling_distance(word, part)) is not None])
        }
    if not whole:
        whole = {
            name: distance for name in known if (distance := _as_compound(word, name, known)) is not None
        }
    return sorted(whole, key=lambda name: (whole[name], len(name)))[:most]


def spelling_distance(word: str, name: str) -> int | None:
    """The number of wrong, missing, additional or swapped letters; None if the spellings are not close.

    The first letter must be right, as misspellings rarely change it.
    """
    longer = max(len(word), len(name))
    allowed = max(longer // LETTERS_AN_EDIT, 1)
    if not word or not name or abs(len(word) - len(name)) > allowed or word[0] != name[0]:
        return None
    distance = edits(word, name)
    if distance > allowed or (len(word) == len(name) <= _SHORT and sorted(word) != sorted(name)):
        return None
    return distance


def edits(first: str, second: str) -> int:
    """The optimal string alignment distance: letters replaced, added, removed, or swapped with the next."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        last, before, row = before, row, [i]
        for j, b in enumerate(second, start=1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]


def _as_compound(word: str, name: str, known: list[str]) -> int | None:
    """The distance between the end of a word and a name, if a known name begins with the rest of the word.

    Returns None if no known name does, or if the distance is more than 1.
    """
    start, end = word[: -len(name)], word[-len(name) :]
    if len(name) < 3 or len(start) <= _SHORT or start[-1:] == " " or end[0] != name[0]:
        return None
    distance = edits(end, name)
    return distance if distance <= 1 and any(other.startswith(start) for other in known) else None
