"""The time of all scales from an image's own size down to the evaluation size, against the largest alone.

    python benchmarks/scales.py 1024 2048 4096

Both are whole maps of probabilities, joined by maximum, in turns; sides in pixels.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import fcnconv
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_scales

PHOTO = Path(__file__).parents[1] / "sample_images" / "collage.jpg"
ROUNDS = 5


def main() -> None:
    classifier = fcnconv.load()
    for side in map(int, sys.argv[1:] or ["1024", "2048", "4096"]):
        with Image.open(PHOTO) as photo:
            pixels = np.asarray(photo.convert("RGB").resize((side, side)))
        times: dict[str, list[float]] = {"1": [], "auto": []}
        for _ in range(ROUNDS + 1):  # the first warms up
            for scales, taken in times.items():
                start = time.perf_counter()
                for piece in classifier.stream(
                    pixels, ScanOptions(scales=parse_scales(scales), anchors=0)
                ).pieces():
                    piece.probabilities()
                taken.append(time.perf_counter() - start)
        one, all_of_them = (median(taken[1:]) for taken in times.values())
        grids = classifier.grids(classifier.open(pixels), parse_scales("auto"))
        print(
            f"- {side} × {side} px, {len(grids)} scales: {all_of_them:.2f} s, {all_of_them / one:.2f} × "
            f"the {one:.2f} s of the largest"
        )


if __name__ == "__main__":
    main()
