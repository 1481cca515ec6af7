"""What one input does to the program: whether it is answered or refused, in what time and memory."""

from __future__ import annotations

import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnconv.errors import FcnconvError

SECONDS = 10
"""That an input may take. Sound ones take some milliseconds."""

MOST_BYTES = 512 << 20
"""That an input may make the process grow by: a few times what the largest allowed image needs."""

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Outcome:
    """What became of an input. answered: whether it was read; else it was refused, in one line of the
    program's own, `said`. failure: what happened that never should, else empty. grown: bytes of memory at
    the worst moment beyond those before; 0 where the system does not tell.
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
    before, start = _peak(reset=True), time.perf_counter()
    answered, said, failure = False, "", ""
    try:
        with warnings.catch_warnings(), _alarm(SECONDS):
            warnings.simplefilter("ignore")
            read(path)
        answered = True
    except FcnconvError as error:
        said = str(error)
        if len(said.splitlines()) != 1:
            failure = f"an error that is not one line: {said!r:.200}"
    except _HangError as error:
        failure = f"a hang: {_where(error)}"
    except BaseException as error:  # whatever it is, it never should be
        failure = f"{type(error).__name__}: {_where(error)}: {str(error).strip()[:120]!r}"
    seconds, grown = time.perf_counter() - start, max(_peak() - before, 0)
    if not failure and grown > MOST_BYTES:
        failure = f"an allocation of {grown >> 20} MB"
    return Outcome(answered, said, failure, seconds, grown)


def _where(error: BaseException) -> str:
    """The last place in the program's own code that an error passed, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/fcnconv/" in frame.filename]
    named = dict.fromkeys(f"{Path(f.filename).name}:{f.name}" for f in (*own[-1:], *frames[-1:]))
    return " < ".join(named)


def _peak(reset: bool = False) -> int:
    """Bytes that the process had at most, from the last reset on; or has, when it is reset."""
    with suppress(OSError, StopIteration):
        if reset:
            _RESET.write_text("5")
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    return 0


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
def memory_limit(most: int = 4 * MOST_BYTES) -> Iterator[None]:
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
