"""What happens to a batch when things go wrong, with real processes: in the end its answers are those of a
quiet run, nothing is half-written, and nothing is done twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import run_here
from conftest import Command, make_photos
from patience import PATIENCE, wait_until

from fcnconv.api.classifier import Classifier
from fcnconv.batch.locks import Locks, Owner

COUNT = 14
"""Photos in a folder."""

RUN = ["-f", "npy", "--anchors", "0", "--scales", "0.6"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos that are all different."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    make_photos(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def undisturbed(lite0: Classifier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    make_photos(folder / "photos", COUNT)
    assert run_here("batch", "photos", "-o", "quiet", *RUN, cwd=folder).returncode == 0
    return answers(folder / "quiet")


@pytest.fixture
def quiet(photos: Path, undisturbed: dict[str, bytes]) -> dict[str, bytes]:
    """The answers of a run that nothing disturbs."""
    return undisturbed


def answers(out: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*.npy"))}


def leftovers(out: str) -> list[Path]:
    return [path for path in Path(out).rglob(".*") if path.is_file()]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fcnconv", "batch", "photos", "-o", "maps", *RUN, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(count: int, out: str = "maps") -> None:
    wait_until(lambda: len(list(Path(out).rglob("*.npy"))) >= count, f"{count} answers")


@pytest.mark.parametrize("counts", [(5,), pytest.param((2, 5, 9), marks=pytest.mark.slow)], ids=str)
def test_a_run_that_is_killed_and_started_again(
    counts: tuple[int, ...], quiet: dict[str, bytes], fcnconv: Command
) -> None:
    for count in counts:
        process = start()
        wait_for(count)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for name, content in answers("maps").items():
            assert content == quiet[name]  # what is there is whole
    before = {path: path.stat().st_mtime_ns for path in Path("maps").rglob("*.npy")}
    done = fcnconv("batch", "photos", "-o", "maps", *RUN)
    assert done.returncode == 0, done.stderr
    assert answers("maps") == quiet and not leftovers("maps")
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())  # nothing twice
    assert json.loads(Path("maps/fcnconv.json").read_text())["runs"]["1/1"]["finished"]


def test_two_runs_at_once_share_the_work(quiet: dict[str, bytes]) -> None:
    both = [start("--json"), start("--json")]
    told = [[json.loads(line) for line in process.communicate()[0].splitlines()] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    new = [{line["path"] for line in lines if line["new"]} for lines in told]
    assert new[0] | new[1] == {f"photos/{i:02}.png" for i in range(COUNT)} and not new[0] & new[1]
    assert all(len(lines) == COUNT for lines in told)  # each tells of all
    assert answers("maps") == quiet and not leftovers("maps")


def test_two_runs_at_once_of_which_one_is_killed(quiet: dict[str, bytes]) -> None:
    one, other = start(), start()
    wait_for(5)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    other.communicate(timeout=PATIENCE)
    assert other.returncode == 0 and answers("maps") == quiet and not leftovers("maps")


def test_a_packed_folder_has_one_writer_a_shard(photos: Path, fcnconv: Command) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fcnconv",
            "batch",
            "--files-from",
            "-",
            "-o",
            "maps",
            "-f",
            "npy.tar",
            "--anchors",
            "0",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    while not Path("maps/.fcnconv/claims").is_dir() or not list(Path("maps").rglob(".*.tmp")):
        if process.stdin:
            process.stdin.write(b"photos/00.png\n")
            process.stdin.flush()
        time.sleep(0.1)
    run = ("batch", "photos", "-o", "maps", "-f", "npy.tar", "--anchors", "0")
    second = fcnconv(*run)
    assert second.returncode == 1 and b"another process is writing shard 1 of 1 there" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(Path("maps").glob("*.tar"))
    assert fcnconv(*run).returncode == 0
    assert [path.name for path in Path("maps").glob("*.tar")] == ["maps-1-of-1-00000.tar"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 150 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_fills_up(quiet: dict[str, bytes], small_disk: Path, fcnconv: Command) -> None:
    run = ("batch", "photos", "-o", small_disk / "maps", *RUN)
    done = fcnconv(*run)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"No space left on device" in done.stderr and b" failed\n" in done.stderr
    made = answers(str(small_disk / "maps"))
    assert 0 < len(made) < COUNT and made.items() <= quiet.items()
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    assert fcnconv(*run).returncode == 0
    assert answers(str(small_disk / "maps")) == quiet and not leftovers(str(small_disk / "maps"))


def test_a_disk_that_fills_up_while_it_is_packed(photos: Path, small_disk: Path, fcnconv: Command) -> None:
    done = fcnconv("batch", "photos", "-o", small_disk, "-f", "npy.tar", "--anchors", "0")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(
        b"maps-1-of-1-00000.tar: cannot be written: No space left on device"
    )
    assert not list(small_disk.glob("*.tar")) and not leftovers(str(small_disk))


def test_a_folder_that_becomes_read_only(quiet: dict[str, bytes], small_disk: Path, fcnconv: Command) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    run = [
        sys.executable,
        "-m",
        "fcnconv",
        "batch",
        "--files-from",
        "-",
        "-o",
        str(small_disk / "maps"),
        *RUN,
    ]
    process = subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(b"".join(f"photos/{number:02}.png\n".encode() for number in range(3)))
    process.stdin.flush()
    wait_for(3, str(small_disk / "maps"))
    for _ in range(100):  # it waits for more images now, and soon no file is open
        if subprocess.run(["mount", "-o", "remount,ro", small_disk], capture_output=True).returncode == 0:
            break
        time.sleep(0.1)
    _, said = process.communicate(b"photos/03.png\nphotos/04.png\n", timeout=PATIENCE)
    assert process.returncode == 1 and b"Traceback" not in said and b"Read-only file system" in said, said
    assert answers(str(small_disk / "maps")).items() <= quiet.items()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert fcnconv("batch", "photos", "-o", small_disk / "maps", *RUN).returncode == 0
    assert answers(str(small_disk / "maps")) == quiet and not leftovers(str(small_disk / "maps"))


def test_a_source_that_vanishes_and_comes_back(quiet: dict[str, bytes], fcnconv: Command) -> None:
    process = start("--progress", "none")
    wait_for(3)
    shutil.move("photos", "elsewhere")
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and b"cannot be opened: No such file" in said
    shutil.move("elsewhere", "photos")
    failed = [json.loads(line)["path"] for line in Path("maps/failures.jsonl").read_text().splitlines()]
    missing = fcnconv("batch", "photos", "-o", "maps", "--missing", *RUN)
    assert sorted(failed) == missing.stdout.decode().splitlines()
    again = fcnconv("batch", "-o", "maps", "--retry-failed", *RUN)
    assert again.returncode == 0 and sorted(again.stdout.decode().splitlines()) == sorted(
        f"maps/{name}.npy" for name in failed
    )
    assert answers("maps") == quiet and Path("maps/failures.jsonl").read_text() == ""


def test_an_image_that_processes_die_of_is_given_up_and_its_neighbours_are_not(
    quiet: dict[str, bytes], fcnconv: Command
) -> None:
    claims = Locks(Path("maps/.fcnconv/claims"))
    gone = vars(Owner.me()) | {"pid": 2**22 + 7}  # no such process
    for name, deaths in (("photos/03.png.npy", 2), ("photos/04.png.npy", 0)):
        claims.take(name)
        path = claims._path(name)
        path.write_text(json.dumps({"name": name, "owner": gone, "deaths": deaths}))
    done = fcnconv("batch", "photos", "-o", "maps", *RUN)
    assert done.returncode == 1 and b"waiting for 2 images" in done.stderr
    assert b"photos/03.png: 3 processes ended while they worked on it alone" in done.stderr
    assert answers("maps") == {name: told for name, told in quiet.items() if name != "photos/03.png.npy"}
    assert fcnconv("batch", "photos", "-o", "maps", *RUN).returncode == 0  # somebody may have mended it


@pytest.mark.parametrize("ahead", [-3e8, pytest.param(3e8, marks=pytest.mark.slow)])
def test_a_clock_that_jumps(quiet: dict[str, bytes], fcnconv: Command, ahead: float) -> None:
    """The settings were written when the clock was wrong, by ten years."""
    assert fcnconv("batch", "photos/00.png", "-o", "maps", *RUN).returncode == 0
    told = json.loads(Path("maps/fcnconv.json").read_text())
    told["since"] += int(ahead * 1e9)
    Path("maps/fcnconv.json").write_text(json.dumps(told))
    moment = time.time() + ahead
    for path in Path("maps").rglob("*"):
        os.utime(path, (moment, moment))
    assert fcnconv("batch", "photos", "-o", "maps", *RUN).returncode == 0
    again = fcnconv("batch", "photos", "-o", "maps", *RUN, "--json")
    assert not any(json.loads(line)["new"] for line in again.stdout.splitlines())
    assert answers("maps") == quiet
    over = fcnconv("batch", "photos", "-o", "maps", "-f", "npy", "--anchors", "0", "--overwrite", "--json")
    assert all(json.loads(line)["new"] for line in over.stdout.splitlines())
    assert len(Path("maps/photos/00.png.npy").read_bytes()) != len(quiet["photos/00.png.npy"])


def test_a_run_gives_up_after_too_many_failures(photos: Path, fcnconv: Command) -> None:
    for number in range(9):
        (photos / f"{number:02}.png").write_text("no image")
    done = fcnconv("batch", "photos", "-o", "maps", *RUN, "--max-failures", "2")
    assert done.returncode == 1 and b"stopped after 3 failures" in done.stderr
    assert len(Path("maps/failures.jsonl").read_text().splitlines()) == 3
    told = json.loads(Path("maps/fcnconv.json").read_text())["runs"]["1/1"]
    assert told["failed"] == 3 and not told["finished"]
    enough = fcnconv("batch", "photos", "-o", "maps", *RUN, "--max-failures", "9")
    assert enough.returncode == 1 and b"14 images: 5 written, 9 failed" in enough.stderr


def test_a_link_does_not_lead_out_of_the_folder(photos: Path, fcnconv: Command) -> None:
    Path("outside").mkdir()
    Path("maps").mkdir()
    Path("maps/photos").symlink_to(Path("outside").resolve())
    done = fcnconv("batch", "photos/00.png", "-o", "maps", *RUN)
    assert done.returncode == 1 and b"a link leads out of the folder there" in done.stderr
    assert not list(Path("outside").iterdir())
