"""Keeps facts about a model that are expensive to find, in the user's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from fcnconv.system.cache import cache_path
from fcnconv.system.files import whole_file
from fcnconv.system.records import sealed, unsealed

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
