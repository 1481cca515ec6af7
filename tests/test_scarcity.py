"""The command where something is scarce: an answer, or one line on stderr and status 1 or 2.

Never a traceback, never the end by a signal, and never a file that is half-written.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import SAMPLES
from patience import PATIENCE, wait_until
from PIL import Image

from fcnconv.api.classifier import Classifier

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="scarcity is made in the way of Linux"
)

COFFEE = SAMPLES / "coffee.png"
CLASSIFY = ("classify", COFFEE, "-q")
WRITTEN = ("npy", "npz", "zarr", "tif", "png", "html")
NEEDS = {"zarr": "zarr", "tif": "tifffile"}

Done = subprocess.CompletedProcess[str]


def run(
    arguments: Sequence[str | Path],
    wrap: Sequence[str] = (),
    cwd: Path | None = None,
    **environment: str | None,
) -> Done:
    """Runs the real command. wrap: the command that it is run by. environment: changes; None is not set."""
    changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [*wrap, sys.executable, "-m", "fcnconv", *map(str, arguments)]
    changed["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), changed.get("PYTHONPATH", "")])
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=cwd, env=changed)


def told(done: Done) -> str:
    """The one line of a run that could not do it. Fails where there is another or it ended otherwise."""
    assert done.returncode in (1, 2), f"status {done.returncode}: {done.stderr[-2000:]}"
    assert re.fullmatch(r"fcnconv: [^\n]+\n", done.stderr), done.stderr[-2000:]
    assert "unexpected" not in done.stderr, done.stderr
    return done.stderr


def answered(done: Done, word: str = "espresso") -> None:
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    assert word in done.stdout and "Traceback" not in done.stderr


def answered_or_told(done: Done) -> None:
    if done.returncode == 0:
        answered(done)
    else:
        told(done)


def limited(shell: str) -> list[str]:
    """What runs a command by a shell that takes something away first."""
    return ["bash", "-c", f'{shell} && exec "$@"', "bash"]


def mounted(place: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at `place`."""
    if os.geteuid() != 0:
        pytest.skip("root mounts file systems")
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file systems are mounted here: {done.stderr}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def filled(disk: Path, left: int) -> None:
    """Fills a disk but for some bytes."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - left))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB."""
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=20m", "tmpfs")


@pytest.fixture
def cold(tmp_path: Path) -> dict[str, str]:
    """A cache without a plan."""
    return {"XDG_CACHE_HOME": str(tmp_path / "cold")}


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize(
    "suffix",
    [pytest.param(name, marks=pytest.mark.slow if name != "npz" else ()) for name in WRITTEN],
)
def test_a_disk_that_fills_is_told_and_keeps_nothing_half_written(suffix: str, disk: Path) -> None:
    if suffix in NEEDS:
        pytest.importorskip(NEEDS[suffix])
    filled(disk, 100_000)
    said = told(run(["heatmap", COFFEE, "-o", disk / f"map.{suffix}", "-q", "--anchors", "0"]))
    assert "No space left on device" in said and f"map.{suffix}" in said
    assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize("suffix", ["npz", pytest.param("png", marks=pytest.mark.slow)])
def test_a_limit_on_the_size_of_files_is_told(suffix: str, tmp_path: Path) -> None:
    """As a quota is: the system writes no more."""
    few = limited("ulimit -f 60")  # kilobytes
    said = told(run(["heatmap", COFFEE, "-o", tmp_path / f"map.{suffix}", "-q", "--anchors", "0"], few))
    assert "File too large" in said and not any(tmp_path.iterdir())


@pytest.mark.usefixtures("lite0")
def test_a_full_folder_for_temporary_files_is_told_where_it_is_needed(disk: Path, tmp_path: Path) -> None:
    filled(disk, 50_000)
    scarce = {"TMPDIR": str(disk)}
    answered(run(CLASSIFY, **scarce))
    assert run(["heatmap", COFFEE, "-o", tmp_path / "map.npz", "-q"], **scarce).returncode == 0
    said = told(run(["heatmap", COFFEE, "-o", "-", "-f", "npy", "-q"], **scarce))
    assert "TMPDIR=FOLDER" in said
    assert {path.name for path in disk.iterdir()} <= {"filler", ".ses"}  # of ONNX Runtime


