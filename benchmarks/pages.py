"""Prints what a page or a picture of each photo costs beside its map, in processor time.

    python benchmarks/pages.py PHOTOS [--limit N] [--megapixels N]

For each photo in turn: its pixels at all scales; the network on them; its focused map, without a file; the
same map as a page and as a PNG; and the windows at the photo's own size as .npz. All are measured one after
the other on the same photo, so that the ratios hold while other programs run. Each photo has the memory that
a batch gives it. --megapixels resizes the photos.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

import fcnconv
from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import write_map
from fcnconv.batch.workers import IN_FLIGHT
from fcnconv.images import resize
from fcnconv.options import PLAIN_SCAN, ScanOptions
from fcnconv.scan.execute import LocalExecutor, execute
from fcnconv.writers import WRITERS, OutputSpec

DISPLAYED = PLAIN_SCAN.for_display()


def read(classifier: Classifier, photo: Path, out: Path) -> None:
    """Decodes the photo and resizes it to all scales of display formats."""
    source = classifier.open(photo, DISPLAYED.sizes)
    for grid in classifier.grids(source, DISPLAYED.sizes):
        resize(source, grid.scan_size)


def scan(classifier: Classifier, photo: Path, out: Path) -> None:
    """Runs the network at these scales."""
    executor = LocalExecutor(classifier.network, classifier.open_crops)
    for _ in execute(classifier.plan(photo, DISPLAYED), executor):
        pass


def focus(classifier: Classifier, photo: Path, out: Path) -> None:
    """Computes the focused map."""
    for _ in classifier.stream(photo, DISPLAYED).pieces():
        pass


def write(classifier: Classifier, photo: Path, out: Path, options: ScanOptions, suffix: str) -> None:
    """Writes a map in the format of a suffix."""
    write_map(classifier.stream(photo, options), out, WRITERS[suffix], OutputSpec())


FOCUSED = "focused map, not written"
WAYS: dict[str, Callable[[Classifier, Path, Path], None]] = {
    "decoded and resized to all scales": read,
    "the network at all scales": scan,
    FOCUSED: focus,
    "focused map as .html": partial(write, options=DISPLAYED, suffix="html"),
    "focused map as .png": partial(write, options=DISPLAYED, suffix="png"),
    "windows at the photo's own size as .npz": partial(write, options=PLAIN_SCAN, suffix="npz"),
}


def resized(photo: Path, megapixels: float, folder: Path) -> Path:
    """A photo at another size, as a JPEG in a folder."""
    with Image.open(photo) as image:
        factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * factor), round(image.height * factor)
        image.convert("RGB").resize(size).save(path := folder / f"{photo.stem}.jpg", quality=90)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--megapixels", type=float)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    classifier = fcnconv.load().share(IN_FLIGHT)
    photos = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    seconds: Counter[str] = Counter()
    written: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = photos[: given.limit]
        if given.megapixels:
            photos = [resized(photo, given.megapixels, folder) for photo in photos]
        for number, photo in enumerate([photos[0], *photos]):
            for name, do in WAYS.items():
                out = folder / "out"
                start = time.process_time()
                do(classifier, photo, out)
                if number:  # the first opens the plans
                    seconds[name] += time.process_time() - start
                    written[name] += out.stat().st_size if out.exists() else 0
                out.unlink(missing_ok=True)
    print(f"{len(photos)} photos:\n\n| | time a photo | against the map | size |\n|---|---|---|---|")
    for name in WAYS:
        size = f"{written[name] / len(photos) / 1000:.0f} kB" if written[name] else ""
        ratio = seconds[name] / seconds[FOCUSED]
        print(f"| {name} | {seconds[name] / len(photos):.3f} s | {ratio:.2f} | {size} |")


if __name__ == "__main__":
    main()
