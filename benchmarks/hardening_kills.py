"""Kills the command at moments spread over its run, and looks at what is left.

    python benchmarks/hardening_kills.py
    python benchmarks/hardening_kills.py npy zarr --kills 20
    python benchmarks/hardening_kills.py prepare batch

A quiet run tells what is right, how long it takes, and when something first appears in the folder. Half of
the kills come at times spread evenly over that length, half while something is being written: as long after
it appears as is drawn from what then remains. Runs that end before the kill do not count. Of a map, an older
one is there already in half of the runs.

A loss is a file or folder of a final name that is neither what was there before nor what the quiet run made.
Leftovers are what else is there. After every tenth kill a run goes to its end, after every kill one of
`batch`; it must come to what the quiet run came to, and leave nothing else, also in the folder for temporary
files.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_images"

FORMATS = "npy", "npz", "zarr", "tif", "png", "html", "json", "parquet"

SIZE = 1024, 768
"""Pixels of the image: a map of 18 × 26 cells, large enough for its writing to take part of the run."""

PHOTOS = 24
"""Images of a batch."""

LIMIT = 300.0
"""Seconds after which a run is taken to hang."""


@dataclass
class Counts:
    """What was found after kills."""

    kills: int = 0
    ended: int = 0
    """Runs that were over before the kill came."""
    losses: list[str] = field(default_factory=list)
    leftovers: int = 0
    """Kills after which something was left half-written."""
    stayed: list[str] = field(default_factory=list)
    """What the next run did not remove, or made otherwise."""

    def row(self, what: str) -> tuple[str, ...]:
        """The counts as texts, after what was killed."""
        found = self.kills, self.ended, len(self.losses), self.leftovers, len(self.stayed)
        return (what, *(f"{each:,}" for each in found))


HEADER = "killed", "kills", "ended before", "losses", "left half-written", "of that after the next run"


class Case(Protocol):
    """A command that is killed. arguments: of the command. folder: where it writes. environment: beside that
    of this process. each: kills after which a run goes to its end.
    """

    arguments: list[str]
    folder: Path
    environment: dict[str, str]
    each: int

    def prepare(self, number: int) -> None:
        """Makes the folder what it is before a run."""

    def remember(self) -> None:
        """Takes what a quiet run made for what is right."""

    def losses(self) -> Iterator[str]:
        """What looks finished and is neither old nor right."""

    def wrong(self) -> Iterator[str]:
        """What is otherwise than after the quiet run, now that another went to its end."""


class Heatmap:
    """A map of a photo in one format."""

    each = 10

    def __init__(self, suffix: str, scratch: Path):
        image, older, self.old = scratch / "image.png", scratch / "older.png", scratch / f"old.{suffix}"
        photo = Image.open(SAMPLES / "coffee.png").convert("RGB").resize(SIZE)
        photo.save(image)
        photo.rotate(180).save(older)
        self.folder, self.environment = scratch / "maps", temporary(scratch)
        self.folder.mkdir()
        self.out = self.folder / f"map.{suffix}"
        more = ["--anchors", "0", *(["-c", "espresso"] if suffix == "png" else [])]
        run(command("heatmap", older, "-o", self.old, "-q", *more), self.environment)
        self.arguments = command("heatmap", image, "-o", self.out, "-q", *more)
        self.older = False

    def prepare(self, number: int) -> None:
        remove(self.out)
        self.older = number % 4 < 2
        if self.older:
            subprocess.run(["cp", "-r", self.old, self.out], check=True)

    def remember(self) -> None:
        self.right, self.before = digest(self.out), digest(self.old)

    def losses(self) -> Iterator[str]:
        names = [path.name for path in self.folder.iterdir()]
        if self.out.exists():
            if digest(self.out) not in {self.right, *([self.before] if self.older else [])}:
                yield f"another {self.out.name}"
        elif self.older and not any(name.endswith(".old") for name in names):
            yield f"no {self.out.name}, which was there"
        yield from (name for name in names if name != self.out.name and not is_temporary(name))

    def wrong(self) -> Iterator[str]:
        yield from (path.name for path in self.folder.iterdir() if path != self.out)
        if digest(self.out) != self.right:
            yield f"another {self.out.name}"


class Prepare:
    """A plan and its parts on a cold cache."""

    each = 10

    def __init__(self, scratch: Path, *model: str):
        self.folder = scratch / "cache"
        self.folder.mkdir()
        self.environment = temporary(scratch) | {"XDG_CACHE_HOME": str(self.folder)}
        self.arguments = command("prepare", "-q", *model)

    def prepare(self, number: int) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and not is_temporary(path.name):
                path.unlink()

    def remember(self) -> None:
        self.names = self._names()

    def losses(self) -> Iterator[str]:
        from fcnconv.backends.onnx import onnx_run, stage_run
        from fcnconv.backends.plans import read_plan, read_stages
        from fcnconv.errors import PlanError

        for path in self.folder.rglob("*"):
            try:
                if is_temporary(path.name) or path.is_dir():
                    continue
                if path.suffix == ".parts":
                    read_stages(path, stage_run)
                elif path.suffix in (".onnx", ".optimised"):
                    read_plan(path, onnx_run)
            except PlanError as error:
                yield str(error)

    def wrong(self) -> Iterator[str]:
        yield from self.names ^ self._names()

    def _names(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


class Batch:
    """Maps of many photos, each killed run resumed: the same bytes as one quiet run."""

    each = 1

    def __init__(self, scratch: Path, *more: str):
        photos, self.folder, self.environment = scratch / "photos", scratch / "maps", temporary(scratch)
        photos.mkdir()
        coffee = Image.open(SAMPLES / "coffee.png").convert("RGB")
        for number in range(PHOTOS):
            coffee.rotate(360 * number / PHOTOS).resize((320, 288)).save(photos / f"{number:02}.png")
        self.arguments = command("batch", photos, "-o", self.folder, "-q", "--anchors", "0", *more)

    def prepare(self, number: int) -> None:
        remove(self.folder)

    def remember(self) -> None:
        self.right, self.names = dict(self._answers()), set(self._names())

    def losses(self) -> Iterator[str]:
        for name, answer in self._answers():
            if self.right.get(name) != answer:
                yield f"another {name}"

    def wrong(self) -> Iterator[str]:
        now = dict(self._answers())
        yield from (name for name in self.right if now.get(name) != self.right[name])
        yield from self.names ^ set(self._names())

    def _names(self) -> Iterator[str]:
        """Of all files. The parts of a table that was resumed are more: they count as one."""
        for path in self.folder.rglob("*"):
            yield "parts" if path.suffix == ".parquet" else str(path.relative_to(self.folder))

    def _answers(self) -> Iterator[tuple[str, str]]:
        """What says which answer an image has: the bytes of its map, or its rows in whatever part."""
        for path in self.folder.rglob("*"):
            if is_temporary(path.name):
                continue
            if path.suffix == ".npz":
                yield str(path.relative_to(self.folder)), digest(path)
            elif path.suffix == ".parquet":
                import pyarrow.parquet

                rows = pyarrow.parquet.read_table(path).to_pylist()
                for name in {row["path"] for row in rows}:
                    yield name, str([row for row in rows if row["path"] == name])


CASES: dict[str, Callable[[Path], Case]] = {
    **{suffix: lambda scratch, suffix=suffix: Heatmap(suffix, scratch) for suffix in FORMATS},  # type: ignore[misc]
    "prepare": Prepare,
    "batch": Batch,
    "table": lambda scratch: Batch(scratch, "-f", "parquet", "--cells-table"),
}
"""What is killed. Each is given an empty folder."""


def kill(what: str, kills: int, seed: int = 0, each: int | None = None) -> Counts:
    """Kills a command so many times. The plan must be in the cache.

    each: kills after which a run goes to its end, otherwise than the case has it.
    """
    draw, counts = random.Random(f"{what} {seed}"), Counts()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        case = CASES[what](Path(folder))
        case.prepare(-1)
        length, appears = timed_run(case)
        case.remember()
        number = 0
        while counts.kills < kills and number < 5 * kills:
            case.prepare(number)
            before = inside(case)
            if number % 2:
                was_running = killed(case, lambda: draw.uniform(0, length - appears), before)
            else:
                was_running = killed(case, lambda: length * (counts.kills + draw.random()) / kills)
            number += 1
            if not was_running:
                counts.ended += 1
                continue
            counts.kills += 1
            counts.losses += (f"{loss} after run {number}" for loss in case.losses())
            counts.leftovers += any(is_temporary(path.name) for path in inside(case) - before)
            if counts.kills % (each or case.each) == 0:
                run(case.arguments, case.environment)
                left = (path.name for path in inside(case) if is_temporary(path.name))
                counts.stayed += (f"{one} after run {number}" for one in {*case.wrong(), *left})
    return counts


def timed_run(case: Case) -> tuple[float, float]:
    """Runs a command to its end. Seconds that it took, and those after which something appeared."""
    before, since, seen = inside(case), time.perf_counter(), threading.Event()
    appears = [0.0]

    def look() -> None:
        while not seen.is_set():
            if inside(case) - before:
                appears[0] = time.perf_counter() - since
                return
            time.sleep(0.002)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        run(case.arguments, case.environment)
        length = time.perf_counter() - since
    finally:
        seen.set()
        looking.join()
    return length, min(appears[0] or length, length)


def killed(case: Case, after: Callable[[], float], before: set[Path] | None = None) -> bool:
    """Starts a command and kills it; gives whether it was still running.

    after: gives the seconds, which count from when something is in the folder that was not there before, if
    that is given.
    """
    with subprocess.Popen(
        case.arguments,
        env=os.environ | case.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while before is not None and process.poll() is None and not inside(case) - before:
            time.sleep(0.002)
        try:
            process.wait(after())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def run(arguments: Sequence[str], environment: dict[str, str]) -> None:
    """Runs a command to its end. Raises CalledProcessError, and TimeoutExpired where it hangs."""
    subprocess.run(
        arguments,
        env=os.environ | environment,
        check=True,
        timeout=LIMIT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fcnconv", *map(str, arguments)]


def temporary(scratch: Path) -> dict[str, str]:
    """A folder for temporary files of its own."""
    (scratch / "tmp").mkdir()
    return {"TMPDIR": str(scratch / "tmp")}


def inside(case: Case) -> set[Path]:
    """What is in the folder and in that for temporary files, but for the number of a session that ONNX
    Runtime leaves there, whatever becomes of the process.
    """
    found = set[Path]()
    for folder in (case.folder, Path(case.environment["TMPDIR"])):
        with suppress(OSError):  # what is listed vanishes meanwhile
            found |= {path for path in folder.rglob("*") if path.name != ".ses"}
    return found


def is_temporary(name: str) -> bool:
    return name.startswith(".") and any(mark in name for mark in (".tmp", ".old", ".lock"))


def remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", path], check=True)


def digest(path: Path) -> str:
    """A SHA-256 of what a file, a folder or an archive holds (an archive also has times)."""
    if path.is_dir():
        entries = sorted(entry for entry in path.rglob("*") if entry.is_file())
        parts = [f"{entry.relative_to(path)} {digest(entry)}" for entry in entries]
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            parts = [f"{name} {sha256(archive.read(name)).hexdigest()}" for name in archive.namelist()]
    else:
        return sha256(path.read_bytes()).hexdigest()
    return sha256("\n".join(parts).encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*CASES], metavar="WHAT", help=f"of {', '.join(CASES)}")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(command("prepare", "-q"), {})
    print(f"| {' | '.join(HEADER)} |\n|---{'|--:' * (len(HEADER) - 1)}|")
    failed = 0
    for what in options.what:
        found = kill(what, options.kills, options.seed)
        print(f"| {' | '.join(found.row(what))} |", flush=True)
        for problem in (*found.losses, *found.stayed):
            print(problem, file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