@pytest.mark.slow
def test_a_cache_on_a_full_disk_is_done_without(disk: Path) -> None:
    filled(disk, 200_000)
    answered(run(["classify", COFFEE], XDG_CACHE_HOME=str(disk)))
    kept = [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert [path.name for path in kept] == ["filler"]


def test_a_read_only_cache_is_read(lite0: Classifier, tmp_path: Path) -> None:
    warm = Path(os.environ["XDG_CACHE_HOME"])
    for read_only in mounted(tmp_path / "warm", "--bind", str(warm)):
        done = subprocess.run(["mount", "-o", "remount,bind,ro", read_only], capture_output=True)
        if done.returncode:
            pytest.skip("nothing is mounted anew here")
        answered(run(CLASSIFY, XDG_CACHE_HOME=str(read_only)))


@pytest.mark.slow
def test_an_empty_cache_that_is_read_only_is_done_without(tmp_path: Path) -> None:
    for empty in mounted(tmp_path / "cold", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs"):
        answered(run(CLASSIFY, XDG_CACHE_HOME=str(empty)))


@pytest.mark.parametrize(
    "home", [None, *(pytest.param(home, marks=pytest.mark.slow) for home in ("", "/dev/null"))]
)
def test_a_user_without_a_home_gets_an_answer_and_no_files(
    home: str | None, small: list[str], tmp_path: Path
) -> None:
    """As one that the system does not know either."""
    unknown = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if subprocess.run([*unknown, "true"], capture_output=True).returncode:
        pytest.skip("nobody becomes an unknown user here")
    line = [*CLASSIFY, *small]
    answered(run(line, unknown, cwd=tmp_path, HOME=home, XDG_CACHE_HOME=None), word="class 0")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("lite0")
def test_few_descriptors_are_enough(tmp_path: Path) -> None:
    few = limited("ulimit -n 256")
    with Image.open(COFFEE) as photo:
        photo.convert("RGB").crop((100, 50, 450, 400)).resize((224, 224)).save(tmp_path / "window.png")
    answered(run(["classify", *[tmp_path / "window.png"] * 300, "-q"], few))
    if find_spec("zarr"):
        done = run(["heatmap", COFFEE, "-o", tmp_path / "map.zarr", "-q"], few)
        assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize(
    "megabytes", [400, *(pytest.param(number, marks=pytest.mark.slow) for number in (150, 250, 700, 2000))]
)
def test_little_address_space_is_told_or_enough(megabytes: int) -> None:
    answered_or_told(run(CLASSIFY, limited(f"ulimit -v {megabytes * 1000}")))


def _gone(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group whose processes have 600 MB together."""
    root = Path("/sys/fs/cgroup")
    home, limit = (
        (root, "memory.max")
        if (root / "cgroup.controllers").exists()
        else (root / "memory", "memory.limit_in_bytes")
    )
    folder = home / f"fcnconv-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / limit).write_text(str(600_000_000))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control groups are made here: {error}")
    yield folder
    wait_until(lambda: _gone(folder), "the last process to leave the control group")


@pytest.mark.usefixtures("lite0")
def test_a_container_with_little_memory_maps_a_photo(group: Path, tmp_path: Path) -> None:
    inside = limited(f"echo $$ > {group}/cgroup.procs")
    answered(run(CLASSIFY, inside))
    out = tmp_path / "map.npy"
    answered(run(["heatmap", COFFEE, "-o", out, "-q", "--anchors", "0"], inside), word="")
    assert out.exists()


@pytest.mark.usefixtures("lite0")
def test_one_core_is_enough() -> None:
    core = min(os.sched_getaffinity(0))
    answered(run(CLASSIFY, ["taskset", "-c", str(core)]))


@pytest.mark.usefixtures("lite0")
def test_shared_memory_is_not_needed(tmp_path: Path) -> None:
    """Containers have 64 MB of it, or none."""
    none = ["unshare", "--mount", *limited("mount -t tmpfs -o size=4k,ro tmpfs /dev/shm")]
    if subprocess.run([*none, "true"], capture_output=True).returncode:
        pytest.skip("nothing is mounted here")
    answered(run(CLASSIFY, none))


def at_once(count: int, cache: dict[str, str]) -> list[Done]:
    """The command, so many times at once."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fcnconv", "classify", str(COFFEE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | cache,
        )
        for _ in range(count)
    ]
    told = [process.communicate(timeout=PATIENCE) for process in processes]
    return [Done((), p.returncode, *text) for p, text in zip(processes, told, strict=True)]


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_many_processes_make_one_plan(
    count: int, cold: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    runs = at_once(count, cold)
    for done in runs:
        answered(done)
    assert sum("(first use only)" in done.stderr for done in runs) == 1
    assert sum("prepared in" in done.stderr for done in runs) == 1
    (folder,) = Path(cold["XDG_CACHE_HOME"]).iterdir()  # no telemetry of ONNX Runtime
    assert folder.name == "fcnconv"
    names = [path.suffix for path in Path(cold["XDG_CACHE_HOME"], "fcnconv/plans").iterdir()]
    assert sorted(names) == [".json", ".json", ".onnx", ".optimised"]
