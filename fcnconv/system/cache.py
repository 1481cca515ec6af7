"""Where the user's cache lies, also for a user who has no home."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_path() -> Path:
    """Our folder in the user's cache: below ``XDG_CACHE_HOME``, or where the system keeps such things.

    Of a user without a home, as services and containers have, a place in which nothing can be kept, so that
    answers come without it. Not the working folder, where a cache would be in the way, nor the one for
    temporary files, where others could leave us their plans.
    """
    try:
        path = user_cache_path("fcnconv")
    except RuntimeError:  # platformdirs found no home
        path = Path()
    return path if path.is_absolute() else Path(os.devnull, "fcnconv")  # older ones give ~ as it is
