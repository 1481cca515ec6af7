"""What killed processes left: found by its name and removed, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcnconv.system import leftovers
from fcnconv.system.files import whole_file, whole_folder
from fcnconv.system.leftovers import beside, remove_leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are asked for in the way of POSIX")


@pytest.fixture(autouse=True)
def nothing_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_cleaned", set())


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


@pytest.fixture
def living() -> Iterator[int]:
    """The number of another process that runs."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def left(target: Path, process: int, kind: str = "tmp", place: str = "", more: str = "") -> Path:
    """The temporary of another process, which is not made. place: where it ran, if not here."""
    name = beside(target, "old" if kind == "old" else "tmp").name
    head, number, rest = name.rsplit("-", 2)
    assert int(number) == os.getpid()
    if place:
        head = head.rpartition(".")[0] + f".{place}"
    return target.with_name(f"{head}-{process}-{rest}{more}")


def store(path: Path, content: str) -> None:
    path.mkdir()
    (path / "zarr.json").write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {
        path.name: (path / "zarr.json" if path.is_dir() else path).read_text() for path in folder.iterdir()
    }


def age(path: Path, seconds: float) -> None:
    for entry in (path, *path.rglob("*")):
        os.utime(entry, (time.time() - seconds,) * 2)


def test_what_a_dead_process_left_goes_and_what_a_living_one_writes_stays(
    tmp_path: Path, dead: int, living: int
) -> None:
    target, other = tmp_path / "map.npy", tmp_path / "other.tif"
    gone = [
        left(target, dead),
        left(other, dead),
        left(other, dead, more="-k3x_a"),
        left(other, dead, more=".ovr"),
    ]
    kept = [left(target, living), left(target, os.getpid())]
    for path in (*gone, *kept):
        path.write_text("half")
    store(left(tmp_path / "map.zarr", dead), "half")
    with whole_file(target) as path:
        assert sorted(tmp_path.iterdir()) == sorted(kept)
        path.write_text("new")
    assert content(tmp_path) == {"map.npy": "new", kept[0].name: "half"}


FOREIGN = (
    *("map.npy", ".map.npy", ".hidden.tmp", ".map.npy.4711-1.tmp", ".map.1f0c9a3-4711-1.tmp"),
    *(
        ".map.1f0c9a3e-4711.tmp",
        ".map.1f0c9a3e-4711-1.tmpx",
        "map.1f0c9a3e-4711-1.tmp",
        ".map.1f0c9a3e-x-1.tmp",
    ),
)


def test_what_has_no_name_of_ours_stays(tmp_path: Path) -> None:
    for name in FOREIGN:
        (tmp_path / name).touch()
        age(tmp_path / name, 1e7)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FOREIGN)


def test_what_another_machine_writes_stays_for_a_day(tmp_path: Path, dead: int) -> None:
    """A process of that number is alive there, as far as we know."""
    ages = {"now": 0, "hours": 80_000, "days": 90_000}
    for name, seconds in ages.items():
        path = left(tmp_path / f"{name}.zarr", dead, place="0123abcd")
        store(path, "half")
        age(path, seconds)
    busy = left(tmp_path / "busy.zarr", dead, place="0123abcd")
    store(busy, "half")
    age(busy, 90_000)
    (busy / "zarr.json").touch()  # the folder itself has been as it is for long
    os.utime(busy, (time.time() - 90_000,) * 2)
    remove_leftovers(tmp_path)
    assert [path.name.split(".")[1] for path in sorted(tmp_path.iterdir())] == ["busy", "hours", "now"]


def test_what_was_moved_aside_is_put_back_unless_it_was_replaced(
    tmp_path: Path, dead: int, living: int
) -> None:
    """A process is killed between the two renames, or behind them."""
    for name, process in (("lost", dead), ("there", dead), ("busy", living)):
        store(left(tmp_path / f"{name}.zarr", process, "old"), f"old {name}")
    store(tmp_path / "there.zarr", "new there")
    remove_leftovers(tmp_path)
    assert content(tmp_path) == {
        "lost.zarr": "old lost",
        "there.zarr": "new there",
        left(tmp_path / "busy.zarr", living, "old").name: "old busy",
    }


def test_a_name_that_was_cut_is_not_guessed(tmp_path: Path, dead: int) -> None:
    aside = left(tmp_path / ("城" * 40 + ".zarr"), dead, "old")
    store(aside, "old")
    remove_leftovers(tmp_path)
    assert content(tmp_path) == {aside.name: "old"}


def test_an_old_store_that_is_being_removed_no_longer_passes_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "map.zarr"
    store(target, "old")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it could
    with whole_folder(target) as path:
        store(path, "new")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 and ".tmp" in names[0] and names[1] == "map.zarr"


def test_a_folder_is_listed_once(tmp_path: Path, dead: int) -> None:
    remove_leftovers(tmp_path)
    late = left(tmp_path / "map.npy", dead)
    late.touch()
    remove_leftovers(tmp_path)
    assert late.exists(), "a batch of many maps would list its folder for each"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root starts containers")
def test_numbers_of_processes_of_a_container_mean_nothing_outside(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from fcnconv.system.leftovers import beside\n"
        "print(beside(Path('x'), 'tmp').name.split('.')[2].split('-')[0])"
    )
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code], capture_output=True, text=True
    )
    if inside.returncode:
        pytest.skip(f"no namespaces are made here: {inside.stderr.strip()}")
    outside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    here = beside(Path("x"), "tmp").name.split(".")[2].split("-")[0]
    assert outside.stdout.strip() == here != inside.stdout.strip()


def test_a_folder_that_cannot_be_listed_is_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing")
    link = left(tmp_path / "map.npy", 2**31 - 2)  # more than any process has
    link.symlink_to(tmp_path)
    remove_leftovers(tmp_path)
    assert tmp_path.exists() and not link.is_symlink()
