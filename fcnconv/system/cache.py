"""The location of the user's cache, also for a user without a home."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


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
