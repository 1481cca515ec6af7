"""What the machine gives, read from folders like those that containers show."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fcnconv.scan.tiling import ENOUGH, SHARE_OF_FREE, default_memory
from fcnconv.system import machine as machine_module
from fcnconv.system.machine import (
    busy,
    fewer_threads,
    free_memory,
    has_bfloat16,
    processor,
    release_memory,
    threads_each,
    usable_cpus,
)

GB = 1 << 30
UNLIMITED = 9223372036854771712  # as version 1 says it


def machine(root: Path, groups: str, files: dict[str, str | int]) -> Path:
    """A root folder with 8 GB of free memory. groups: of the process. files: below the groups' folder."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {32 << 20} kB\nMemAvailable:   {8 << 20} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/statm").write_text("1000 500 200 1 0 600 0\n")
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


V2 = {"memory.max": 4 * GB, "memory.current": 3 * GB, "memory.stat": f"anon 7\ninactive_file {GB}\nfile 9"}
V1 = {
    "memory/memory.limit_in_bytes": 4 * GB,
    "memory/memory.usage_in_bytes": 3 * GB,
    "memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {GB}",
}


def below(folder: str, files: dict[str, str | int]) -> dict[str, str | int]:
    return {f"{folder}/{name}": content for name, content in files.items()}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 8 * GB),
        ("0::/\n", {}, 8 * GB),
        ("0::/\n", V2, 2 * GB),
        ("0::/\n", V2 | {"memory.max": "max"}, 8 * GB),
        ("0::/\n", V2 | {"memory.max": "max", "memory.high": 3 * GB}, GB),
        ("0::/\n", V2 | {"memory.current": 5 * GB}, 0),
        ("0::/\n", {"memory.max": 3 * GB}, 3 * GB),
        ("0::/a/b\n", below("a/b", V2), 2 * GB),
        ("0::/a/b\n", below("a", V2) | {"a/b/memory.max": "max"}, 2 * GB),
        ("0::/a/b\n", below("a", V2) | below("a/b", V2 | {"memory.max": 3 * GB}), GB),
        ("0::/the/hosts/own\n", V2, 2 * GB),
        ("0::/../beside\n", V2 | below("beside", V2 | {"memory.max": GB}), 2 * GB),
        ("0::/b\n", below("other", V2), 8 * GB),
        ("5:memory:/\n", V1, 2 * GB),
        ("5:memory:/docker/1\n1:cpu:/\n0::/\n", V1, 2 * GB),
        ("5:memory:/\n", V1 | {"memory/memory.limit_in_bytes": UNLIMITED}, 8 * GB),
        ("1:name=systemd:/\n0::/a:b\n", below("unified/a:b", V2), 2 * GB),
    ],
)
def test_free_memory_is_what_the_tightest_group_leaves(
    tmp_path: Path, groups: str, files: dict[str, str | int], expected: int
) -> None:
    assert free_memory(machine(tmp_path, groups, files)) == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": 50000, "cpu,cpuacct/a/cpu.cfs_period_us": 25000},
            2,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 8),
    ],
)
def test_processors_are_no_more_than_their_time_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str | int], expected: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cpus(machine(tmp_path, groups, files)) == expected


def test_processors_that_this_process_may_not_run_on_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert usable_cpus(machine(tmp_path, "", {})) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus(machine(tmp_path / "other", "", {})) == os.cpu_count()


def test_the_address_space_that_the_shell_allows_counts() -> None:
    resource = pytest.importorskip("resource")
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({2 * GB}, {2 * GB}))\n"
        "from fcnconv.system.machine import fewer_threads, free_memory; print(free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 0 < int(done.stdout) < 2 * GB, done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)


def test_this_machine_gives_something() -> None:
    assert free_memory() > 0 and 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert free_memory(Path("/nowhere")) > 0


def test_a_scan_takes_its_share_of_what_a_container_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.scan.tiling.free_memory", lambda: GB)
    assert default_memory(local=True) == default_memory(local=False) == SHARE_OF_FREE * GB
    monkeypatch.setattr("fcnconv.scan.tiling.free_memory", lambda: 64 * GB)
    assert default_memory(local=True) == ENOUGH and default_memory(local=False) == 32 * GB


def test_a_library_is_told_of_fewer_processors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.system.machine.usable_cpus", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert fewer_threads() is None
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert fewer_threads() == 2


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags\t\t: fpu amx_tile amx_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512bw\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("", None),
    ],
)
def test_a_processor_tells_whether_it_has_bfloat16(tmp_path: Path, text: str, can: bool | None) -> None:
    root = machine(tmp_path, "0::/\n", {})
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n{text}" * 2)
    assert has_bfloat16(root) is can
    assert processor(root).startswith("Some CPU @ 2 GHz (")


def test_processors_that_can_do_other_things_are_told_apart(tmp_path: Path) -> None:
    root, names = machine(tmp_path, "0::/\n", {}), set()
    for text in ("", "model name\t: A\nflags\t: x\n", "model name\t: A\nflags\t: x y\n"):
        (root / "proc/cpuinfo").write_text(text)
        names.add(processor(root))
        assert processor(root) == processor(root)
    assert len(names) == 3 and any(name.startswith("unknown processor (") for name in names)


def test_of_several_pieces_of_work_each_takes_its_part_of_the_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fcnconv.system.machine.usable_cpus", lambda: 16)
    assert threads_each() is None
    with busy(3):
        assert threads_each() == 8
        with busy(40):
            assert threads_each() == 1
        assert threads_each() == 8
    with busy(1):
        assert threads_each() == 16
    assert threads_each() is None


def test_a_scheduler_may_allow_fewer_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    all_of_them = usable_cpus()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cpus() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # of nested loops: not ours to read
    assert usable_cpus() == all_of_them


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim")
def test_freed_memory_below_memory_in_use_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    small = [bytes(1000) for _ in range(100_000)]
    small[:] = small[::100]  # one in each 25 pages
    monkeypatch.setattr(machine_module, "RELEASE_PAUSE", 1e9)
    held = resident()
    release_memory()
    assert held - resident() < 10e6, "within the pause nothing happens"
    monkeypatch.setattr(machine_module, "RELEASE_PAUSE", 0)
    release_memory()
    assert held - resident() > 50e6
    assert len(small) == 1000


def test_memory_is_kept_where_the_c_library_cannot_release_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "RELEASE_PAUSE", 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    release_memory()
