"""Making something once, whatever thread asks for it first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def once(make: Callable[[], Value]) -> Callable[[], Value]:
    """A function that calls `make` when it is first called, and gives what that made ever after.

    Threads that ask meanwhile wait for it (those of `functools.cache` would each make their own). If `make`
    raises, the next call tries again.
    """
    lock, made = threading.Lock(), list[Value]()

    def get() -> Value:
        if not made:
            with lock:
                if not made:
                    made.append(make())
        return made[0]

    return get
