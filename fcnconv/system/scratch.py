"""Arrays that are too large for memory, in temporary files whose disk space is allocated beforehand."""

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
"""Largest size in bytes of a scratch array that is held in memory."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, or of an exhausted quota."""


def scratch_array(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Returns a float32 array to be filled: in memory, or in an unnamed temporary file if it is large.

    Raises:
        OutputError: There is no room for the file.
    """
    import numpy as np  # here, because `files` imports this module and does not need NumPy

    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile() as file:  # its mapping keeps the file until the array is deleted
            _allocate(file, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        raise no_room(error, f"the {size / 1e9:.1f} GB of a map") from error


def let_go(array: npt.NDArray[np.float32]) -> None:
    """Releases the memory of a large scratch array. Its content stays in its file."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: written data is kept


def _allocate(file: BinaryIO, size: int) -> None:
    """Allocates the disk space of a whole file. Otherwise, writing to the mapped file on a full disk would
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
    """Returns the error to raise when a temporary file cannot be written. what: the intended content."""
    place = tempfile.tempdir or "the temporary folder"
    reason = error.strerror or error
    return OutputError(f"{place}: no room for {what}: {reason}; TMPDIR=FOLDER chooses another place")
