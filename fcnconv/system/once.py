"""Making a value once, whichever thread asks for it first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def once(make: Callable[[], Value]) -> Callable[[], Value]:
    """Returns a function that calls `make` on its first call, and always returns that result.

    Threads that call it meanwhile wait for the result (with `functools.cache`, each would compute its own).
    If `make` raises, the next call tries again.
    """
    lock, made = threading.Lock(), list[Value]()

    def get() -> Value:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return get
