"""Maps as planes, one per class, at several sizes, for microscopy viewers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np

from fcnconv.images import mean_side
from fcnconv.scores import FloatArray, MapInfo, ScoreStream
from fcnconv.system.scratch import let_go, scratch_array
from fcnconv.writers.output_spec import OutputSpec

TILE = 256
"""Side of a tile or chunk in cells. A map that is not larger has no smaller copies."""


def planes(stream: ScoreStream, output: OutputSpec) -> FloatArray:
    """Reads the map and returns the selected scores, float32 (planes, rows, cols), in memory, or on disk if
    they are large.
    """
    rows, cols, _ = stream.info.shape
    found = scratch_array((len(output.names(stream.info)), rows, cols))
    for piece in stream.pieces():
        found[(slice(None), *piece.slices)] = output.scores(piece).transpose(2, 0, 1)
        let_go(found)
    return found


def levels(rows: int, cols: int) -> int:
    """Returns the number of sizes for a map of so many cells. Each size is half of the one before."""
    return max(math.ceil(math.log2(max(rows, cols) / TILE)), 0) + 1


def pyramid(found: FloatArray) -> Iterator[FloatArray]:
    """Yields planes (n, rows, cols) at each of their `levels`, the largest first."""
    yield found
    for _ in range(levels(*found.shape[1:]) - 1):
        smaller = scratch_array((len(found), *(-(-side // 2) for side in found.shape[1:])))
        for plane, half in zip(found, smaller, strict=True):
            half[:] = halved(plane)
        yield smaller
        found = smaller


def halved(plane: FloatArray) -> FloatArray:
    """Returns a plane at half its size: the means of squares of four cells, without cells outside the region
    of interest.
    """
    rows, cols = plane.shape
    even = np.full((rows + rows % 2, cols + cols % 2), np.nan, np.float32)
    even[:rows, :cols] = plane
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four cells that are all outside the region of interest
        mean: FloatArray = np.nanmean(even.reshape(len(even) // 2, 2, -1, 2), axis=(1, 3), dtype=np.float32)
    return mean


def cell_size(info: MapInfo) -> tuple[float, float, float, float, bool]:
    """Returns the place of the planes on the image: width and height of a cell, x and y of the first cell's
    centre, and whether these are micrometres. They are pixels if the image does not record its pixel size.
    """
    grid, size = info.grid, mean_side(info.source.info.pixel_size) if info.source is not None else None
    x0, y0, x1, y1 = grid.square(0, 0)
    unit = 1.0 if size is None else size * 1e6
    return (x1 - x0) * unit, (y1 - y0) * unit, (x0 + x1) / 2 * unit, (y0 + y1) / 2 * unit, size is not None
