"""What maps that agree with crops cost, and how far they agree.

    python benchmarks/truth.py                                  (the collage as squares of 512, 1024, 2048 px)
    python benchmarks/truth.py 400 --short --images PHOTO ...   (photos, their short side at 400 px)

Each way to make a map in turn, several times; the median of the times of all images, as a ratio to the
plain network's maps and to all crops. Agreement and divergence are measured over all windows, against the
classifier on every crop; the estimate that each map makes of itself is held against what is true.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import fcnconv
from fcnconv.api.maps import ScoreMap
from fcnconv.scores.activations import divergence

PHOTO = Path(__file__).parents[1] / "sample_images/collage.jpg"
PLAIN, EVERY = "plain network (--anchors 0)", "all crops (--mode windows)"
WAYS: dict[str, dict[str, float]] = {
    PLAIN: {"anchors": 0},
    "--anchors 6": {"anchors": 6},
    "--anchors 4, the default": {},
    "--anchors 4 --refine 0.1": {"refine": 0.1},
    "--anchors 3": {"anchors": 3},
    "--anchors 3 --refine 0.2": {"anchors": 3, "refine": 0.2},
    "--anchors 2": {"anchors": 2},
}


def read(path: Path, side: int, short: bool) -> np.ndarray:
    """uint8 (H, W, 3): the photo as a square of `side` pixels, or with its short side of so many."""
    with Image.open(path) as photo:
        ratio = side / min(photo.size)
        size = (round(photo.width * ratio), round(photo.height * ratio)) if short else (side, side)
        return np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def logits_of(score_map: ScoreMap) -> np.ndarray:
    """float32 (windows, num_classes), divided by the temperature."""
    return score_map.logits.reshape(-1, score_map.shape[2]) / np.float32(score_map.temperature)


def row(
    name: str, maps: list[ScoreMap], true: list[ScoreMap], took: float, plain: float, every: float
) -> str:
    """A line of the table: what a way gave on all images."""
    pairs = [(logits_of(a), logits_of(b)) for a, b in zip(maps, true, strict=True)]
    same = [(found.argmax(1) == crops.argmax(1)).mean() for found, crops in pairs]
    windows = [len(found) for found, _ in pairs]
    off = np.concatenate([divergence(crops, found) for found, crops in pairs]).mean()
    exact = sum(int(score_map.exact.sum()) for score_map in maps) / sum(windows)
    told = [score_map.provenance.agreement for score_map in maps]
    held = [a.low - 1e-9 <= s <= a.high + 1e-9 for a, s in zip(told, same, strict=True) if a is not None]
    covers = f"{sum(held)} of {len(held)}" if held else ""
    return (
        f"| {name} | {exact:.1%} | {took:.3f} s | {took / plain:.1f} | {took / every:.3f} | "
        f"{np.average(same, weights=windows):.1%} | {off:.3f} | {covers} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", type=int, default=[512, 1024, 2048])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--images", type=Path, nargs="+", default=[PHOTO])
    asked = parser.parse_args()
    classifier, crops = fcnconv.load(), fcnconv.load(mode="windows")
    for side in asked.sides:
        photos = [read(path, side, asked.short) for path in asked.images]
        ways = {name: partial(classifier, **way) for name, way in WAYS.items()} | {EVERY: crops}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.runs + 1):  # the first one warms up
            maps = {}
            for name, way in ways.items():
                start = time.perf_counter()
                maps[name] = [way(photo) for photo in photos]
                times[name].append(time.perf_counter() - start)
        took = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
        windows = sum(score_map.exact.size for score_map in maps[EVERY])
        print(f"\n{len(photos)} images at {side} px, {windows} windows\n")
        print("| | crops | time | × plain | of all crops | same first class | KL | estimate holds |")
        print("|---|---|---|---|---|---|---|---|")
        for name in ways:
            print(
                row(
                    name,
                    maps[name],
                    maps[EVERY],
                    took[name],
                    took["plain network (--anchors 0)"],
                    took[EVERY],
                )
            )


if __name__ == "__main__":
    main()
