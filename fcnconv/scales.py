"""Joining the score maps of several scales: one map on the finest grid, and the scale of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from fcnconv.errors import UsageError
from fcnconv.files import scratch_array
from fcnconv.scores import Block, FloatArray, Grid, strips

Join = Literal["max", "mean"]


def parse_join(text: str) -> Join:
    """The way to join that `text` names. Raises UsageError."""
    for known in get_args(Join):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"unknown join {text!r}; known: {', '.join(get_args(Join))}")


def joined(
    blocks: Iterable[Block], grids: Sequence[Grid], join: Join, temperature: float, num_classes: int
) -> Iterator[Block]:
    """The blocks of the joined map: those of the finest grid, each with the best scale of its cells.

    blocks: of the scan of all grids, the finest last. Its blocks are joined as they come; only the coarser
        maps are held, and the larger of them on disk.
    join: for each class and cell, the highest log-probability of all scales, or the mean. A cell meets at
        each other scale the window whose centre is nearest to its own.
    temperature: divides the logits before they are joined; what comes out is multiplied by it again.

    The best scale, uint8 (rows, cols), counts in `grids`: where the joined first class is most probable.
    """
    finest = finest_of(grids)
    maps = {grid: scratch_array((grid.rows, grid.cols, num_classes)) for grid in grids if grid != finest}
    for block in blocks:
        if block.grid != finest:
            maps[block.grid][block.rows, block.cols] = block.logits
            continue
        for strip in strips(block):
            yield _joined(strip, [maps.get(grid) for grid in grids], grids, join, temperature)


def finest_of(grids: Sequence[Grid]) -> Grid:
    """The grid of the most cells, on which scales are joined."""
    return max(grids, key=lambda grid: grid.rows * grid.cols)


def _joined(
    block: Block, maps: Sequence[FloatArray | None], grids: Sequence[Grid], join: Join, temperature: float
) -> Block:
    found = []
    for grid, coarse in zip(grids, maps, strict=True):
        logits = block.logits
        if coarse is not None:
            rows = [grid.nearest(block.grid, row, 0)[0] for row in range(block.rows.start, block.rows.stop)]
            cols = [grid.nearest(block.grid, 0, col)[1] for col in range(block.cols.start, block.cols.stop)]
            logits = coarse[np.ix_(rows, cols)]
        found.append(_log_softmax(logits / np.float32(temperature)))
    stacked = np.stack(found)  # (scales, rows, cols, K)
    scores = stacked.max(0) if join == "max" else stacked.mean(0)
    first = scores.argmax(-1)[None, :, :, None]
    best = np.take_along_axis(stacked, first, -1)[..., 0].argmax(0).astype(np.uint8)
    return replace(block, logits=scores * np.float32(temperature), best_scale=best)


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
