"""JSON from files that may be damaged or come from anybody, and records that reveal damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_MOST_DIGITS = 19
"""Most digits of an integer: a 64-bit integer has no more. JSON has no limit, but a longer integer fits no
float and no array.
"""


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text. Raises ValueError for any error, including text that is nested too deeply for
    Python and integers with more than 19 digits.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sealed(record: Any) -> str:
    """Returns a record as a JSON text that includes its SHA-256."""
    return json.dumps({"record": record, "sha256": _sha256(record)})


def unsealed(text: str | bytes) -> Any:
    """Returns the record in a text that `sealed` made. Raises ValueError if the text was changed."""
    parsed = parse_json(text)
    if not isinstance(parsed, dict) or parsed.get("sha256") != _sha256(parsed.get("record")):
        raise ValueError("its SHA-256 does not match")
    return parsed["record"]


def _sha256(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _whole(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MOST_DIGITS:
        raise ValueError(f"the number {digits[:_MOST_DIGITS]}… is too long")
    return int(digits)
