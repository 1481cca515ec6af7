"""Pages of HTML: a template of ``data/``, and values filled into it that cannot break out of their place.

A page is a folder there, with its ``page.html``, its ``page.css`` and its scripts; what pages share is in
``data/pages/``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any


def page(folder: str, scripts: Sequence[str], values: Mapping[str, str | Iterable[str]]) -> Iterator[str]:
    """A page in pieces: its template with the ``{{name}}`` marks replaced, in one pass, so that what is
    filled in is not read again.

    folder: of the page, in ``data/``. scripts: the names of its scripts, in their order, without suffix.
    values: HTML, or text that was escaped for its place, whole or in pieces. The marks ``style`` and
        ``script`` are the page's own, after those that pages share.
    """
    own = {
        "style": _part("pages/common.css") + _part(f"{folder}/page.css"),
        "script": _part("pages/common.js") + "".join(_part(f"{folder}/{name}.js") for name in scripts),
    }
    for place, piece in enumerate(re.split(r"\{\{([\w-]+)\}\}", _part(f"{folder}/page.html"))):
        if place % 2 == 0:  # text and marks in turn
            yield piece
            continue
        value = own.get(piece) or values[piece]
        if isinstance(value, str):
            yield value
        else:
            yield from value


def _part(name: str) -> str:
    return files("fcnconv").joinpath("data", name).read_text(encoding="utf-8")


def script_json(facts: Any) -> str:
    """The facts as JSON that may stand in a script element, whatever is in them."""
    return json.dumps(facts, separators=(",", ":")).replace("<", r"\u003c")


def terms(record: Mapping[str, Any]) -> str:
    """The names and values of a record as HTML, for a list of terms."""
    return "".join(_term(name, value) for name, value in record.items())


def _term(name: str, value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    told = ", ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in values)
    return f"<div><dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(told)}</dd></div>"


def readable(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are none are written ``\\udcNN``."""
    return name.encode(errors="backslashreplace").decode()
