"""Making something once, whatever thread asks for it first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")


def once(make: Callable[[], Made]) -> Callable[[], Made]:
    """A function that calls `make` when it is first called, and gives what that made ever after.

    Threads that ask meanwhile wait for it (those of `functools.cache` would each make their own). If `make`
    raises, the next call tries again.
    """
    lock, made = threading.Lock(), list[Made]()

    def get() -> Made:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return get
