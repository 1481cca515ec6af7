"""What was found out about a model at some cost, kept in the user's cache for the next start."""

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
"""As JSON holds them."""

Read = TypeVar("Read")


def remembered(key: Sequence[str], find: Callable[[], Facts], read: Callable[[Facts], Read]) -> Read:
    """What `read` makes of the facts of that key: those that were kept, else what `find` gives, which is kept
    then if that is possible.

    key: what the facts are about, and all that they depend on. read: raises KeyError, TypeError or ValueError
    for facts that do not hold any more; they are found again, as those are that were damaged on disk.
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
