"""Scoring the least sure windows of a map exactly, and telling their neighbours what was wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from fcnconv.activations import ACTIVATIONS, FloatArray
from fcnconv.provenance import Activation
from fcnconv.scores import Block, Mask

OWN_WEIGHT = 0.2
"""Weight of a neighbour's own value against a weight of exp(-1) for each exact cell beside it. Measured."""


def least_sure(
    logits: FloatArray, exact: Mask, count: int, activation: Activation = "softmax"
) -> npt.NDArray[np.int64]:
    """Up to `count` cells that are not exact and whose answer has the least margin, as between their two
    highest logits: their numbers in this rectangle, row by row, in order.

    logits: float32 (rows, cols, num_classes). exact: bool (rows, cols).
    """
    count = min(count, int((~exact).sum()))
    if count <= 0:
        return np.empty(0, np.int64)
    margins = ACTIVATIONS[activation].margins(logits)
    margins[exact] = np.inf
    # Where margins are all infinite, as with one class, exact cells must still come last.
    order = np.lexsort((margins.ravel(), exact.ravel()))
    return np.sort(order[:count])


def put_in(
    logits: FloatArray, exact: Mask, cells: npt.NDArray[np.int64], crops: FloatArray, phases: int = 1
) -> None:
    """Puts the logits of real crops into a corrected map, and marks them in `exact`. To each cell beside them
    the mean of what the exact cells around it were wrong by is added. All in place.

    cells: numbers of the cells in this rectangle, none of them exact. crops: float32 (n, num_classes).
    phases: cells along one of the network's own strides: neighbours that are closer are more alike.

    Cells that were exact before count as right: they were interpolated through.
    """
    rows, cols = exact.shape
    y, x = np.divmod(cells, cols)
    errors = crops - logits[y, x]
    exact[y, x] = True
    weights = np.full(exact.shape, OWN_WEIGHT, np.float32)
    padded = np.pad(exact, 1)
    around = [(dy, dx) for dy, dx in product((-1, 0, 1), repeat=2) if dy or dx]
    near = {(dy, dx): np.float32(np.exp(-np.hypot(dy, dx) / phases)) for dy, dx in around}
    for (dy, dx), weight in near.items():
        weights += weight * padded[1 - dy : rows + 1 - dy, 1 - dx : cols + 1 - dx]
    for (dy, dx), weight in near.items():
        i, j = y + dy, x + dx
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
        inside[inside] = ~exact[i[inside], j[inside]]
        i, j = i[inside], j[inside]
        # Each cell comes once for one direction, so that nothing is added to the same cell twice here.
        logits[i, j] += (weight / weights[i, j])[:, None] * errors[inside]
    logits[y, x] = crops


def refined(
    blocks: Iterable[Block],
    score: Callable[[npt.NDArray[np.int64]], FloatArray],
    share: float,
    activation: Activation = "softmax",
    inside: Mask | None = None,
) -> Iterator[Block]:
    """The blocks of a plain map, of each block this share of cells scored exactly: the least sure ones.

    score: scores single windows, by their numbers in the grid. The other cells stay as they are.
    inside: bool (rows, cols) of the grid, the cells that are looked at; None are all.
    """
    wanted, done = 0.0, 0
    for block in blocks:
        exact: Mask = np.zeros(block.logits.shape[:2], np.bool_)
        outside = exact if inside is None else ~inside[block.rows, block.cols]
        wanted += share * int((~outside).sum())
        cells = least_sure(block.logits, outside, round(wanted) - done, activation)
        done += len(cells)
        if len(cells):
            y, x = np.divmod(cells, exact.shape[1])
            numbers = (y + block.rows.start) * block.grid.cols + x + block.cols.start
            block.logits[y, x] = score(numbers)
            exact[y, x] = True
        yield replace(block, exact=exact)
