"""Prints what a page or a picture of each photo costs beside its map, in processor time.

    python benchmarks/pages.py PHOTOS [--limit N]

For each photo in turn: its focused map at all scales, without a file; the same map as a page and as a PNG;
and the windows at the photo's own size as .npz. All are measured one after the other on the same photo, so
that the ratios hold while other programs run.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

import fcnconv
from fcnconv.api.maps import write_map
from fcnconv.options import PLAIN_SCAN, ScanOptions
from fcnconv.writers import WRITERS, OutputSpec

DISPLAYED = PLAIN_SCAN.for_display()
WAYS: dict[str, tuple[ScanOptions, str | None]] = {
    "focused map, not written": (DISPLAYED, None),
    "focused map as .html": (DISPLAYED, "html"),
    "focused map as .png": (DISPLAYED, "png"),
    "windows at the photo's own size as .npz": (PLAIN_SCAN, "npz"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    classifier = fcnconv.load()
    photos = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    photos = photos[: given.limit]
    seconds: Counter[str] = Counter()
    written: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate([photos[0], *photos]):
            for name, (options, suffix) in WAYS.items():
                start = time.process_time()
                stream = classifier.stream(photo, options)
                if suffix is None:
                    for _ in stream.pieces():
                        pass
                else:
                    path = Path(folder, f"{photo.stem}.{suffix}")
                    write_map(stream, path, WRITERS[suffix], OutputSpec())
                if number:  # the first opens the plans
                    seconds[name] += time.process_time() - start
                    written[name] += path.stat().st_size if suffix else 0
                if suffix:
                    path.unlink()
    one = seconds["focused map, not written"]
    print(f"{len(photos)} photos:\n\n| | time a photo | against the map | size |\n|---|---|---|---|")
    for name in WAYS:
        size = f"{written[name] / len(photos) / 1000:.0f} kB" if written[name] else ""
        print(f"| {name} | {seconds[name] / len(photos):.3f} s | {seconds[name] / one:.2f} | {size} |")


if __name__ == "__main__":
    main()
