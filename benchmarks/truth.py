"""What maps that agree with real crops cost, and how far they agree: python benchmarks/truth.py [SIDE ...]

Each way to make a map in turn, on one photo enlarged or reduced to a square of each size, several times; the
median of the times, as a ratio to the plain network's map and to all crops. Agreement and divergence are
measured over all windows, against the classifier on every real crop.
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
from fcnconv.scan.agreement import divergence

PHOTO = Path(__file__).parents[1] / "sample_images/collage.jpg"
WAYS: dict[str, dict[str, float]] = {
    "plain network (--anchors 0)": {"anchors": 0},
    "--anchors 6": {"anchors": 6},
    "--anchors 4, the default": {},
    "--anchors 4 --refine 0.1": {"refine": 0.1},
    "--anchors 3": {"anchors": 3},
    "--anchors 3 --refine 0.2": {"anchors": 3, "refine": 0.2},
    "--anchors 2": {"anchors": 2},
}

EVERY = "all crops (--mode windows)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="*", type=int, default=[512, 1024, 2048])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--image", type=Path, default=PHOTO)
    asked = parser.parse_args()
    classifier, crops = fcnconv.load(), fcnconv.load(mode="windows")
    for side in asked.sides:
        photo = np.asarray(
            Image.open(asked.image).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        )
        ways = {name: partial(classifier, photo, **way) for name, way in WAYS.items()}
        ways[EVERY] = partial(crops, photo)
        times: dict[str, list[float]] = {name: [] for name in ways}
        maps = {name: way() for name, way in ways.items()}  # warm
        for _ in range(asked.runs):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
        took = {name: statistics.median(seconds) for name, seconds in times.items()}
        *_, every = maps.values()
        true = every.logits.reshape(-1, 1000)
        plain, whole = (took[name] for name in (next(iter(ways)), EVERY))
        rows, cols, _ = every.shape
        print(f"\n{side} × {side} px, {rows * cols} windows\n")
        print("| | crops | time | × plain | of all crops | same first class | KL, nats |")
        print("|---|---|---|---|---|---|---|")
        for name, score_map in maps.items():
            logits = score_map.logits.reshape(-1, 1000) / np.float32(score_map.temperature)
            same = (logits.argmax(1) == true.argmax(1)).mean()
            off = divergence(true, logits).mean()
            print(
                f"| {name} | {score_map.exact.mean():.1%} | {took[name]:.3f} s | {took[name] / plain:.1f} | "
                f"{took[name] / whole:.3f} | {same:.1%} | {off:.3f} |"
            )


if __name__ == "__main__":
    main()
