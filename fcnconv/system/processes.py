"""Processes, distinguished from processes of other machines and containers, and whether they have ended."""

from __future__ import annotations

import os
import platform
import zlib
from contextlib import suppress
from pathlib import Path

from fcnconv.system.once import once


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
