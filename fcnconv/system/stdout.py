"""Standard output, which is reserved for data: nothing else can reach it, wherever standard error goes.

While a command runs, the real standard output is kept under a separate descriptor for the command's data.
Meanwhile, descriptor 1 and ``sys.stdout`` are standard error, so that no progress bar, log or C library can
write between the data or redirect it: rich replaces ``sys.stdout`` while it shows a bar, and answers that
were redirected to a file went to the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fcnconv.errors import OutputError

_kept: TextIO | None = None


def data_stream() -> TextIO:
    """Returns the stream for data: the separate one inside `guarded`, else ``sys.stdout``. Raises OutputError
    if it is closed.
    """
    stream: TextIO | None = _kept or sys.stdout
    if stream is None:
        raise OutputError("standard output is closed; redirect it to a file, or to /dev/null")
    return stream


def print_data(*columns: object) -> None:
    """Prints values as one line of data, separated by tabs."""
    print(*columns, sep="\t", file=data_stream())


@contextmanager
def guarded() -> Iterator[None]:
    """Reserves standard output for `data_stream` until the block ends. All data has been written by then.

    A ``sys.stdout`` without a descriptor, as in a notebook, or no ``sys.stdout`` at all, stays unchanged.
    """
    global _kept
    try:
        own = sys.stdout.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        yield
        return
    sys.stdout.flush()
    back, descriptor = os.dup(own), os.dup(own)
    stream = open(  # noqa: SIM115, PTH123 - closed below, with more care than `with` takes
        descriptor, "w", encoding=sys.stdout.encoding, errors="surrogateescape"
    )
    before = sys.stdout
    _point_at_stderr(own)
    _kept, sys.stdout = stream, sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        yield
        stream.flush()
    finally:
        _kept, sys.stdout = None, before
        try:
            stream.flush()
        except OSError:  # buffered data has no reader: discard it
            _point_nowhere(descriptor)
        stream.close()
        os.dup2(back, own)
        os.close(back)


def _point_at_stderr(descriptor: int) -> None:
    try:
        os.dup2(sys.stderr.fileno(), descriptor)
    except (AttributeError, OSError):  # standard error is closed
        _point_nowhere(descriptor)


def _point_nowhere(descriptor: int) -> None:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), descriptor)
