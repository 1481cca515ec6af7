"""Making something once, whatever thread asks for it first."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fcnconv.system.once import once


def test_threads_that_ask_at_once_get_one_thing() -> None:
    made: list[object] = []
    started = threading.Barrier(4)

    def make() -> object:
        time.sleep(0.05)  # the others ask meanwhile
        made.append(object())
        return made[-1]

    get = once(make)

    def ask(_: int) -> object:
        started.wait()
        return get()

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(ask, range(4)))
    assert len(made) == 1 and got == made * 4 and get() is made[0]


def test_what_failed_is_tried_again() -> None:
    results = iter([ValueError("not yet"), None])

    def make() -> None:
        if error := next(results):
            raise error

    get = once(make)
    with pytest.raises(ValueError, match="not yet"):
        get()
    assert get() is None and get() is None
