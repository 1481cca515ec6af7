"""Scoring single windows of an image as the real crops that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """
    scaled = resize(source, grid.scan_size)
    logits = []
    remaining = iter(cells)
    while batch := list(islice(remaining, CROP_BATCH)):
        corners = [(cell % grid.cols * grid.stride, cell // grid.cols * grid.stride) for cell in batch]
        crops = [prepare(scaled.read((x, y, x + grid.window, y + grid.window))) for x, y in corners]
        logits.append(run(np.concatenate(crops))[:, :, 0, 0])
    return np.concatenate(logits)
