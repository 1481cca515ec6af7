"""The page of the report: the images of a run as cards that can be searched, sorted and filtered by class.

Its template, style and script are in ``data/report/``. It refers only to thumbnails and pages, by relative
addresses.
"""

from __future__ import annotations

import html
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fcnconv.batch.cards import LEAST, MOST, Card
from fcnconv.labels import Labels, Selection
from fcnconv.render.colours import colour_map, opacity_map
from fcnconv.render.pages import page, readable, script_json, terms
from fcnconv.version import __version__

_GENERATOR = '<meta name="generator" content="fcnconv batch'


@dataclass(frozen=True)
class Linked:
    """A card with its path and the path of its page, both relative to the report's folder."""

    card: Card
    page: Path
    thumbnail: Path


@dataclass(frozen=True)
class Failure:
    """An image without a map.

    Attributes:
        page: The path that its page would have, relative to the report's folder.
        message: The reason.
    """

    page: str
    message: str


def index_page(
    folder: Path,
    linked: Sequence[Linked],
    failures: Sequence[Failure],
    labels: Labels,
    chosen: Sequence[Selection],
    settings: Mapping[str, Any],
) -> str:
    """Returns the whole page as HTML, to be written as UTF-8.

    Args:
        folder: The folder of the report. Its name is the title.
        linked: The cards.
        failures: The images without a map.
        labels: The labels of the network.
        chosen: The categories and concepts that were requested.
        settings: The settings of the maps, by name.
    """
    linked = sorted(linked, key=lambda one: _natural(one.card.path))
    title = readable(folder.resolve().name)
    shown_settings = {key: value for key, value in settings.items() if value not in (None, "", False, [], ())}
    return "".join(
        page(
            "report",
            ("page",),
            {
                "generator": f'{_GENERATOR} {__version__}">',
                "title": html.escape(title),
                "images": f"{len(linked):,} {'image' if len(linked) == 1 else 'images'}",
                "model": html.escape(str(settings.get("model", ""))),
                "failures": _failures(failures),
                "colours": _colours(),
                "least": f"{LEAST:g}",
                "most": str(MOST),
                "settings": terms(shown_settings),
                "facts": script_json(_facts(linked, labels, chosen)),
            },
        )
    )


def is_index(path: Path) -> bool:
    """Returns whether a file is such a page."""
    with path.open("rb") as file:
        return _GENERATOR.encode() in file.read(1000)


def _facts(linked: Sequence[Linked], labels: Labels, chosen: Sequence[Selection]) -> dict[str, Any]:
    """Returns the script's data. Each class is listed once; elsewhere its position in that list represents
    it.

    - classes: [index, or null for a concept; name; whether other classes have the same name]
    - concepts: [name, other names, positions of its classes that occur]
    - images: [path, address of the page and of the thumbnail, width, height, agreement or null, index of the
      peak that is shown first, thumbnails in its file, [position of a class, its peak in ten-thousandths, …]]
    """
    times = Counter(labels.categories)
    number: dict[tuple[int | None, str], int] = {}
    images = []
    for one in linked:
        card, peaks = one.card, []
        for peak in card.peaks:
            which = number.setdefault((peak.class_idx, peak.category), len(number))
            peaks += [which, round(10_000 * peak.probability)]
        addresses = _address(one.page), _address(one.thumbnail)
        images.append(
            [
                readable(card.path),
                *addresses,
                card.width,
                card.height,
                card.agreement,
                card.shown,
                card.panels,
                peaks,
            ]
        )
    place = {index: which for (index, _), which in number.items() if index is not None}
    concepts = [
        (concept.name, concept.also, members)
        for concept in labels.concepts
        if concept not in chosen and (members := [place[i] for i in concept.classes if i in place])
    ]
    classes = [(index, name, index is not None and times[name] > 1) for index, name in number]
    return {"classes": classes, "concepts": concepts, "images": images}


def _address(path: Path) -> str:
    """Returns the relative address of a file, whatever bytes its name has."""
    return quote(os.fsencode(path.as_posix()))


def _natural(path: str) -> list[tuple[str, int]]:
    """Returns a sort key that places ``img2`` before ``img10``."""
    pairs = re.findall(r"(\D*)(\d*)", path.casefold())
    return [(text, int(digits or -1)) for text, digits in pairs]


def _failures(failures: Sequence[Failure]) -> str:
    """Returns the section of failures; empty if there are none."""
    if not failures:
        return ""
    what = "1 image has" if len(failures) == 1 else f"{len(failures):,} images have"
    items = "".join(f"<li>{html.escape(readable(failure.message))}</li>" for failure in failures)
    return (
        f'<details id="failures"><summary>{what} no map</summary>\n<ul>{items}</ul>\n'
        "<p>The same command tries them again.</p></details>"
    )


def _colours() -> str:
    """Returns the colours of probabilities 0 to 1 as stops of a gradient."""
    places = range(0, 256, 15)
    return ", ".join(
        f"rgb({r} {g} {b} / {opacity_map()[i]:.2f})" for i in places for r, g, b in [colour_map()[i].tolist()]
    )
