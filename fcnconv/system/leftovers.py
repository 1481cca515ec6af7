"""Temporary names that identify the process that writes under them, and the removal of files that killed
processes left.

A process that is killed cannot clean up, so the next process that writes in the same folder does. It must not
remove files that another process is still writing. That process may run in another container or on another
machine that shares the folder, where process numbers have another meaning. Therefore a name contains the
place where the number was assigned, as well as the number: ``.map.npy.1f0c9a3e-4711-139872345678912.tmp``.
For a number from this place, the file is left over if no process has that number. For a number from another
place, it is left over if nothing was written to it for a day.

`here`, `is_alive` and `started` tell processes apart. Locks use them too.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fcnconv.system.once import once

NAME_BYTES = 100
"""Bytes of a file's name that its temporary name keeps. The temporary name is then no longer than file
systems allow: 255 bytes, or 143 in an encrypted home.
"""

A_DAY = 86400.0
"""Seconds without a change after which a temporary file from another place counts as left over."""

_GIVEN = re.compile(
    r"\.(?P<name>.+)\.(?P<place>[0-9a-f]{8})-(?P<process>\d+)-\d+\.(?P<kind>tmp|old)(?:[-.].*)?", re.DOTALL
)
"""A name that fcnconv gave. A library's own temporary file next to it has a longer suffix."""

_cleaned: set[Path] = set()
"""Folders that this process has cleaned. Each is cleaned once, because listing takes time in proportion to
its files.
"""


def beside(target: Path, kind: Literal["tmp", "old"]) -> Path:
    """Returns a name next to `target` that no other thread uses.

    Args:
        target: The final path.
        kind: ``tmp`` for an incomplete file, ``old`` for a complete one that was at `target` and is about to
            be replaced.
    """
    name = os.fsencode(target.name)[:NAME_BYTES].decode(errors="ignore")  # not in the middle of a character
    if kind == "tmp":  # SQLite does not open paths with control characters
        name = "".join(letter if letter.isprintable() else "_" for letter in name)
    return target.with_name(f".{name}.{here()}-{os.getpid()}-{threading.get_ident()}.{kind}")


def remove_leftovers(folder: Path, *, again: bool = False) -> None:
    """Removes incomplete files that killed processes left in a folder, and restores files that such a process
    had moved aside to replace them. Files that cannot be removed stay. again: also if this process has
    cleaned the folder before.
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
        if (
            len(os.fsencode(target.name)) > NAME_BYTES - 4
        ):  # the name may have been cut, by at most one character
            return
        if not target.exists():
            path.replace(target)
            return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _left_over(path: Path, given: re.Match[str]) -> bool:
    if (
        given["place"] == here() and os.name == "posix"
    ):  # on other systems, checking for a process would end it
        return not is_alive(int(given["process"]))
    try:
        changed = max(entry.lstat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:  # it is being written, or removed
        return False
    return time.time() - changed > A_DAY


@once
def here() -> str:
    """Returns eight hexadecimal digits that identify the scope of process numbers: a container on a machine,
    since it was started. Names of machines and containers need not be unique.
    """
    scope = [platform.node()]
    with suppress(OSError):
        scope.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        scope.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - the link's target is not a path
    return f"{zlib.crc32(''.join(scope).encode(errors='replace')):08x}"


def is_alive(process: int) -> bool:
    """Returns whether a process of this place with this number exists."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process
        return True
    return True


def started(process: int) -> str:
    """Returns when a process of this place began, in ticks, as Linux reports it.

    It is empty for a process that has ended, even if its parent has not yet collected its status. It is also
    empty on other systems, where the number alone must do.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = status.rpartition(")")[2].split()  # a name may contain any characters
        return "" if state == "Z" else numbers[18]
    except (OSError, ValueError, IndexError):
        return ""
