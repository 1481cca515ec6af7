"""What a scan will cost, before it runs; and how far it is, while it does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fcnconv.scores import Block, Grid
from fcnconv.tiles import Tiling

log = logging.getLogger("fcnconv")

FIRST_NEWS, NEXT_NEWS = 10.0, 30.0
"""Seconds after which a scan first tells how far it is, and then again."""


@dataclass(frozen=True)
class Estimate:
    """The expected cost of the scan of one grid.

    passes: 1, 2 or 4: a finer grid whose last cells lie beyond the coarse one's is scanned again along them.
    seconds: from the measured time of a small scan.
    map_bytes: of the full map in float32.
    """

    grid: Grid
    tiling: Tiling
    passes: int
    seconds: float
    map_bytes: int

    def __str__(self) -> str:
        t, g = self.tiling, self.grid
        cut = "in one piece" if t.tiles == 1 else f"in {t.tiles} tiles"
        if len(t.stages) > 1:
            cut += f", the network in {len(t.stages)} parts"
        return (
            f"{g.scan_size[0]} × {g.scan_size[1]} px, stride {g.stride}: {g.rows} × {g.cols} windows {cut}; "
            f"memory {_size(t.memory)}, {t.multiply_adds * self.passes / 1e9:,.0f} billion multiply-adds, "
            f"{_duration(self.seconds)}; the full map has {_size(self.map_bytes)}"
        )


def announced(blocks: Iterable[Block], grids: Iterable[Grid], name: str) -> Iterator[Block]:
    """The blocks, with a line of log now and then if they take long: the share done and the time left."""
    total = sum(grid.rows * grid.cols for grid in grids)
    done, start, due = 0, time.monotonic(), FIRST_NEWS
    for block in blocks:
        yield block
        done += block.logits.shape[0] * block.logits.shape[1]
        passed = time.monotonic() - start
        if passed > due and done < total:
            left = _duration(passed * (total - done) / done)
            log.info("%s: %d %% of the windows, %s left", name, 100 * done // total, left)
            due = passed + NEXT_NEWS


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
