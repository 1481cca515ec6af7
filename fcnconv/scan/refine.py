"""Scores the least sure windows of a map exactly, and corrects their neighbours by the error that this
reveals: a share of the windows, or until the map agrees with crops as often as requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from fcnconv.provenance import Activation
from fcnconv.scan.agreement import SAMPLE_OF, AgreementEstimator, sample_size
from fcnconv.scan.crops import CROPS
from fcnconv.scores import Block, Mask
from fcnconv.scores.activations import ACTIVATIONS, FloatArray
from fcnconv.system.progress import more

OWN_WEIGHT = 0.2
"""Weight of a neighbour's own value, against a weight of exp(-1) for each adjacent exact cell. Measured."""


def least_sure(
    logits: FloatArray, exact: Mask, count: int, activation: Activation = "softmax"
) -> npt.NDArray[np.int64]:
    """Finds up to `count` cells that are not exact and have the least margin, as between their two highest
    logits.

    Args:
        logits: float32 (rows, cols, num_classes).
        exact: bool (rows, cols).
        count: maximum number of cells.
        activation: the activation of the labels.

    Returns:
        int64: the numbers of the cells in this rectangle, row by row, in order.
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
    """Puts the logits of crops into a corrected map, marks them in `exact`, and corrects their neighbours, in
    place.

    To each neighbouring cell, the mean error of the exact cells around it is added. Cells that were exact
    before count as having no error, because the map was interpolated through them.

    Args:
        logits: float32 (rows, cols, num_classes) of the map.
        exact: bool (rows, cols).
        cells: numbers of the cells in this rectangle, none of them exact.
        crops: float32 (n, num_classes), the logits of their crops.
        phases: cells along one native stride. Neighbours that are closer are more alike.
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
        # In one direction each cell occurs once, so nothing is added to the same cell twice here.
        logits[i, j] += (weight / weights[i, j])[:, None] * errors[inside]
    logits[y, x] = crops


def refined(
    blocks: Iterable[Block],
    score: Callable[[npt.NDArray[np.int64]], FloatArray],
    share: float,
    activation: Activation = "softmax",
    inside: Mask | None = None,
) -> Iterator[Block]:
    """Scores a share of the cells of each block of a dense map exactly: the least sure ones.

    Args:
        blocks: the dense map.
        score: scores single windows, by their numbers in the grid.
        share: share of the cells of each block.
        activation: the activation of the labels.
        inside: bool (rows, cols) of the grid, the cells inside the region of interest; None means all.

    Yields:
        The blocks; all other cells are unchanged.
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


SAMPLE_TIMES = 4
"""How many times larger than usual the sample is: a small sample cannot confirm a large share."""

STEP = 0.03
"""Share of the windows that are scored between two estimates."""


def asked_sample(windows: int) -> int:
    """The number of windows that are compared for a requested share of agreement. windows: windows of the
    map.
    """
    return max(sample_size(windows), SAMPLE_TIMES * windows // SAMPLE_OF, min(windows // 3, 48))


USUAL = 0.7
"""The usual lower end of the first estimate for a map with anchors."""


def lacking(cells: int, exact: int, low: float, share: float) -> float:
    """The approximate number of windows to score until the lower end `low` of the estimate reaches `share`.

    It assumes that the scored windows agree as often as the others that are left.

    Args:
        cells: windows of the map.
        exact: windows that are scored already.
        low: lower end of the estimate.
        share: the requested share.
    """
    return (cells - exact) * (1 - (1 - share) / (1 - low)) if low < share else 0.0


def first_guess(cells: int, scored: int, share: float) -> float:
    """The same before anything is known of the map. scored: windows that will be scored in any case."""
    return lacking(cells, scored, max(USUAL, scored / cells), share)


def refine_until(
    block: Block,
    score: Callable[[npt.NDArray[np.int64]], FloatArray],
    sample: npt.NDArray[np.int64],
    share: float,
    tally: AgreementEstimator,
    inside: Mask | None = None,
) -> Block:
    """Scores windows exactly until the lower end of the estimated agreement with crops reaches `share`.

    The least sure windows come first. Sampled windows among them count as exact from then on, and no longer
    represent the others. So the rest of the sample stays a random sample of the windows that are left. If the
    share is not reached before, all windows are scored.

    Args:
        block: a whole corrected map with its mask of exact cells, changed in place.
        score: scores single windows, by their numbers.
        sample: random cells that are not exact. They are compared at each estimate, and put in at the end.
        share: the requested share.
        tally: receives the counts of the last estimate.
        inside: bool (rows, cols), the cells inside the region of interest; None means all.
    """
    logits, exact = block.logits, np.array(block.exact)
    cols, outside = exact.shape[1], np.zeros_like(exact) if inside is None else ~inside
    cells_inside = exact.size - int(outside.sum())
    crops = score(sample) if len(sample) else np.empty((0, logits.shape[2]), np.float32)
    place = {int(cell): i for i, cell in enumerate(sample)}
    count = max(round(STEP * cells_inside), 1)
    expected = first_guess(cells_inside, int(exact.sum()) + len(sample), share)
    while True:
        y, x = np.divmod(sample, cols)
        left = ~exact[y, x]
        estimator = AgreementEstimator(
            cells_inside, int(exact.sum()) + int(left.sum()), activation=tally.activation
        )
        estimator.compare(logits[y[left], x[left]], crops[left])
        agreement = estimator.agreement()
        if (exact | outside).all() or (agreement is not None and agreement.low >= share):
            break
        now = lacking(
            cells_inside,
            estimator.exact,
            agreement.low if agreement else estimator.exact / cells_inside,
            share,
        )
        more(CROPS, now - expected)
        cells = least_sure(logits, exact | outside, count, tally.activation)
        known = np.array([int(cell) in place for cell in cells])
        right = np.empty((len(cells), logits.shape[2]), np.float32)
        right[known] = crops[[place[int(cell)] for cell in cells[known]]]
        if (~known).any():
            right[~known] = score(cells[~known])
        expected = now - int((~known).sum())
        put_in(logits, exact, cells, right, block.grid.phases)
    more(CROPS, -expected)
    logits[y[left], x[left]] = crops[left]
    exact[y[left], x[left]] = True
    tally.add(estimator)
    return replace(block, logits=logits, exact=exact)
