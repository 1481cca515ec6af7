"""Joins the score maps of several scales into one map on the finest grid, with the scale of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Grid, finest_of
from fcnconv.labels import Labels
from fcnconv.options import Join
from fcnconv.scores import Block, Mask, strips
from fcnconv.scores.activations import ACTIVATIONS, FloatArray
from fcnconv.system.scratch import let_go, scratch_array

FOUND = 0.5
"""The probability in a finer window that is enough for the wider window around it to add nothing new. Checked
on photos of a cat, a cup and a tripod: if only the wider window's own probability counted as the bar, a
tripod of 0.96 would become half a picture, because two windows of half the picture are 0.98 sure of it.
"""


def joined(
    blocks: Iterable[Block], grids: Sequence[Grid], join: Join, temperature: float, labels: Labels
) -> Iterator[Block]:
    """Joins the maps of several scales into blocks of the finest grid.

    For ``max`` and ``mean`` the finest blocks are joined as they come, and only the coarser maps are held;
    for ``finest`` all maps are held. Large maps are held on disk.

    Args:
        blocks: the scan of all grids, the finest last.
        grids: the grids, in the order that the best scale counts in.
        join: how a class is scored in a cell, from the cell's own window and the windows of the coarser
            scales with the nearest centres. ``max`` takes the highest probability, and ``mean`` takes the
            mean. ``finest``
        takes the highest too, but lowers a coarser window where finer windows inside it know the class
            better: so each object is reported where it is, and an object that only a wide view shows is
            reported too. The value of a coarser window becomes p (1 - k⁴), where k is the highest probability
            of the class in the finer windows as a share of p, or of `FOUND` if that is less. These values are
            interpolated between centres.
        temperature: divides the logits before they are joined; the result is multiplied by it again.
        labels: the classes; their activation turns logits into probabilities.

    Yields:
        Blocks whose logits are logarithms of probabilities; for classes that exclude each other, the
        probabilities sum to one for ``mean`` only. The best scale of a block, uint8 (rows, cols), is the
        index in `grids` of the scale where the joined top class is most probable.
    """
    finest, num_classes, logs = finest_of(grids), len(labels), ACTIVATIONS[labels.activation].logs
    levels = sorted(grids, key=lambda grid: grid.rows * grid.cols)  # the finest last
    maps = {grid: scratch_array((grid.rows, grid.cols, num_classes)) for grid in levels[:-1]}
    whole = scratch_array((finest.rows, finest.cols, num_classes)) if join == "finest" else None
    found = _Highest(finest, levels[-2], num_classes) if whole is not None else None
    for block in chain.from_iterable(map(strips, blocks)):
        scores = logs(block.logits / np.float32(temperature))
        own = replace(block, logits=scores)
        if block.grid != finest:
            maps[block.grid][block.rows, block.cols] = scores
            let_go(maps[block.grid])
        elif whole is None or found is None:
            yield _finished(own, maps, grids, join, temperature)
        else:
            whole[block.rows, block.cols] = scores
            found.update(own)
            let_go(whole)
            let_go(found.scores)
    if whole is not None and found is not None:
        _leave_what_finer_scales_find(maps, levels, found)
        for strip in strips(Block(finest, slice(0, finest.rows), slice(0, finest.cols), whole)):
            yield _finished(strip, maps, grids, join, temperature)
            let_go(whole)


def _finished(
    block: Block, maps: dict[Grid, FloatArray], grids: Sequence[Grid], join: Join, temperature: float
) -> Block:
    """The same as `_joined`, with as little as possible left in memory."""
    result = _joined(block, maps, grids, join, temperature)
    for coarse in maps.values():
        let_go(coarse)
    return result


def _joined(
    block: Block, maps: dict[Grid, FloatArray], grids: Sequence[Grid], join: Join, temperature: float
) -> Block:
    """A block of the finest map with all scales joined.

    Scores are logarithms of probabilities. For ``finest`` the coarser maps, as
    `_leave_what_finer_scales_find` left them, are probabilities.
    """
    own = np.exp(block.logits) if join == "finest" else block.logits
    scores = own.copy()
    near: list[tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for grid in grids:
        if grid == block.grid:
            near.append((own, *_axes(range(scores.shape[0]), range(scores.shape[1]))))
            continue
        rows = [grid.nearest(block.grid, row, 0)[0] for row in range(block.rows.start, block.rows.stop)]
        cols = [grid.nearest(block.grid, 0, col)[1] for col in range(block.cols.start, block.cols.stop)]
        near.append((maps[grid], *_axes(rows, cols)))
        coarse = _between(maps[grid], block, grid) if join == "finest" else maps[grid][near[-1][1:]]
        with np.errstate(invalid="ignore"):  # NaN outside the region of interest
            (np.logaddexp if join == "mean" else np.maximum)(scores, coarse, out=scores)
    if join == "mean":
        scores -= np.float32(np.log(len(grids)))
    first = scores.argmax(-1)
    best = np.stack([scale[rows, cols, first] for scale, rows, cols in near]).argmax(0).astype(np.uint8)
    if join == "finest":
        np.log(np.maximum(scores, np.finfo(np.float32).tiny, out=scores), out=scores)
    scores *= np.float32(temperature)
    return replace(block, logits=scores, exact=None, best_scale=best)


def _between(scores: FloatArray, block: Block, grid: Grid) -> FloatArray:
    """A coarser map's scores at the centres of a block's windows, interpolated."""
    result = np.zeros_like(block.logits)
    down, across = (neighbours(grid, block, axis) for axis in (1, 0))
    for rows, down_share in down:
        for cols, across_share in across:
            share = (down_share[:, None] * across_share)[:, :, None]
            result += share * scores[np.ix_(rows, cols)]
    return result


Shares = tuple[npt.NDArray[np.intp], FloatArray]
"""The indices of cells along an axis, and their shares in interpolated values."""


def neighbours(grid: Grid, block: Block, axis: int) -> tuple[Shares, Shares]:
    """The cells of a grid before and after each centre of a block along an axis, with their shares."""
    count = (grid.cols, grid.rows)[axis]
    centres = block.centres(axis) * grid.scan_size[axis] / block.grid.scan_size[axis]
    place = np.clip(grid.cell_at(centres), 0, count - 1)
    before = np.minimum(place.astype(np.intp), max(count - 2, 0))
    share = (place - before).astype(np.float32)
    return (before, 1 - share), (np.minimum(before + 1, count - 1), share)


def _axes(rows: Sequence[int], cols: Sequence[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices that pick these rows and columns of a map."""
    return np.array(rows)[:, None], np.array(cols)[None]


