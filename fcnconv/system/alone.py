"""What one process makes while others that want the same wait, where the system locks files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lets one process at a time, and one thread of it, into the block in which `path` is made.

    Whoever had to wait looks first whether it is there now. The lock is that of a file beside `path`, which
    the system opens when a process ends, however that ends; where it locks no files, nobody waits.

    waiting: is called before waiting.
    """
    lock = path.with_name(f".{path.name}.lock")
    held = _take(lock, waiting)
    try:
        yield
    finally:
        if held is not None:
            with suppress(OSError):
                lock.unlink()  # while it is held: see `_take`
            os.close(held)


def _take(lock: Path, waiting: Callable[[], None]) -> int | None:
    """The descriptor of the lock's file once it is ours; None where there are no locks.

    Who holds it removes the file before letting go, so that a file that was waited for may be no longer the
    one of that name, and the next one is tried.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        return None
    while True:
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        ours = False
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            ours = os.path.samestat(os.fstat(file), lock.stat())
        except FileNotFoundError:  # removed by who held it: the next one
            pass
        except OSError:  # not on this file system
            return None
        finally:
            if not ours:
                os.close(file)
        if ours:
            return file
