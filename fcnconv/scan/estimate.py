"""What a scan will cost, before it runs; and how far it is, while it does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from fcnconv.grid import Grid
from fcnconv.scan.crops import CROP_BATCH
from fcnconv.scan.parts import Run
from fcnconv.scan.tiles import Parts, Tiling, choose
from fcnconv.scores import Block

log = logging.getLogger("fcnconv")

FIRST_NEWS, NEXT_NEWS = 10.0, 30.0
"""Seconds after which a scan first tells how far it is, and then again."""


PROBES, ENOUGH = (4, 16, 16), 1.0
"""Sides of the small scans whose time is taken, in steps; and the seconds after which no other follows."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the scan of one grid.

    passes: 1, 2 or 4: a finer grid whose last cells lie beyond the coarse one's is scanned again along them.
    crops: real crops that are scored. seconds: from the measured times of a small scan and of some crops.
    map_bytes: of the full map in float32.
    """

    grid: Grid
    tiling: Tiling
    passes: int
    crops: int
    seconds: float
    map_bytes: int

    def __str__(self) -> str:
        t, g = self.tiling, self.grid
        cut = "in one piece" if t.tiles == 1 else f"in {t.tiles} tiles"
        if t.in_parts:
            cut += f", the network in {len(t.parts)} parts"
        work = f"{size_text(t.memory)}"
        if t.multiply_adds:
            work += f", {t.multiply_adds * self.passes / 1e9:,.0f} billion multiply-adds"
        if self.crops:
            work += f" beside a batch of crops, {self.crops:,} crops"
        return (
            f"{g.scan_size[0]} × {g.scan_size[1]} px, stride {g.stride}: {g.rows} × {g.cols} windows {cut}; "
            f"memory {work}, {_duration(self.seconds)}; the full map has {size_text(self.map_bytes)}"
        )


@dataclass(frozen=True)
class Pace:
    """The measured time of a small scan: seconds for each multiply-add, and for each window."""

    multiply_add: float
    window: float


def measure_pace(run: Run, parts: Parts, window: int, step: int) -> Pace:
    """The best pace of a few small scans; the first of them also warms up what is slow at first."""
    paces = []
    for n in PROBES:
        pixels = np.zeros((1, 3, window + n * step, window + n * step), np.float32)
        start = time.perf_counter()
        run(pixels)
        seconds = time.perf_counter() - start
        work = choose(parts, (n, n), inf).multiply_adds
        paces.append(Pace(seconds / (work or inf), seconds / (n + 1) ** 2))
        if seconds > ENOUGH:
            break
    return min(paces, key=lambda pace: pace.window)


def measure_crop(run: Run, window: int) -> float:
    """Seconds for one real crop, of a batch of them."""
    pixels = np.zeros((CROP_BATCH, 3, window, window), np.float32)
    run(pixels)  # what is slow at first
    start = time.perf_counter()
    run(pixels)
    return (time.perf_counter() - start) / CROP_BATCH


def estimate(
    grid: Grid, tiling: Tiling, pace: Pace, num_classes: int, *, crops: int, crop: float
) -> Estimate:
    """The expected cost of a grid that is computed in a tiling, and of which some real crops are scored.

    crop: seconds for each of the `crops`. The work of a network that is not known is that of its crops.
    """
    windows = grid.rows * grid.cols
    passes = (1 + bool((grid.rows - 1) % grid.phases)) * (1 + bool((grid.cols - 1) % grid.phases))
    seconds = pace.multiply_add * tiling.multiply_adds * passes + crop * crops
    return Estimate(grid, tiling, passes, crops, seconds, 4 * windows * num_classes)


def announced(blocks: Iterable[Block], tilings: Mapping[Grid, Tiling], name: str) -> Iterator[Block]:
    """The blocks, with a line of log now and then if they take long: the share done and the time left.

    tilings: of the grids, in their order. A network in parts has computed nearly all of a row of blocks with
        the first of them.
    """
    grids = list(tilings)
    sizes = [grid.rows * grid.cols for grid in grids]
    start, due = time.monotonic(), FIRST_NEWS
    done, last = 0, None
    for block in blocks:
        yield block
        if block.grid != last:
            before, last = sum(sizes[: grids.index(block.grid)]), block.grid
            done, ahead = 0, tilings[block.grid].in_parts
        rows, cols, _ = block.logits.shape
        done = block.rows.stop * block.grid.cols if ahead else done + rows * cols
        share, passed = (before + done) / sum(sizes), time.monotonic() - start
        if passed > due and share < 1:
            left = _duration(passed * (1 / share - 1))
            log.info("%s: %d %% of the windows, %s left", name, 100 * share, left)
            due = passed + NEXT_NEWS


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def size_text(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
