"""Temporary names that tell who writes under them, and the end of what killed processes left there.

A process that is killed cannot clean up, so the next one that writes in the same folder does. It must not
take what another is still writing, which may run in another container or on another machine that shares the
folder, where the numbers of processes mean other ones. So a name holds where it was given beside the number:
``.map.npy.1f0c9a3e-4711-139872345678912.tmp``. From here, a number that no process has tells that it is
left over. From elsewhere, only that nothing was written to it for a day.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fcnconv.system.processes import here, is_alive

NAME_BYTES = 100
"""Of a file's name, the bytes that its temporary name has, which is then no longer than file systems allow:
255 bytes, or 143 in an encrypted home.
"""

A_DAY = 86400.0
"""Seconds without a change after which the temporary of a process that cannot be asked for is left over."""

_GIVEN = re.compile(
    r"\.(?P<name>.+)\.(?P<place>[0-9a-f]{8})-(?P<process>\d+)-\d+\.(?P<kind>tmp|old)(?:[-.].*)?", re.DOTALL
)
"""A name of ours; a library's own temporary beside it has more behind."""

_cleaned: set[Path] = set()
"""Folders that this process has cleaned: once each, as listing one takes as long as it has files."""


def beside(target: Path, kind: Literal["tmp", "old"]) -> Path:
    """A name beside `target` that no other thread uses. kind: ``tmp`` for what is half-written, ``old`` for
    what was whole at `target` and is about to be replaced.
    """
    name = os.fsencode(target.name)[:NAME_BYTES].decode(errors="ignore")  # not in the middle of a character
    return target.with_name(f".{name}.{here()}-{os.getpid()}-{threading.get_ident()}.{kind}")


def remove_leftovers(folder: Path, *, again: bool = False) -> None:
    """Removes what killed processes left half-written in a folder, and puts back what one had moved aside to
    replace it. What cannot be removed stays. again: also if this process did so before.
    """
    if folder in _cleaned and not again:
        return
    _cleaned.add(folder)
    with suppress(OSError):
        with os.scandir(folder) as entries:  # ten times as fast as making a path of each
            found = [given for entry in entries if (given := _GIVEN.fullmatch(entry.name))]
        for given in found:
            path = folder / given.string
            if _left_over(path, given):
                with suppress(OSError):
                    _clean(path, given)


def _clean(path: Path, given: re.Match[str]) -> None:
    if given["kind"] == "old":
        target = path.with_name(given["name"])
        if len(os.fsencode(target.name)) > NAME_BYTES - 4:  # it may have been cut, at most by a character
            return
        if not target.exists():
            path.replace(target)
            return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _left_over(path: Path, given: re.Match[str]) -> bool:
    if given["place"] == here() and os.name == "posix":  # elsewhere asking for a process would end it
        return not is_alive(int(given["process"]))
    try:
        changed = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:  # it is being written, or removed
        return False
    return time.time() - changed > A_DAY
