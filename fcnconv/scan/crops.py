"""Scores single windows of an image as crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Grid
from fcnconv.images import ImageSource, Pixels, resize
from fcnconv.scores import Block, FloatArray, Mask

CROP_BATCH = 32
"""Crops that are scored together: enough to keep two cores busy, with 20 MB of input for a window of 224 px.
"""


AHEAD = 8 * CROP_BATCH
"""Crops that are scored ahead of their use, at most."""

CROPS = "crops"
"""The stage of a scan's progress that counts scored crops, each as one unit. The code that runs the crops
reports it.
"""

CellNumbers = npt.NDArray[np.int64]
"""Numbers of cells of a grid, row by row."""


def score_crops(
    source: ImageSource,
    grid: Grid,
    cells: Iterable[int],
    run: Callable[[FloatArray], FloatArray],
    prepare: Callable[[Pixels], FloatArray],
) -> FloatArray:
    """Scores single windows of a grid, each cropped by itself.

    Neighbours in a row that overlap are cut from one strip, which is read and prepared once.

    Args:
        source: the image.
        grid: the grid of the windows.
        cells: numbers of the cells, row by row.
        run, prepare: as for `scan`; `run` scores each crop by itself.

    Returns:
        float32 (number of cells, num_classes): the logits.
    """
    scaled = resize(source, grid.scan_size)
    logits = []
    remaining = iter(cells)
    while batch := list(islice(remaining, CROP_BATCH)):
        crops = []
        for row, cols in _overlapping(batch, grid):
            left, top = cols[0] * grid.stride, row * grid.stride
            right = cols[-1] * grid.stride + grid.window
            strip = prepare(scaled.read((left, top, right, top + grid.window)))
            starts = [col * grid.stride - left for col in cols]
            crops += [strip[..., x : x + grid.window] for x in starts]
        logits.append(run(np.concatenate(crops))[:, :, 0, 0])
    return np.concatenate(logits)


def crops_alone(
    grid: Grid, num_classes: int, inside: Mask, score: Callable[[CellNumbers], FloatArray]
) -> Iterator[Block]:
    """Yields one block per row of windows: the windows inside scored one by one, the others NaN.

    Args:
        grid: the grid of the windows.
        num_classes: number of classes.
        inside: bool (rows, cols), the windows to score.
        score: scores single windows, by their numbers.
    """
    ahead = CropBatcher(score, np.flatnonzero(inside))
    for row, wanted in enumerate(inside):
        logits = np.full((1, grid.cols, num_classes), np.nan, np.float32)
        cols = np.flatnonzero(wanted)
        if len(cols):
            logits[0, cols] = ahead(row * grid.cols + cols)
        yield Block(grid, slice(row, row + 1), slice(0, grid.cols), logits, wanted[None])


class CropBatcher:
    """Scores cells that are known beforehand in whole batches, whenever the first cell of a batch is
    requested.

    Anchors are requested row by row, a few at a time: in batches of seven, each crop took 1.4 times as long.

    Args:
        score: scores single windows, by their numbers: int64 (n,) -> float32 (n, num_classes).
        cells: int64, in order: the cells that will be requested, each once and about in that order. Other
            cells may be requested too, and are scored at once.
    """

    def __init__(self, score: Callable[[CellNumbers], FloatArray], cells: CellNumbers):
        self.score = score
        self.cells = cells
        self.next = 0
        self.known: dict[int, FloatArray] = {}

    def __call__(self, cells: CellNumbers) -> FloatArray:
        """The logits of single windows: float32 (len(cells), num_classes)."""
        wanted = cells.tolist()
        last = max((cell for cell in wanted if self._is_ahead(cell)), default=-1)
        while self.next < len(self.cells) and self.cells[self.next] <= last:
            batch = self.cells[self.next : self.next + AHEAD]
            self.known.update(zip(batch.tolist(), self.score(batch), strict=True))
            self.next += len(batch)
        scored = {cell: self.known.pop(cell) for cell in wanted if cell in self.known}
        rest = [cell for cell in wanted if cell not in scored]
        if rest:
            scored.update(zip(rest, self.score(np.array(rest)), strict=True))
        return np.stack([scored[cell] for cell in wanted])

    def _is_ahead(self, cell: int) -> bool:
        place = int(np.searchsorted(self.cells, cell))
        return self.next <= place < len(self.cells) and int(self.cells[place]) == cell


def _overlapping(cells: Sequence[int], grid: Grid) -> Iterator[tuple[int, list[int]]]:
    """Groups the cells into runs of one row, and yields the row and the columns of each run.

    A run continues while each window overlaps the previous one, so a strip of them never has more pixels than
    the windows have.
    """
    row, cols = -1, list[int]()
    for cell in cells:
        below, col = divmod(int(cell), grid.cols)
        if cols and (below != row or not cols[-1] <= col <= cols[-1] + grid.window // grid.stride):
            yield row, cols
            cols = []
        row = below
        cols.append(col)
    yield row, cols
