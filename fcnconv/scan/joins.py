"""Joining the score maps of several scales: one map on the finest grid, and the scale of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Grid, finest_of
from fcnconv.options import Join
from fcnconv.scores import Block, FloatArray, log_softmax, strips
from fcnconv.system.scratch import scratch_array


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
            maps[block.grid][block.rows, block.cols] = log_softmax(block.logits / np.float32(temperature))
            continue
        for strip in strips(block):
            yield _joined(strip, [maps.get(grid) for grid in grids], grids, join, temperature)


def _joined(
    block: Block, maps: Sequence[FloatArray | None], grids: Sequence[Grid], join: Join, temperature: float
) -> Block:
    """A block of the finest map with all scales in it. maps: log-probabilities; None for the finest's own."""
    own = log_softmax(block.logits / np.float32(temperature))
    scores = own.copy()
    near: list[tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for grid, coarse in zip(grids, maps, strict=True):
        if coarse is None:
            near.append((own, np.arange(own.shape[0])[:, None], np.arange(own.shape[1])[None]))
            continue
        rows = [grid.nearest(block.grid, row, 0)[0] for row in range(block.rows.start, block.rows.stop)]
        cols = [grid.nearest(block.grid, 0, col)[1] for col in range(block.cols.start, block.cols.stop)]
        near.append((coarse, np.array(rows)[:, None], np.array(cols)[None]))
        (np.maximum if join == "max" else np.add)(scores, coarse[near[-1][1:]], out=scores)
    if join == "mean":
        scores /= len(grids)
    first = scores.argmax(-1)
    best = np.stack([scale[rows, cols, first] for scale, rows, cols in near]).argmax(0).astype(np.uint8)
    scores *= np.float32(temperature)
    return replace(block, logits=scores, exact=None, best_scale=best)
