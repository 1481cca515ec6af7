"""Arrays that are too large for memory, in temporary files whose room on the disk is taken beforehand."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from fcnconv.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IN_MEMORY = 1 << 28
"""Bytes up to which a scratch array is held in memory."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a disk, or of a user's share of it, that is full."""


def scratch_array(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A float32 array to be filled: in memory, or in a file that has no name if it is large.

    Raises OutputError if there is no room for the file.
    """
    import numpy as np  # here, as `files` takes the words for a full disk from this file and needs none of it

    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile() as file:  # its mapping keeps it until the array goes
            _allocate(file, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        raise no_room(error, f"the {size / 1e9:.1f} GB of a map") from error


def let_go(array: npt.NDArray[np.float32]) -> None:
    """Gives back the memory that a large scratch array took so far; what is in it is kept in its file."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: what was written stays written


def _allocate(file: BinaryIO, size: int) -> None:
    """Takes the room for a whole file. Without, a disk that is full when the mapped file is written to would
    end the process with a bus error.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # this system, or this file system, has no such call
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])
        file.flush()


def no_room(error: OSError, what: str) -> OutputError:
    """The error to raise when a temporary file met one. what: would have been in it."""
    place = tempfile.tempdir or "the temporary folder"
    reason = error.strerror or error
    return OutputError(f"{place}: no room for {what}: {reason}; TMPDIR=FOLDER chooses another place")
