"""What this machine gives to us: memory and processors, within the limits of a container and of the shell.

Linux tells the limits of a container as those of control groups, in two versions of files, which may both be
there: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html beside it. A group's
limits hold for all groups below it, so that each is asked from the process's own up to the top.

Every `root` here is the folder that all of these files are below: ``/``, but in tests.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, inf
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int:
    """Bytes that this process can still take, as far as the system tells."""
    rooms = [_room_in_group(folder) for folder in _groups(root, "memory")]
    return max(int(min(_unused(root), _room_in_address_space(root), *rooms)), 0)


def usable_cpus(root: Path = ROOT) -> int:
    """Processors that this process may keep busy: those it may run on, and no more than the time it is given
    is worth, rounded up, or than OMP_NUM_THREADS allows, which schedulers set.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    limits = [int(allowed)] if allowed.isascii() and allowed.isdigit() and int(allowed) else []
    return max(ceil(min([count, *limits, *map(_cpus_of_group, _groups(root, "cpu"))])), 1)


def processor(root: Path = ROOT) -> str:
    """What tells processors apart that compute differently, or as fast: the name, a digest of what it can do,
    and how many of it there are to use. Short, and the same from run to run.
    """
    name, features = _cpu(root)
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{name or 'unknown processor'} ({digest}), {usable_cpus(root)} used"


def has_bfloat16(root: Path = ROOT) -> bool | None:
    """Whether the processor multiplies numbers in bfloat16 itself; None where the system does not tell."""
    _, features = _cpu(root)
    if not features:
        return None
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(features.split())


def processor_name(root: Path = ROOT) -> str:
    """The processor's name; empty where the system does not report it."""
    return _cpu(root)[0]


def processor_features(root: Path = ROOT) -> frozenset[str] | None:
    """The processor's features, as Linux spells them; None where the system does not report them."""
    features = _cpu(root)[1]
    return frozenset(features.split()) if features else None


def _cpu(root: Path) -> tuple[str, str]:
    """The first processor's name, and what it can do, as Linux tells them; empty where it does not."""
    text = _text(root / "proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)", text, re.M)
    features = re.search(r"^(?:flags|Features)\s*:\s*(.+)", text, re.M)
    return name[1] if name else "", features[1] if features else ""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """While it lasts so many pieces of work are done at a time in this process, of which one mostly waits for
    its data.
    """
    threads = max(usable_cpus() // max(count - 1, 1), 1)
    _threads_each.append(threads)
    try:
        yield
    finally:
        _threads_each.remove(threads)


def threads_each() -> int | None:
    """How many threads each of several pieces of work should take; None where one has them all."""
    return min(_threads_each, default=None)


_threads_each: list[int] = []


def fewer_threads() -> int | None:
    """How many threads a library should take, where it may keep fewer processors busy than the machine has;
    None where its own choice, which knows of the cores' kinds, is better.
    """
    count = usable_cpus()
    return count if count < (os.cpu_count() or 1) else None


def _unused(root: Path) -> int:
    """Bytes that are free on the whole machine, or can be made so."""
    if (free := _numbers(root / "proc/meminfo").get("MemAvailable")) is not None:
        return free * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30


def _room_in_address_space(root: Path) -> float:
    """Bytes that are left of what the shell allows (``ulimit -v``)."""
    try:
        import resource
    except ImportError:  # not on this system
        return inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return inf
    pages = _text(root / "proc/self/statm").split()
    return limit - (int(pages[0]) * resource.getpagesize() if pages else 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups, in both versions, whose limits hold for this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2: one tree for all of them
            homes = ["", "unified"]
        elif controller in controllers.split(","):
            homes = [controllers, controller]
        else:
            continue
        # In a container the path may be that of the host, of which it sees the last folder only, as its top:
        # what is not there tells nothing.
        parts = PurePosixPath(path).parts[1:]
        for home in homes:
            for depth in range(len(parts) + 1 if ".." not in parts else 1):
                yield root.joinpath("sys/fs/cgroup", home, *parts[:depth])


def _room_in_group(folder: Path) -> float:
    """Bytes that are left of a group's limits. Pages of files that nobody used lately count as free: they go
    when memory is wanted.
    """
    limits = [_amount(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    if min(limits) == inf:
        return inf
    used = min(_amount(folder / name) for name in ("memory.current", "memory.usage_in_bytes"))
    stat = _numbers(folder / "memory.stat")
    idle = stat.get("total_inactive_file", stat.get("inactive_file", 0))  # version 1 counts twice: all groups
    return min(limits) - max(used - idle, 0) if used < inf else min(limits)


def _cpus_of_group(folder: Path) -> float:
    """The processors that a group's share of time is worth."""
    quota, period = [*_text(folder / "cpu.max").split(), "max", "max"][:2]
    if not quota.isdigit():
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else inf


def _amount(path: Path) -> float:
    """The number in a file; infinity if it is ``max``, or not there."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else inf


def _numbers(path: Path) -> dict[str, int]:
    """The lines of a name and a number in a file."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):?\s+(\d+)", _text(path), re.M)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # no such limit, or no such system
        return ""
