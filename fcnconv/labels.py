"""The names of a classifier's classes and of the concepts above them, and how a user's words find them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

from fcnconv.errors import UsageError
from fcnconv.provenance import Activation
from fcnconv.spelling import close_names

log = logging.getLogger("fcnconv")


@dataclass(frozen=True)
class Selection:
    """What is asked for by one name: a category, or a concept above several. Its probability is their sum.

    classes: class indices, ascending; a category has one.
    wnid: the WordNet id, None where the classes have none.
    also: other names of a concept.
    """

    name: str
    classes: tuple[int, ...]
    wnid: str | None = None
    also: tuple[str, ...] = ()

    @property
    def class_idx(self) -> int | None:
        """The index of a category, None for a concept."""
        return self.classes[0] if len(self.classes) == 1 else None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that finds it, the usual one first."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier, in index order.

    categories: one readable name a class.
    wnids: one WordNet id a class (``n02124075``), or empty where the classes have none.
    concepts: what WordNet has above the categories, the widest first; empty where the classes have no ids.
    activation: whether the classes exclude each other, see `activations.ACTIVATIONS`.
    """

    categories: tuple[str, ...]
    wnids: tuple[str, ...] = ()
    concepts: tuple[Selection, ...] = ()
    activation: Activation = "softmax"

    def under(self, activation: Activation | None) -> Labels:
        """The same classes under an activation; None is softmax, and sigmoid for a single class.

        Concepts, whose probability is the sum of their classes', are left to classes that exclude each other.
        Raises UsageError for the softmax of one class, which is 1 whatever the image shows.
        """
        if activation == "softmax" and len(self) == 1:
            raise UsageError("--activation softmax of a single output is 1 everywhere; leave it out: sigmoid")
        activation = activation or ("sigmoid" if len(self) == 1 else "softmax")
        concepts = self.concepts if activation == "softmax" else ()
        return replace(self, concepts=concepts, activation=activation)

    def __len__(self) -> int:
        return len(self.categories)

    def wnid(self, class_idx: int) -> str | None:
        """The WordNet id of a class, None where the classes have none."""
        return self.wnids[class_idx] if self.wnids else None

    def category(self, class_idx: int) -> Selection:
        """The selection of one class."""
        return Selection(self.categories[class_idx], (class_idx,), self.wnid(class_idx))

    def all_categories(self) -> tuple[Selection, ...]:
        """A selection for each class, in index order."""
        return tuple(map(self.category, range(len(self))))

    def selections(self) -> tuple[Selection, ...]:
        """Everything that can be asked for: the categories in index order, then the concepts."""
        return (*self.all_categories(), *self.concepts)

    def same(self, class_idx: int | None, name: str) -> Selection:
        """The selection that an answer names: the class of an index, else the concept of this name."""
        if class_idx is not None:
            return self.category(class_idx)
        return next(concept for concept in self.concepts if concept.name == name)

    def search(self, pattern: str) -> list[Selection]:
        """Every category and concept with `pattern` in a name or its WordNet id, the concepts first."""
        text = folded(pattern)
        return [
            s
            for s in (*self.concepts, *self.all_categories())
            if any(text in folded(name) for name in (*s.names, s.wnid or ""))
        ]

    def find(self, query: str) -> Selection:
        """The category or concept that `query` names.

        query: a class index, a WordNet id, or a name in any case, where ``_`` stands for a space and
            apostrophes may be left out. A whole name (or its plural) goes before the start of one, and that
            before a part of one; in each of these steps a category goes before a concept.

        Raises UsageError when nothing fits (with close spellings) or when several do (with their indices).
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
        if len(exact) == 1:  # "Cardigan" is a dog, "cardigan" a garment
            return exact[0]
        for fits in (str.__eq__, _is_plural, str.startswith, str.__contains__):
            for pool in (categories, self.concepts):
                found = [s for s in pool if text and any(fits(folded(name), text) for name in s.names)]
                if len(found) == 1:
                    if fits in (str.startswith, str.__contains__):
                        log.info("class %r: the only name with this part is %s", query, _some(found, give=""))
                    return found[0]
                if found:
                    raise UsageError(f"class {query!r} fits several: {_some(found)}")
        spellings = {folded(name): name for s in (*categories, *self.concepts) for name in s.names}
        hint = " or ".join(repr(spellings[name]) for name in close_names(text, spellings))
        raise UsageError(
            f"unknown class {query!r}; "
            + (f"did you mean {hint}? " if hint else "")
            + "'fcnconv classes' lists all names"
        )


@lru_cache(maxsize=8192)  # all names of ImageNet, which every search compares
def folded(name: str) -> str:
    """A name as it is compared: without case and apostrophes, ``_`` as a space."""
    return " ".join(name.casefold().replace("_", " ").replace("'", "").split())


def _is_plural(name: str, text: str) -> bool:
    return text in (f"{name}s", f"{name}es")


def _some(found: Sequence[Selection], give: str | None = None) -> str:
    names = (s.name if s.class_idx is None else f"{s.class_idx} {s.name}" for s in found[:6])
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    give = (
        "; give " + ("the whole name" if found[0].class_idx is None else "the index")
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
    """Labels for classes that nobody named: ``class 0``, ``class 1``, …"""
    return Labels(tuple(f"class {i}" for i in range(num_classes)))


def named(categories: Sequence[str]) -> Labels:
    """Labels of the given names. ImageNet's own list, by names or by WordNet ids, gets its concepts; other
    lists of ImageNet's WordNet ids get ImageNet's names.
    """
    known = imagenet()
    by_wnid = dict(zip(known.wnids, known.categories, strict=True))
    if tuple(categories) in (known.categories, known.wnids):
        return known
    if all(name in by_wnid for name in categories):
        return Labels(tuple(by_wnid[name] for name in categories), tuple(categories))
    return Labels(tuple(by_wnid.get(name, name) for name in categories))
