"""Arrays in temporary files: their room on the disk is taken beforehand, and a full disk is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcnconv.errors import OutputError
from fcnconv.system import scratch
from fcnconv.system.scratch import let_go, scratch_array


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch arrays go to the disk whatever their size."""
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("without", [None, errno.EOPNOTSUPP, errno.EINVAL], ids=str)
def test_a_scratch_array_has_its_room_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without: int | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if without is not None:

        def refuses(*_: int) -> None:
            raise OSError(without, os.strerror(without))

        monkeypatch.setattr(os, "posix_fallocate", refuses)
    made = []
    mapped = np.memmap

    def seen(file, *args, **kwargs):  # type: ignore[no-untyped-def]
        made.append(os.fstat(file.fileno()))
        return mapped(file, *args, **kwargs)

    monkeypatch.setattr(np, "memmap", seen)
    array = scratch_array((3, 500_001))
    assert array.shape == (3, 500_001) and array.dtype == np.float32 and not array.any()
    assert made[0].st_size == array.nbytes and made[0].st_blocks * 512 >= array.nbytes
    array[:] = 1
    assert array.sum() == array.size


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of a process is read in Linux's way"
)
def test_what_is_let_go_leaves_memory_and_stays() -> None:
    def resident() -> int:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    array = scratch_array((64, 1 << 18))
    array[:] = 3
    full = resident()
    let_go(array)
    assert full - resident() > array.nbytes // 2
    assert (array == 3).all()
    let_go(np.zeros(3, np.float32))  # in memory: nothing to do


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    expected = rf"^{tmp_path}: no room for the 2\.0 GB of a map: No space left on device; TMPDIR=FOLDER "
    with pytest.raises(OutputError, match=expected):
        scratch_array((5, 10_000, 10_000))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root mounts file systems")
def test_a_disk_that_is_really_full_is_told_and_ends_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file systems are mounted here: {mounted.stderr.decode()}")
    code = (
        "from fcnconv.system import scratch; from fcnconv.errors import OutputError\n"
        "scratch.IN_MEMORY = 0\n"
        "try: scratch.scratch_array((2, 1 << 20))[:] = 1\n"
        "except OutputError as error: print(error)"
    )
    try:
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == 0, f"ended by signal {-done.returncode}"
    assert done.stdout.startswith(f"{tmp_path}: no room for the 0.0 GB of a map: No space left on device")
