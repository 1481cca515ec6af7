"""The names of a classifier's classes, and finding a class by what a user calls it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fcnconv.errors import UsageError


@dataclass(frozen=True)
class Labels:
    """The classes of a classifier, in index order.

    categories: one readable name a class.
    wnids: one WordNet id a class (``n02124075``), or empty where the classes have none.
    """

    categories: tuple[str, ...]
    wnids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.categories)

    def wnid(self, class_idx: int) -> str | None:
        """The WordNet id of a class, None where the classes have none."""
        return self.wnids[class_idx] if self.wnids else None

    def find(self, query: str) -> int:
        """The index of the class that `query` names.

        query: a class index, a WordNet id, or a category in any case; else the start of a category, else a
        part of one, if that fits one category only.

        Raises UsageError when nothing fits (with close spellings) or when several do (with their indices).
        """
        text = query.strip().casefold()
        if text.isdecimal():
            if int(text) < len(self):
                return int(text)
            raise UsageError(
                f"class index {text} is out of range: this model has classes 0 to {len(self) - 1}"
            )
        if text in self.wnids:
            return self.wnids.index(text)
        names = [name.casefold() for name in self.categories]
        for fits in (str.__eq__, str.startswith, str.__contains__):
            found = [i for i, name in enumerate(names) if text and fits(name, text)]
            if len(found) == 1:
                return found[0]
            if found:
                some = ", ".join(f"{i} {self.categories[i]}" for i in found[:6])
                more = f" and {len(found) - 6} more" if len(found) > 6 else ""
                raise UsageError(f"class {query!r} fits several: {some}{more}; give the index")
        close = difflib.get_close_matches(text, names, n=3, cutoff=0.6)
        hint = " or ".join(repr(self.categories[names.index(name)]) for name in close)
        raise UsageError(
            f"unknown class {query!r}; "
            + (f"did you mean {hint}?" if hint else "try its index or a part of its name")
        )


@cache
def imagenet() -> Labels:
    """The 1,000 classes of ILSVRC 2012, in index order, with their WordNet ids."""
    rows = files("fcnconv").joinpath("data/imagenet.tsv").read_text(encoding="utf-8").splitlines()
    wnids, categories = zip(*(row.split("\t") for row in rows), strict=True)
    return Labels(categories, wnids)


def numbered(num_classes: int) -> Labels:
    """Labels for classes that nobody named: ``class 0``, ``class 1``, …"""
    return Labels(tuple(f"class {i}" for i in range(num_classes)))


def named(categories: Sequence[str]) -> Labels:
    """Labels of the given names; ImageNet's own list gets its WordNet ids."""
    known = imagenet()
    return known if tuple(categories) == known.categories else Labels(tuple(categories))
