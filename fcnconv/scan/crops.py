"""Scoring single windows of an image as the real crops that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from fcnconv.grid import Grid
from fcnconv.scores import FloatArray
from fcnconv.sources import ImageSource, Pixels, resize

CROP_BATCH = 32
"""Crops that are scored together: enough to fill two cores, at 20 MB of input for a window of 224 px."""


def score_crops(
    source: ImageSource,
    grid: Grid,
    cells: Iterable[int],
    run: Callable[[FloatArray], FloatArray],
    prepare: Callable[[Pixels], FloatArray],
) -> FloatArray:
    """float32 (number of cells, num_classes): the logits of single windows of a grid, each cropped by itself.

    cells: numbers of the cells, row by row. run, prepare: as for `scan`; `run` scores each crop by itself.

    Neighbours in a row that overlap are cut from one strip, which is read and prepared once.
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


def _overlapping(cells: Sequence[int], grid: Grid) -> Iterator[tuple[int, list[int]]]:
    """The cells in runs of one row, with their columns: as long as each window overlaps the one before it, so
    that a strip of them has no more pixels than they have.
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
