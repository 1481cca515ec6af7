"""What a process that lives long keeps in memory: 1,000 images of different sizes, one after another.

    python benchmarks/long_lived.py PHOTOS [--count N] [--way NAME …]

PHOTOS is a folder of photos; the images are photos from it, resized to random sizes of 160 to 400 px. Each
way runs in a process of its own: the maps of one `Classifier`, and ``fcnconv batch`` that writes pages. It
prints the resident memory after some of them, and the ratio of the last to that after 50.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import fcnconv

AFTER = (1, 50, 100, 200, 400, 700, 1000)
LEAST, MOST = 160, 400
"""The sides of the images, in pixels."""

MAPS: dict[str, dict[str, object]] = {
    "dense": {},
    "all scales, focused": {"scales": "auto", "map": "focused"},
    "all scales, windows": {"scales": "auto"},
    "corrected (--anchors 4)": {"anchors": 4},
}
PAGES = "batch -f html"


def resident(pid: int | str = "self") -> int:
    """The resident memory of a process, in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(found[0].split()[1]) / 1024) if found else 0


def make_images(photos: Path, folder: Path, count: int) -> list[Path]:
    """Writes `count` images to a folder."""
    random = np.random.default_rng(0)
    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    made = []
    for n in range(count):
        with Image.open(found[n % len(found)]) as photo:
            size = tuple(int(side) for side in random.integers(LEAST, MOST, 2))
            photo.convert("RGB").resize(size).save(path := folder / f"{n:04}.jpg")
        made.append(path)
    return made


def map_all(pipe: Connection, images: list[Path], options: dict[str, object]) -> None:
    """Maps every image with one classifier, and sends the memory after some of them."""
    logging.getLogger("fcnconv").setLevel(logging.WARNING)
    classifier = fcnconv.load()
    for n, path in enumerate(images, start=1):
        classifier(path, **options)  # type: ignore[arg-type]
        if n in AFTER:
            pipe.send((n, resident()))
    pipe.send(None)


def of_maps(images: list[Path], options: dict[str, object]) -> dict[int, int]:
    """The memory of a process that maps every image, after some of them."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=map_all, args=(theirs, images, options))
    process.start()
    found = dict(iter(ours.recv, None))
    process.join()
    return found


def of_batch(images: list[Path], out: Path) -> dict[int, int]:
    """The memory of ``fcnconv batch -f html``, after some of its pages, and shortly before its end."""
    command = [sys.executable, "-m", "fcnconv", "batch", str(images[0].parent), "-o", str(out), "-f", "html"]
    found: dict[int, int] = {}
    last = 0
    with subprocess.Popen([*command, "-q"], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            written = sum(1 for _ in out.rglob("*.jpg.html"))
            now = resident(process.pid)
            last = now or last
            for n in AFTER:
                if n <= written and now:
                    found.setdefault(n, now)
            time.sleep(0.2)
    return found | {len(images): last}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=AFTER[-1])
    parser.add_argument("--way", action="append", choices=[*MAPS, PAGES])
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        (folder := Path(temporary) / "images").mkdir()
        images = make_images(given.photos, folder, given.count)
        ways: dict[str, Callable[[], dict[int, int]]] = {
            name: lambda options=options: of_maps(images, options)  # type: ignore[misc]
            for name, options in MAPS.items()
        }
        ways[PAGES] = lambda: of_batch(images, Path(temporary) / "pages")
        counts = [n for n in AFTER if n <= given.count]
        print(f"| memory after … images, in MB | {' | '.join(map(str, counts))} | last / after 50 |")
        print("|---|" + "---|" * (len(counts) + 1))
        for name, measure in ways.items():
            if given.way and name not in given.way:
                continue
            found = measure()
            ratio = f"{found[counts[-1]] / found[50]:.2f}" if 50 in found else ""
            print(f"| {name} | {' | '.join(str(found.get(n, '')) for n in counts)} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
