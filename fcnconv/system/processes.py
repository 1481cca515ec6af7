"""Processes, told apart from those of other machines and containers, and whether they have ended."""

from __future__ import annotations

import os
import platform
import zlib
from contextlib import suppress
from pathlib import Path

from fcnconv.system.once import once


@once
def here() -> str:
    """Eight hexadecimal digits for where numbers of processes mean what they mean here: a container on a
    machine, since it was started. Machines and containers may have the same name.
    """
    told = [platform.node()]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        told.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - what it leads to is no path
    return f"{zlib.crc32(''.join(told).encode(errors='replace')):08x}"


def is_alive(process: int) -> bool:
    """Whether a process of this place, by its number, is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def started(process: int) -> str:
    """When a process of this place began, as Linux tells it, in ticks; nothing for one that has ended, also
    if its parent has not asked yet how, and elsewhere, where its number alone must do.
    """
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = told.rpartition(")")[2].split()  # a name may hold anything
        return "" if state == "Z" else numbers[18]
    except (OSError, ValueError, IndexError):
        return ""
