"""Names that a misspelt word may mean: only those that are spelt nearly the same, or none."""

from __future__ import annotations

from collections.abc import Iterable

LETTERS_AN_EDIT = 4
"""One wrong letter is allowed for so many letters of the longer word, and one in any case.

Measured on ImageNet's names: of 30 everyday words that it does not have, such as giraffe, donkey or maple,
one gets a suggestion (moose: mouse). With 0.6 as the cutoff of difflib's ratio, 28 do. The 30 misspellings in
`tests/test_spelling.py` all find their name; some worse ones (vehical, chiwawa) do not.
"""

_SHORT = 4
"""Letters up to which a replaced letter makes another word (rose, robe), rather than a misspelling."""


def close_names(word: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names that a word may be a misspelling of, the closest first.

    A name also counts if one of its words is close (`pengiun`: king penguin), or if it is the end of a
    compound that begins like a known name (`honeybea`: bee, because there is a honeycomb).

    Args:
        word: what was typed, and `names`: all that is known; both in lower case.
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
    """How far the end of a word is from a name, where a known name begins with what precedes that end."""
    start, end = word[: -len(name)], word[-len(name) :]
    if len(name) < 3 or len(start) <= _SHORT or start[-1:] == " " or end[0] != name[0]:
        return None
    distance = edits(end, name)
    return distance if distance <= 1 and any(other.startswith(start) for other in known) else None
