"""Pages of HTML: a template of ``data/``, and values filled into it that cannot break out of their place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its ``{{name}}`` marks replaced, in one pass: what is filled in is not read again.

    template: the name of a file in ``data/``. values: HTML, or text that was escaped for its place.
    """
    text = files("fcnconv").joinpath("data", template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: values[mark[1]], text)


def script_json(facts: Any) -> str:
    """The facts as JSON that may stand in a script element, whatever is in them."""
    return json.dumps(facts, separators=(",", ":")).replace("<", r"\u003c")


def readable(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are none are written ``\\udcNN``."""
    return name.encode(errors="backslashreplace").decode()
