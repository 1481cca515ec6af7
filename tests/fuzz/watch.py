"""What one input does to the program: whether it is answered or refused, in what time and memory."""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnconv.errors import FcnconvError

SECONDS = 10
"""That an input may take. Sound ones take some milliseconds."""

MOST_BYTES = 1 << 30
"""That an input may make the process grow by: about what the largest image takes that is decoded whole unless
``--max-pixels`` says otherwise.
"""

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Outcome:
    """What became of an input. answered: whether it was read; else it was refused, in one line of the
    program's own, `said`. failure: what happened that never should, else empty. grown: bytes by
    which the most memory that the process ever had became more.
    """

    answered: bool
    said: str
    failure: str
    seconds: float
    grown: int


class _HangError(BaseException):
    """The input took too long. No handler of errors in between may catch it."""


def watched(read: Any, path: Path) -> Outcome:
    """What reading a file does. A hang inside of C code is for whoever watches the process."""
    before, start = peak(), time.perf_counter()
    answered, said, failure = False, "", ""
    try:
        with warnings.catch_warnings(), _alarm(SECONDS):
            warnings.simplefilter("ignore")
            read(path)
        answered = True
    except FcnconvError as error:
        said = str(error)
        if "\n" in said:
            failure = f"an error that is not one line: {said!r:.200}"
    except _HangError as error:
        failure = f"a hang: {_where(error)}"
    except BaseException as error:  # whatever it is, it never should be
        failure = f"{type(error).__name__}: {_where(error)}"
    seconds, grown = time.perf_counter() - start, peak() - before
    if not failure and grown > MOST_BYTES:
        failure = f"an allocation of {grown >> 20} MB"
    return Outcome(answered, said, failure, seconds, grown)


def _where(error: BaseException) -> str:
    """The last place in the program's own code that an error passed, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/fcnconv/" in frame.filename]
    named = dict.fromkeys(f"{Path(f.filename).name}:{f.name}" for f in (*own[-1:], *frames[-1:]))
    return " < ".join(named)


def peak() -> int:
    """Bytes of memory that the process had at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(most: int = 3 * MOST_BYTES) -> Iterator[None]:
    """Lets the process ask for no more than `most` bytes beyond what it has: whoever asks gets a MemoryError.

    It is more than may really be used, as address space that is never touched costs nothing.
    """
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmSize"))
    except (OSError, StopIteration):  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, ((int(line.split()[1]) << 10) + most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
