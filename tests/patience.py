"""Waiting for what must happen, for as long as it takes on a busy machine.

A test never sleeps for a time that must suffice: it waits for an event, and fails only if that never comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds after which something that must happen is given up."""


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Returns as soon as a condition holds. Fails if it does not within `PATIENCE`.

    Args:
        holds: says whether the condition holds; it is asked a hundred times a second.
        what: the condition in words, for the failure.
    """
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
