"""What a scan will cost, before it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from fcnconv.grid import Grid
from fcnconv.scan.crops import CROP_BATCH, CROPS
from fcnconv.scan.rectangles import work
from fcnconv.scan.stages import SCANNING, Forward, Stage
from fcnconv.scan.tiling import Stages, Tiling, choose
from fcnconv.system.progress import Work, duration

BYTE = 8
"""How many multiply-adds take as long as the work on a byte of a part's largest maps, which makes the first
part, of large maps, 1.8 times as slow (measured).
"""

PROBES, ENOUGH = (4, 16, 16), 1.0
"""Sides of the small scans whose time is taken, in steps; and the seconds after which no other follows."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the scan of one grid.

    multiply_adds: of the converted network. crops: real crops that are scored.
    seconds: from the measured times of a small scan and of some crops.
    map_bytes: of the full map in float32.
    """

    grid: Grid
    tiling: Tiling
    multiply_adds: float
    crops: int
    seconds: float
    map_bytes: int

    def __str__(self) -> str:
        t, g = self.tiling, self.grid
        cut = "in one piece" if t.tiles == 1 else f"in {t.tiles} tiles"
        if t.in_parts:
            cut += f", the network in {len(t.parts)} parts"
        cost = f"{size_text(t.memory)}"
        if self.multiply_adds:
            cost += f", {self.multiply_adds / 1e9:,.0f} billion multiply-adds"
        if self.crops:
            cost += f" beside a batch of crops, {self.crops:,} crops"
        return (
            f"{g.scan_size[0]} × {g.scan_size[1]} px, stride {g.stride}: {g.rows} × {g.cols} windows {cut}; "
            f"memory {cost}, about {duration(self.seconds)}; the full map has {size_text(self.map_bytes)}"
        )


@dataclass(frozen=True)
class Pace:
    """The measured time of a small scan: seconds for each multiply-add, and for each window."""

    multiply_add: float
    window: float


def measure_pace(run: Forward, parts: Stages, window: int, step: int) -> Pace:
    """The best pace of a few small scans; the first of them also warms up what is slow at first."""
    paces = []
    for n in PROBES:
        pixels = np.zeros((1, 3, window + n * step, window + n * step), np.float32)
        start = time.perf_counter()
        run(pixels)
        seconds = time.perf_counter() - start
        multiply_adds = choose(parts, (n, n), inf).multiply_adds
        paces.append(Pace(seconds / (multiply_adds or inf), seconds / (n + 1) ** 2))
        if seconds > ENOUGH:
            break
    return min(paces, key=lambda pace: pace.window)


def measure_crop(run: Forward, window: int) -> float:
    """Seconds for one real crop, of a batch of them."""
    pixels = np.zeros((CROP_BATCH, 3, window, window), np.float32)
    run(pixels)  # what is slow at first
    start = time.perf_counter()
    run(pixels)
    return (time.perf_counter() - start) / CROP_BATCH


def estimate(
    grid: Grid, tiling: Tiling, pace: Pace, whole: Stage, num_classes: int, *, crops: int, crop: float
) -> Estimate:
    """The expected cost of a grid that is computed in a tiling, and of which some real crops are scored.

    pace: that was measured of `whole`, the network in one piece. crop: seconds for each of the `crops`. The
    work of a network that is not known is that of its crops.
    """
    parts = work(grid, tiling.parts, tiling.blocks, tiling.needed)
    effort = sum(n * _effort(part) for n, part in zip(parts, tiling.parts, strict=True))
    seconds = pace.multiply_add * effort / _effort(whole) + crop * crops
    return Estimate(grid, tiling, sum(parts), crops, seconds, 4 * grid.rows * grid.cols * num_classes)


def scan_work(tilings: Mapping[Grid, Tiling], whole: Stage, window: int, step: int, crops: int) -> list[Work]:
    """The stages of a scan, measured in megapixels that the network looks at, halos and crops included.

    Args:
        tilings: Of the grids that are scanned densely.
        whole: The network in one piece.
        window: Pixels across a crop.
        step: Pixels between the cells of `whole`.
        crops: How many are scored.
    """
    works = []
    multiply_adds = sum(sum(work(grid, t.parts, t.blocks, t.needed)) for grid, t in tilings.items())
    if multiply_adds:
        megapixel = whole.multiply_adds / step**2 * 1e6
        works.append(Work(SCANNING, "scanning", multiply_adds, each=1 / megapixel))
    if crops:
        works.append(Work(CROPS, "scoring crops", crops, each=window**2 / 1e6))
    return works


def _effort(part: Stage) -> float:
    """How long a part's multiply-adds take, against the fastest."""
    return 1 + BYTE * part.memory / part.multiply_adds if part.multiply_adds else 1.0


def size_text(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
