"""Estimates the cost of a scan before it runs."""

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
from fcnconv.system.progress import Work, counted, duration

BYTE = 8
"""The number of multiply-adds that take as long as the work on one byte of a stage's largest maps. This makes
the first stage, whose maps are large, 1.8 times as slow (measured).
"""

PROBES, ENOUGH = (4, 16, 16), 1.0
"""Sides of the small scans that are timed, in steps; and the seconds after which no further scan is timed."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the scan of one grid.

    Attributes:
        grid: the grid.
        tiling: how the grid is computed.
        multiply_adds: multiply-adds of the converted network.
        crops: number of crops that are scored.
        seconds: expected time, from the measured times of a small scan and of some crops.
        map_bytes: size of the full map in float32.
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
        if t.in_stages:
            cut += f", the network in {len(t.stages)} stages"
        work = f", {self.multiply_adds / 1e9:,.0f} billion multiply-adds" if self.multiply_adds else ""
        if self.crops:
            work += f", {counted(self.crops, 'crop')}"
        return (
            f"{g.scan_size[0]} × {g.scan_size[1]} px, stride {g.stride}: {g.rows} × {g.cols} windows {cut}; "
            f"about {duration(self.seconds)}, {size_text(t.memory)} of memory{work}; "
            f"the full map has {size_text(self.map_bytes)}"
        )


@dataclass(frozen=True)
class Pace:
    """The measured time of a small scan: seconds per multiply-add, and seconds per window."""

    multiply_add: float
    window: float


def measure_pace(run: Forward, stages: Stages, channels: int, window: int, step: int) -> Pace:
    """The best pace of a few small scans. The first scan also warms up what is slow at first."""
    paces = []
    for n in PROBES:
        pixels = np.zeros((1, channels, window + n * step, window + n * step), np.float32)
        start = time.perf_counter()
        run(pixels)
        seconds = time.perf_counter() - start
        multiply_adds = choose(stages, (n, n), inf).multiply_adds
        paces.append(Pace(seconds / (multiply_adds or inf), seconds / (n + 1) ** 2))
        if seconds > ENOUGH:
            break
    return min(paces, key=lambda pace: pace.window)


def measure_crop(run: Forward, channels: int, window: int) -> float:
    """Seconds per crop, measured on a batch of crops."""
    pixels = np.zeros((CROP_BATCH, channels, window, window), np.float32)
    run(pixels)  # warms up
    start = time.perf_counter()
    run(pixels)
    return (time.perf_counter() - start) / CROP_BATCH


def estimate(
    grid: Grid, tiling: Tiling, pace: Pace, whole: Stage, num_classes: int, *, crops: int, crop: float
) -> Estimate:
    """The expected cost of a grid that is computed with a tiling and corrected by some crops.

    If the work of a network is unknown, only the work of its crops counts.

    Args:
        grid: the grid.
        tiling: how the grid is computed.
        pace: the pace that was measured for `whole`.
        whole: the network as a single stage.
        num_classes: number of classes.
        crops: number of crops that are scored.
        crop: seconds per crop.
    """
    stages = work(grid, tiling.stages, tiling.blocks, tiling.needed)
    effort = sum(n * _effort(stage) for n, stage in zip(stages, tiling.stages, strict=True))
    seconds = pace.multiply_add * effort / _effort(whole) + crop * crops
    return Estimate(grid, tiling, sum(stages), crops, seconds, 4 * grid.rows * grid.cols * num_classes)


def scan_work(tilings: Mapping[Grid, Tiling], whole: Stage, window: int, step: int, crops: int) -> list[Work]:
    """The stages of a scan's progress, measured in megapixels that the network sees, including halos and
    crops.

    Args:
        tilings: the tiling of each grid that is scanned densely.
        whole: the network as a single stage.
        window: pixels across a crop.
        step: pixels between the cells of `whole`.
        crops: number of crops that are scored.
    """
    works = []
    multiply_adds = sum(sum(work(grid, t.stages, t.blocks, t.needed)) for grid, t in tilings.items())
    if multiply_adds:
        megapixel = whole.multiply_adds / step**2 * 1e6
        works.append(Work(SCANNING, "scanning", multiply_adds, each=1 / megapixel))
    if crops:
        works.append(Work(CROPS, "scoring crops", crops, each=window**2 / 1e6))
    return works


def _effort(stage: Stage) -> float:
    """How long a stage's multiply-adds take, relative to the fastest possible stage."""
    return 1 + BYTE * stage.memory / stage.multiply_adds if stage.multiply_adds else 1.0


def size_text(count: float) -> str:
    """Formats a number of bytes for a message."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