def _leave_what_finer_scales_find(
    maps: dict[Grid, FloatArray], levels: Sequence[Grid], found: _Highest
) -> None:
    """Subtracts from each coarser map, in place, the share of a class that finer windows inside its windows
    explain.

    The maps contain logarithms before, and probabilities afterwards.

    Args:
        maps: the coarser maps.
        levels: the grids, the finest last.
        found: the highest scores of the finest map in the windows of the next grid.
    """
    for level in range(len(levels) - 2, -1, -1):
        coarse, finer = maps[levels[level]], found.scores
        if level:
            found = _Highest(levels[level], levels[level - 1], coarse.shape[2])
        for row, scores in enumerate(coarse):
            highest = np.fmax(scores, finer[row])
            if level:
                found.update(Block(levels[level], slice(row, row + 1), slice(0, len(scores)), highest[None]))
            known = np.exp(finer[row] - np.minimum(scores, np.log(FOUND, dtype=np.float32)))
            np.exp(scores, out=scores)
            scores *= 1 - np.minimum(known, 1) ** 4


def needed_between(coarse: Grid, finest: Grid, inside: Mask) -> Mask:
    """bool (rows, cols) of a coarser grid: the cells that some cell inside of the finest is joined with.

    inside: bool (rows, cols) of the finest grid.
    """
    everywhere = Block(finest, slice(0, finest.rows), slice(0, finest.cols), np.empty((0, 0, 0), np.float32))
    needed = np.zeros((coarse.rows, coarse.cols), np.bool_)
    y, x = np.nonzero(inside)
    for rows, _ in neighbours(coarse, everywhere, 1):
        for cols, _ in neighbours(coarse, everywhere, 0):
            needed[rows[y], cols[x]] = True
    return needed


class _Highest:
    """The highest score of each class in the finer cells whose centres lie in each coarser window.

    Cells outside the region of interest are NaN, and do not count.

    Attributes:
        scores: float32 (rows, cols, num_classes) of the coarser grid; -inf where no score has come yet.
    """

    def __init__(self, finer: Grid, coarser: Grid, num_classes: int):
        self.scores = scratch_array((coarser.rows, coarser.cols, num_classes))
        self.scores[:] = -np.inf
        self.rows, self.cols = (_inside(finer, coarser, axis) for axis in (1, 0))

    def update(self, block: Block) -> None:
        """Takes in a block of the finer map."""
        cols = [(j, place) for j, span in enumerate(self.cols) if (place := _shared(span, block.cols))]
        if not cols:
            return
        across = np.stack([np.fmax.reduce(block.logits[:, place], 1) for _, place in cols], axis=1)
        columns = slice(cols[0][0], cols[-1][0] + 1)
        for i, span in enumerate(self.rows):
            if place := _shared(span, block.rows):
                here = self.scores[i, columns]
                np.fmax(here, np.fmax.reduce(across[place], 0), out=here)


def _inside(finer: Grid, coarser: Grid, axis: int) -> list[slice]:
    """The cells of the finer grid whose centres lie in each coarser window. axis: 0 is along x.

    A centre on the end of a window lies in the next one. Multiplied by both sizes, all places are exact.
    """
    count, fine, coarse = (finer.cols, finer.rows)[axis], finer.scan_size[axis], coarser.scan_size[axis]
    centres = finer.centre(np.arange(count, dtype=np.float64)) * coarse
    first = np.arange((coarser.cols, coarser.rows)[axis]) * coarser.stride * fine
    starts = np.searchsorted(centres, first)
    stops = np.searchsorted(centres, first + coarser.window * fine)
    return [slice(*pair) for pair in zip(starts.tolist(), stops.tolist(), strict=True)]


def _shared(span: slice, block: slice) -> slice | None:
    """The overlap of two spans of cells, counted from the second's start; None if they do not overlap."""
    start, stop = max(span.start, block.start), min(span.stop, block.stop)
    return slice(start - block.start, stop - block.start) if start < stop else None
