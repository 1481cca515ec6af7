"""Rows and columns of a grid that hold anchors, and what lies between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcnconv.scores import FloatArray, Mask

Lines = npt.NDArray[np.int64]
"""Rows, or columns, by their numbers in a grid, in order."""

LEAST_LINES = 3
"""Rows and columns of anchors that a map has at least, as far as it has so many."""


def anchor_lines(count: int, every: int, phases: int = 1) -> Lines:
    """int64: the rows (or columns) of a grid that hold anchors, in order: of the network's own lines, which
    are every `phases`-th, the first and the last and evenly spaced ones between.

    count: rows of the grid. every: K. Fewer than K lines are all anchors.

    Gaps are K lines at most, or one more where that saves a line and the mean gap grows by a twentieth or
    less.
    Even gaps name 3 % more first classes than gaps of K and a short last one (6 rows, K = 4).
    """
    native = (count - 1) // phases + 1
    if every == 1 or native < every:
        return np.arange(native) * phases
    gaps = -(-(native - 1) * 20 // (every * 21))  # ⌈(native - 1) / (1.05 · K)⌉
    lines = max(gaps + 1, min(native, LEAST_LINES))
    return np.round(np.linspace(0, native - 1, lines)).astype(np.int64) * phases


def complete(lines: Lines, start: int, stop: int) -> int:
    """Up to where lines `start` to `stop` - 1 can be interpolated: beyond the last of anchors among them, or
    all of them if the last of all has come.
    """
    if stop > lines[-1]:
        return stop
    inside = lines[(lines >= start) & (lines < stop)]
    return int(inside[-1]) + 1 if len(inside) else start


def between(lines: Lines, places: slice) -> tuple[Lines, Lines, FloatArray]:
    """For each place the indices of the lines of anchors before and after it, and how far it is from the
    first to the second, 0 to 1. On one, and beyond the last, both are the same.
    """
    place = np.arange(places.start, places.stop)
    low = np.searchsorted(lines, place, side="right") - 1
    on = (lines[low] == place) | (low == len(lines) - 1)
    high = np.where(on, low, low + 1)
    gap = np.where(on, 1, lines[high] - lines[low])
    return low, high, np.where(on, 0, (place - lines[low]) / gap).astype(np.float32)


def needed_anchors(rows: Lines, cols: Lines, inside: Mask) -> Mask:
    """bool (len(rows), len(cols)): the anchors that some cell inside is interpolated from.

    inside: bool (rows, cols) of the grid.
    """
    needed = np.zeros((len(rows), len(cols)), np.bool_)
    y, x = np.nonzero(inside)
    down, across = (
        between(lines, slice(0, count))[:2] for lines, count in zip((rows, cols), inside.shape, strict=True)
    )
    for row in down:
        for col in across:
            needed[row[y], col[x]] = True
    return needed
