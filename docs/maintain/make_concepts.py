"""Makes concepts.tsv: the WordNet concepts above the categories of imagenet.tsv.

    apt-get install wordnet-base
    python docs/maintain/make_concepts.py /usr/share/wordnet > fcnconv/data/concepts.tsv

A line a concept, the widest first: its WordNet id, its names, and the indices of its categories in
imagenet.tsv as ranges. Concepts that hold the same categories are one line, which the most specific of them
names first; concepts of fewer than two categories are left out, and so are abstractions, such as a picture
does not show.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

IMAGENET = Path(__file__).parents[2] / "fcnconv/data/imagenet.tsv"

ABSTRACTION = "n00002137"
PHYSICAL_ENTITY = "n00001930"


@dataclass(frozen=True)
class Synset:
    """A meaning: the words that have it, the most usual first, and the ids of the wider meanings above it."""

    words: tuple[str, ...]
    parents: tuple[str, ...]


def read_synsets(folder: Path) -> dict[str, Synset]:
    """WordNet id -> meaning, of every noun. The format is told in the manual page wndb(5WN)."""
    synsets = {}
    for line in folder.joinpath("data.noun").read_text(encoding="ascii").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        words = tuple(word.replace("_", " ").lower() for word in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        parents = tuple(
            f"n{target}"
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=False)
            if symbol in ("@", "@i")
        )
        synsets[f"n{fields[0]}"] = Synset(words, parents)
    return synsets


def read_senses(folder: Path) -> dict[str, list[str]]:
    """Word -> the WordNet ids of its meanings, the most frequent first."""
    senses = {}
    for line in folder.joinpath("index.noun").read_text(encoding="ascii").splitlines():
        if not line.startswith(" "):
            word, _, count, *rest = line.split()
            senses[word.replace("_", " ")] = [f"n{offset}" for offset in rest[-int(count) :]]
    return senses


def concepts(
    synsets: dict[str, Synset], senses: dict[str, list[str]], categories: list[tuple[str, str]]
) -> Iterator[tuple[str, list[str], list[int]]]:
    """Each concept's WordNet id, names and class indices, the widest first.

    A word names the concept that it means most often. The first word of a meaning always counts; the others
    only where that is their first meaning, so that "lid" does not find hats.
    """

    @cache
    def above(wnid: str) -> frozenset[str]:
        parents = synsets[wnid].parents
        return frozenset(parents).union(*(above(parent) for parent in parents))

    @cache
    def depth(wnid: str) -> int:
        return 1 + max((depth(parent) for parent in synsets[wnid].parents), default=0)

    members: dict[str, list[int]] = defaultdict(list)
    for class_idx, (wnid, _) in enumerate(categories):
        for concept in above(wnid):
            members[concept].append(class_idx)

    same: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for wnid, indices in members.items():
        abstract = ABSTRACTION in {wnid, *above(wnid)} and PHYSICAL_ENTITY not in above(wnid)
        if len(indices) >= 2 and not abstract:
            same[tuple(indices)].append(wnid)

    taken = {name.lower() for _, name in categories}
    claims: dict[str, list[str]] = defaultdict(list)
    for wnids in same.values():
        for wnid in wnids:
            for rank, word in enumerate(synsets[wnid].words):
                if word not in taken and (rank == 0 or senses[word][0] == wnid):
                    claims[word].append(wnid)
    owner = {word: min(wnids, key=senses[word].index) for word, wnids in claims.items()}

    for indices_, wnids in sorted(same.items(), key=lambda item: (-len(item[0]), item[0])):
        names = []
        named = []
        for wnid in sorted(wnids, key=lambda wnid: (-depth(wnid), wnid)):
            own = [word for word in synsets[wnid].words if owner.get(word) == wnid]
            named += [wnid] if own else []
            names += own
        if names:
            yield named[0], names, list(indices_)


def ranges(indices: list[int]) -> str:
    """The ascending indices in short: ``0-6,9``."""
    runs = [
        [index for _, index in run]
        for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
    ]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def main(folder: Path) -> None:
    """Prints the table made from the WordNet files in `folder`."""
    rows = IMAGENET.read_text(encoding="utf-8").splitlines()
    categories = [(wnid, name) for wnid, name in (row.split("\t") for row in rows)]
    for wnid, names, indices in concepts(read_synsets(folder), read_senses(folder), categories):
        print(wnid, ", ".join(names), ranges(indices), sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet"))
