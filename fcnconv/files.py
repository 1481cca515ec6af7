"""Files and folders that appear whole or not at all: written under a temporary name beside their place, and
then renamed.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcnconv.errors import OutputError

IN_MEMORY = 1 << 28
"""Bytes up to which a scratch array is held in memory."""


def scratch_array(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A float32 array to be filled: in memory, or in a file that has no name if it is large."""
    if 4 * math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # its mapping keeps it until the array goes
        return np.memmap(file, np.float32, "w+", shape=shape)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which becomes `path` when the block ends well and vanishes when it does
    not.
    """
    target = path.resolve()
    temporary = _beside(target, "tmp")
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a zarr store, which takes the place of `path` when the block ends
    well and vanishes when it does not.

    Raises OutputError where `path` is anything but a zarr store or an empty folder: it would be lost.
    """
    target = path.resolve()
    if target.exists() and not _replaceable(target):
        raise OutputError(f"{path}: exists and is no zarr store; choose another name, or remove it")
    temporary, old = _beside(target, "tmp"), _beside(target, "old")
    try:
        yield temporary
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    except BaseException:
        _remove(temporary)
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Removes a store that zarr's threads may still be writing to, if one of them failed."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and (folder.joinpath("zarr.json").exists() or not any(folder.iterdir()))


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name[:200]}.{os.getpid()}-{threading.get_ident()}.{suffix}")
