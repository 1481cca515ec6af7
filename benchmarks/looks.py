"""Where ways to map a small photo find four things whose places are known: those of the sample collage.

    python benchmarks/looks.py 240 800

For each short side that the collage is brought to, and each way: cells, seconds of the second run, and for
each thing the highest probability, the mean over the windows centred in its photo, and the mean elsewhere.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import fcnconv

ROOT = Path(__file__).parents[1]
PLACES = runpy.run_path(str(ROOT / "docs/maintain/make_collage.py"))["PLACES"]
THINGS = {"chelsea.png": "cat", "coffee.png": "espresso", "camera.png": "tripod", "rocket.jpg": "missile"}
WAYS = [  # scales, stride, join
    ("1", 32, "finest"),
    ("312px", 8, "finest"),
    ("400px", 16, "finest"),
    ("576px", 32, "finest"),
    ("576px", 16, "finest"),
    ("576px,256px", 32, "max"),
    ("576px,256px", 32, "mean"),
    ("auto", 32, "finest"),
]


def main(short_sides: list[int]) -> None:
    """Prints a table for each short side."""
    classifiers = {stride: fcnconv.load(stride=stride) for stride in (32, 16, 8)}
    with Image.open(ROOT / "sample_images/collage.jpg") as collage:
        whole = collage.convert("RGB")
    for side in short_sides:
        photo = whole.resize((round(side * whole.width / whole.height), side), Image.Resampling.LANCZOS)
        print(f"{photo.width} × {photo.height} px")
        for scales, stride, join in WAYS:
            classifier = classifiers[stride]
            classifier(photo, scales=scales, join=join)
            start = time.perf_counter()
            score_map = classifier(photo, scales=scales, join=join)
            seconds = time.perf_counter() - start
            found = [_found(score_map, place, THINGS[name]) for name, place in PLACES.items()]
            cells = f"{score_map.shape[0]} × {score_map.shape[1]}"
            print(f"  {scales:12} stride {stride:2} {join:6} {cells:8} {seconds:5.2f} s  {'  '.join(found)}")


def _found(score_map: fcnconv.ScoreMap, place: tuple[int, int, int, int], name: str) -> str:
    left, top, width, height = place
    ratio = 1600 / score_map.grid.image_size[0]
    boxes = np.array([[score_map.grid.box(*cell) for cell in np.ndindex(*score_map.shape[:2])]])[0]
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2 * ratio, (boxes[:, 1] + boxes[:, 3]) / 2 * ratio
    inside = (left <= x) & (x < left + width) & (top <= y) & (y < top + height)
    plane = score_map.class_map(name).ravel()
    here = f"{plane[inside].mean():.2f}" if inside.any() else "none"
    return f"{name} {plane.max():.2f} {here}/{plane[~inside].mean():.3f}"


if __name__ == "__main__":
    main([int(side) for side in sys.argv[1:]] or [240, 800])
