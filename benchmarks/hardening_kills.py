"""Kills the command at moments spread over its run, and looks at what is left.

    python benchmarks/hardening_kills.py
    python benchmarks/hardening_kills.py npy zarr --kills 20
    python benchmarks/hardening_kills.py prepare

A quiet run tells what is right and how long it takes. Then half of the kills come at times spread evenly over
that length, half as long after something first appeared in the folder as is drawn from what remains. In half
of the runs an older map is there already. A loss is a file or folder of a final name that is neither what
was there before nor what the quiet run made. Leftovers are what else is there. After ten kills a run goes
to its end, and must leave nothing but its result, also in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from PIL import Image

SAMPLES = Path(__file__).parents[1] / "sample_images"

FORMATS = "npy", "npz", "zarr", "tif", "png", "html", "json"

SIZE = 1024, 768
"""Pixels of the image: a map of 18 × 26 cells, large enough for its writing to take part of the run."""

EACH = 10
"""Kills after which a run goes to its end."""

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
    """What the next run did not remove, or how it failed."""

    def row(self, what: str) -> str:
        return (
            f"| {what} | {self.kills} | {self.ended} | {len(self.losses)} | {self.leftovers} | "
            f"{len(self.stayed)} |"
        )


HEADER = (
    "| what | kills | ended before | losses | leftovers | left by the next run |\n|---|---|---|---|---|---|"
)


def digest(path: Path) -> str:
    """A SHA-256 of what a file, a folder or an archive holds (an archive also has times)."""
    if path.is_dir():
        inside = sorted(entry for entry in path.rglob("*") if entry.is_file())
        parts = [f"{entry.relative_to(path)} {digest(entry)}" for entry in inside]
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            parts = [f"{name} {sha256(archive.read(name)).hexdigest()}" for name in archive.namelist()]
    else:
        return sha256(path.read_bytes()).hexdigest()
    return sha256("\n".join(parts).encode()).hexdigest()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fcnconv", *map(str, arguments)]


def run(arguments: list[str], environment: dict[str, str]) -> float:
    """Runs a command to its end, and gives the seconds that took."""
    since = time.perf_counter()
    subprocess.run(
        arguments, env=os.environ | environment, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    return time.perf_counter() - since


def killed(
    arguments: list[str], environment: dict[str, str], after: float, since_seen: Callable[[], bool] | None
) -> bool:
    """Starts a command and kills it; gives whether it was still running.

    after: seconds. since_seen: if given, they count from when it is true.
    """
    with subprocess.Popen(
        arguments, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while since_seen is not None and process.poll() is None and not since_seen():
            time.sleep(0.002)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def content(folder: Path) -> list[Path]:
    """What is in a folder, but for the number of a session that ONNX Runtime leaves in that for temporary
    files, whatever becomes of the process.
    """
    return [path for path in folder.iterdir() if path.name != ".ses"]


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and any(mark in path.name for mark in (".tmp", ".old", ".lock"))


def kill_heatmap(suffix: str, kills: int, seed: int = 0) -> Counts:
    """Kills `fcnconv heatmap` while it makes a map in one format. The plan must be in the cache."""
    draw, counts = random.Random(f"{suffix} {seed}"), Counts()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        image, older = Path(scratch, "image.png"), Path(scratch, "older.png")
        photo = Image.open(SAMPLES / "coffee.png").convert("RGB").resize(SIZE)
        photo.save(image)
        photo.rotate(180).save(older)
        folder, temporary = Path(scratch, "maps"), Path(scratch, "tmp")
        folder.mkdir()
        temporary.mkdir()
        environment, out = {"TMPDIR": str(temporary)}, folder / f"map.{suffix}"
        more = ["--anchors", "0", *(["-c", "espresso"] if suffix == "png" else [])]
        arguments = command("heatmap", image, "-o", out, "-q", *more)
        before = Path(scratch, f"before.{suffix}")
        run(command("heatmap", older, "-o", before, "-q", *more), environment)
        length = run(arguments, environment)
        right, old = digest(out), digest(before)
        for number in range(kills):
            subprocess.run(["rm", "-rf", out], check=True)
            if number % 4 < 2:
                subprocess.run(["cp", "-r", before, out], check=True)
            names = {path.name for path in folder.iterdir()}
            if number % 2:
                counts.kills += killed(
                    arguments, environment, draw.uniform(0, 0.5 * length),
                    lambda names=names: any(path.name not in names for path in folder.iterdir()),
                )  # fmt: skip
            else:
                counts.kills += killed(
                    arguments, environment, length * (number + draw.random()) / kills, None
                )
            allowed = {right, old} if number % 4 < 2 else {right}
            left = [path for path in folder.iterdir() if is_temporary(path)]
            for path in folder.iterdir():
                if path not in left and digest(path) not in allowed:
                    counts.losses.append(f"{path.name} after kill {number}")
            if number % 4 < 2 and not out.exists() and not any(path.name.endswith(".old") for path in left):
                counts.losses.append(f"no {out.name} after kill {number}, and it was there")
            counts.leftovers += any(path.name not in names for path in (*left, *content(temporary)))
            if number % EACH == EACH - 1:
                run(arguments, environment)
                counts.stayed += [
                    path.name for path in (*folder.iterdir(), *content(temporary)) if path != out
                ]
                if digest(out) != right:
                    counts.losses.append(f"another {out.name} from the run after kill {number}")
        counts.ended = kills - counts.kills
    return counts


def kill_prepare(kills: int, seed: int = 0) -> Counts:
    """Kills `fcnconv prepare` on a cold cache."""
    from fcnconv.backends.onnx import onnx_run, part_run
    from fcnconv.backends.plans import read_parts, read_plan
    from fcnconv.errors import PlanError

    draw, counts = random.Random(f"prepare {seed}"), Counts()
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        cache, temporary = Path(scratch, "cache"), Path(scratch, "tmp")
        temporary.mkdir()
        environment = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(cache)}
        arguments = command("prepare", "-q")
        length = run(arguments, environment)
        names = {path.relative_to(cache) for path in cache.rglob("*")}
        for number in range(kills):
            for path in cache.rglob("*"):
                if path.is_file() and not is_temporary(path):
                    path.unlink()
            before = set(cache.rglob("*"))
            aimed = number % 2 == 1
            after = draw.uniform(0, 0.5 * length) if aimed else length * (number + draw.random()) / kills
            seen = (lambda before=before: bool(set(cache.rglob("*")) - before)) if aimed else None
            counts.kills += killed(arguments, environment, after, seen)
            files = [path for path in cache.rglob("*") if path.is_file()]
            left = [path for path in files if is_temporary(path)]
            for path in files:
                try:
                    if path in left:
                        continue
                    if path.suffix == ".parts":
                        read_parts(path, part_run)
                    elif path.suffix in (".onnx", ".optimised"):
                        read_plan(path, onnx_run)
                except PlanError as error:
                    counts.losses.append(f"{error} after kill {number}")
            counts.leftovers += bool(set(left) - before)
            if number % EACH == EACH - 1:
                run(arguments, environment)
                now = {path.relative_to(cache) for path in cache.rglob("*")}
                counts.stayed += map(str, (now ^ names) | set(content(temporary)))
        counts.ended = kills - counts.kills
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*FORMATS, "prepare"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run(command("prepare", "-q"), {})
    print(HEADER)
    for what in options.what:
        found = (
            kill_prepare(options.kills, options.seed)
            if what == "prepare"
            else kill_heatmap(what, options.kills, options.seed)
        )
        print(found.row(what), flush=True)
        for problem in (*found.losses, *found.stayed):
            print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
