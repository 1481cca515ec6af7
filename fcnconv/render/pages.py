"""HTML pages: fills values into a template of ``data/``, so that no value can break out of its place.

Each page has a folder in ``data/``, with its ``page.html``, ``page.css`` and scripts. The files that all
pages share are in ``data/pages/``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any


def page(folder: str, scripts: Sequence[str], values: Mapping[str, str | Iterable[str]]) -> Iterator[str]:
    """Yield a page in pieces: its template, with the ``{{name}}`` marks replaced by values.

    The marks are replaced in one pass, so that marks inside a value stay text.

    Args:
        folder: the folder of the page, in ``data/``.
        scripts: the names of its scripts, in order, without suffix.
        values: for each mark, HTML or escaped text, whole or in pieces. The marks ``style`` and ``script``
            need no value: they are the shared files followed by the page's files.
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
    """The facts as JSON that is safe inside a script element."""
    return json.dumps(facts, separators=(",", ":")).replace("<", r"\u003c")


def terms(record: Mapping[str, Any]) -> str:
    """The names and values of a record as HTML, for a list of terms."""
    return "".join(_term(name, value) for name, value in record.items())


def _term(name: str, value: Any) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    text = ", ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in values)
    return f"<div><dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(text)}</dd></div>"


def readable(name: str) -> str:
    """A file name as valid UTF-8: bytes that are not UTF-8 are written as ``\\udcNN``."""
    return name.encode(errors="backslashreplace").decode()
