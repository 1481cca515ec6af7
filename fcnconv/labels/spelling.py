"""Spelling suggestions: the known names that are spelt nearly like a word."""

from __future__ import annotations

from collections.abc import Iterable

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
