"""The resources of the machine: memory and processors, within the limits of a container and of the shell.

Linux reports the limits of a container as limits of control groups, in two versions of files, which may both
exist: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html on the same site. A
group's limits apply to all groups below it, so each group from the process's own up to the top is read.

Every `root` here is the folder that contains all of these files: ``/``, except in tests.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil, inf
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def free_memory(root: Path = ROOT) -> int:
    """Returns the bytes that this process can still allocate, as far as the system reports them."""
    rooms = [_room_in_group(folder) for folder in _groups(root, "memory")]
    return max(int(min(_unused(root), _room_in_address_space(root), *rooms)), 0)


RELEASE_PAUSE = 5.0
"""Seconds between two releases of freed memory. With one after every 20 pages, a batch took no longer than
without.
"""


def release_memory() -> None:
    """Returns freed memory to the system, unless this was done within the last `RELEASE_PAUSE` seconds.

    The C library keeps freed memory that lies below memory in use. Images of many sizes in several threads
    leave ever more of it (`benchmarks/long_lived.py`). Does nothing if the C library is not glibc.
    """
    global _released
    now = time.monotonic()
    if now - _released < RELEASE_PAUSE:
        return
    _released = now
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # no such function, or no such library
        ctypes.CDLL(None).malloc_trim(0)


_released = time.monotonic()


def usable_cpus(root: Path = ROOT) -> int:
    """Returns the number of processors that this process may keep busy.

    It is the number of processors that the process may run on, but at most its share of processor time,
    rounded up, and at most OMP_NUM_THREADS, which schedulers set.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not available on this system
        count = os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    limits = [int(allowed)] if allowed.isascii() and allowed.isdigit() and int(allowed) else []
    return max(ceil(min([count, *limits, *map(_cpus_of_group, _groups(root, "cpu"))])), 1)


def processor(root: Path = ROOT) -> str:
    """Returns a text that distinguishes processors by their results and their speed: the name, a digest of
    the features, and the number of usable processors. It is short and does not change from run to run.
    """
    name, features = _cpu(root)
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{name or 'unknown processor'} ({digest}), {usable_cpus(root)} used"


def has_bfloat16(root: Path = ROOT) -> bool | None:
    """Returns whether the processor multiplies bfloat16 numbers in hardware; None if the system does not
    report it.
    """
    _, features = _cpu(root)
    if not features:
        return None
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(features.split())


def processor_name(root: Path = ROOT) -> str:
    """Returns the processor's name; empty if the system does not report it."""
    return _cpu(root)[0]


def processor_features(root: Path = ROOT) -> frozenset[str] | None:
    """Returns the processor's features, as Linux spells them; None if the system does not report them."""
    features = _cpu(root)[1]
    return frozenset(features.split()) if features else None


def _cpu(root: Path) -> tuple[str, str]:
    """Returns the first processor's name and features, as Linux reports them; empty elsewhere."""
    text = _text(root / "proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)", text, re.M)
    features = re.search(r"^(?:flags|Features)\s*:\s*(.+)", text, re.M)
    return name[1] if name else "", features[1] if features else ""


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Declares that this process does so many tasks at a time until the block ends. One of them usually waits
    for its data.
    """
    threads = max(usable_cpus() // max(count - 1, 1), 1)
    _threads_each.append(threads)
    try:
        yield
    finally:
        _threads_each.remove(threads)


def threads_each() -> int | None:
    """Returns the number of threads for each of several concurrent tasks; None if there is a single task,
    which may use all threads.
    """
    return min(_threads_each, default=None)


_threads_each: list[int] = []


def fewer_threads() -> int | None:
    """Returns the number of threads for a library, if it may use fewer processors than the machine has.
    Otherwise returns None: the library's own choice, which considers the kinds of cores, is better.
    """
    count = usable_cpus()
    return count if count < (os.cpu_count() or 1) else None


def _unused(root: Path) -> int:
    """Returns the bytes that are free on the whole machine, or can be freed."""
    if (free := _numbers(root / "proc/meminfo").get("MemAvailable")) is not None:
        return free * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30


def _room_in_address_space(root: Path) -> float:
    """Returns the bytes that the limit of the shell leaves (``ulimit -v``)."""
    try:
        import resource
    except ImportError:  # not available on this system
        return inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return inf
    pages = _text(root / "proc/self/statm").split()
    return limit - (int(pages[0]) * resource.getpagesize() if pages else 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the folders of the groups, in both versions, whose limits apply to this process."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2: one tree for all controllers
            homes = ["", "unified"]
        elif controller in controllers.split(","):
            homes = [controllers, controller]
        else:
            continue
        # In a container the path may be the host's path. The container sees only its last folder, as its top:
        # a missing file sets no limit.
        parts = PurePosixPath(path).parts[1:]
        for home in homes:
            for depth in range(len(parts) + 1 if ".." not in parts else 1):
                yield root.joinpath("sys/fs/cgroup", home, *parts[:depth])


def _room_in_group(folder: Path) -> float:
    """Returns the bytes that a group's limits leave. File pages that were not used recently count as free,
    because the system drops them when it needs memory.
    """
    limits = [_amount(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    if min(limits) == inf:
        return inf
    used = min(_amount(folder / name) for name in ("memory.current", "memory.usage_in_bytes"))
    stat = _numbers(folder / "memory.stat")
    idle = stat.get(
        "total_inactive_file", stat.get("inactive_file", 0)
    )  # version 1 has two counters: all groups
    return min(limits) - max(used - idle, 0) if used < inf else min(limits)


def _cpus_of_group(folder: Path) -> float:
    """Returns the number of processors that a group's share of processor time is worth."""
    quota, period = [*_text(folder / "cpu.max").split(), "max", "max"][:2]
    if not quota.isdigit():
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else inf


def _amount(path: Path) -> float:
    """Returns the number in a file; infinity if it is ``max``, or if the file does not exist."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else inf


def _numbers(path: Path) -> dict[str, int]:
    """Returns the numbers in a file whose lines consist of a name and a number."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):?\s+(\d+)", _text(path), re.M)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:  # no such limit, or no such system
        return ""
