"""Records in JSON: parses JSON that may be damaged or come from anybody, seals records so that damage shows,
and remembers facts in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path

from fcnconv.system.files import whole_file


def cache_path() -> Path:
    """Returns fcnconv's folder in the user's cache: below ``XDG_CACHE_HOME``, or in the system's usual place.

    For a user without a home, as in services and containers, it returns a path where nothing can be stored,
    so that fcnconv works without a cache. It does not use the working folder, where a cache would be in the
    way, or the temporary folder, where other users could place harmful plans.
    """
    try:
        path = user_cache_path("fcnconv")
    except RuntimeError:  # platformdirs found no home
        path = Path()
    return path if path.is_absolute() else Path(os.devnull, "fcnconv")  # older versions return ~ unexpanded


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


Facts = dict[str, Any]
"""Values that JSON can store."""

Read = TypeVar("Read")


def remembered(key: Sequence[str], find: Callable[[], Facts], read: Callable[[Facts], Read]) -> Read:
    """Returns facts from the cache, or finds them and stores them if possible.

    Args:
        key: what the facts are about, and everything that they depend on.
        find: finds the facts if they are not in the cache.
        read: converts the facts. It raises KeyError, TypeError or ValueError for facts that are outdated or
            damaged, which are then found again.

    Returns:
        The result of `read`.
    """
    path = _path(key)
    with suppress(OSError, KeyError, TypeError, ValueError):
        return read(unsealed(path.read_text(encoding="utf-8")))
    facts = find()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(sealed(facts), encoding="utf-8")
    return read(facts)


def _path(key: Sequence[str]) -> Path:
    name = hashlib.sha256("\n".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_path() / "models" / f"{key[0]}-{name}.json"
