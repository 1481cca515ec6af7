"""Checks the time left that a scan tells, against the time that it then took.

    python benchmarks/progress.py
    python benchmarks/progress.py npz png --size 3000 2000 --anchors 0 --memory 500MB

Maps an image made of a sample photo, side by side, in each format in turn, and asks ten times a second how
long it will still take. For each scan it prints the time that it took, after how much of it a time left was
first known, the longest time between two reports of work done, and by how much passed and left together
were off, at the worst moment after the first tenth, as a share of the whole.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from fcnconv.api.loading import load
from fcnconv.api.maps import save_map
from fcnconv.options import ScanOptions
from fcnconv.system.progress import Progress, following
from fcnconv.writers import OutputSpec, find_writer

PHOTO = Path(__file__).parents[1] / "sample_images" / "coffee.png"

EVERY = 0.1
"""Seconds between two looks."""


class Recorder(Progress):
    """An account that remembers when it was reported to."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = [0.0]

    def done(self, name: str, amount: float = 1.0) -> None:
        super().done(name, amount)
        self.reports.append(self.elapsed())

    def written(self, rows: int, of: int) -> None:
        super().written(rows, of)
        self.reports.append(self.elapsed())


def watched(recorder: Recorder, stop: threading.Event) -> list[tuple[float, float | None]]:
    """What was told, until `stop`: pairs of seconds, passed and left."""
    told = []
    while not stop.wait(EVERY):
        told.append((recorder.elapsed(), recorder.left()))
    return told


def scan(image: Path, out: Path, anchors: int | None, memory: str | None) -> str:
    """Maps the image to a file, and says how right the time left was."""
    recorder, stop = Recorder(), threading.Event()
    told: list[tuple[float, float | None]] = []
    watcher = threading.Thread(target=lambda: told.extend(watched(recorder, stop)))
    watcher.start()
    options, writer = ScanOptions(anchors=anchors), find_writer(str(out))
    options = options.for_display() if writer.display else options
    with following(recorder):
        stream = load(max_memory=memory).stream(image, options)
        save_map(stream, str(out), writer, OutputSpec())
    total = recorder.elapsed()
    stop.set()
    watcher.join()
    known = [(passed, left) for passed, left in told if left is not None]
    errors = [(passed + left) / total - 1 for passed, left in known if passed >= total / 10]
    silent = max(b - a for a, b in zip(recorder.reports, [*recorder.reports[1:], total], strict=True))
    worst = max(errors, key=abs)
    return f"{total:.1f} s | {known[0][0]:.1f} s | {silent:.1f} s | {100 * worst:+.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("formats", nargs="*", default=["npz", "png", "json"])
    parser.add_argument("--size", type=int, nargs=2, default=(6000, 4000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--anchors", type=int)
    parser.add_argument("--memory")
    options = parser.parse_args()
    width, height = options.size
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    across, down = -(-width // photo.shape[1]), -(-height // photo.shape[0])
    load().network.stages.cut()  # plans are there, as after the first scan
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.jpg")
        Image.fromarray(np.tile(photo, (down, across, 1))[:height, :width]).save(image)
        print("| written as | anchors | memory | took | first told after | longest silence | worst error |")
        print("|---|---|---|---|---|---|---|")
        for suffix in options.formats:
            found = scan(image, Path(folder, f"map.{suffix}"), options.anchors, options.memory)
            how = f"{options.anchors if options.anchors is not None else 'default'}"
            print(f"| .{suffix} | {how} | {options.memory or 'default'} | {found} |", flush=True)


if __name__ == "__main__":
    main()
