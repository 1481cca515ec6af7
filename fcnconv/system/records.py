"""JSON from files that anybody may have written or damaged, and records of our own, which show damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_MOST_DIGITS = 19
"""Of a whole number: those of 64 bits. JSON has no limit, and a longer one fits no float and no array."""


def parse_json(text: str | bytes) -> Any:
    """What a text in JSON says. Raises ValueError, whatever is wrong with it: also where it is nested too
    deeply for Python, or has a whole number of more than 19 digits.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sealed(record: Any) -> str:
    """A record as a text in JSON, with its SHA-256."""
    return json.dumps({"record": record, "sha256": _sha256(record)})


def unsealed(text: str | bytes) -> Any:
    """The record in a text that `sealed` made. Raises ValueError if it is not what was written."""
    told = parse_json(text)
    if not isinstance(told, dict) or told.get("sha256") != _sha256(told.get("record")):
        raise ValueError("its SHA-256 is another")
    return told["record"]


def _sha256(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _whole(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MOST_DIGITS:
        raise ValueError(f"the number {digits[:_MOST_DIGITS]}… is too long")
    return int(digits)
