"""Scores windows exactly until a map agrees with crops in the requested share of its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fcnconv.scan.agreement import SAMPLE_OF, AgreementEstimator, sample_size
from fcnconv.scan.crops import CROPS
from fcnconv.scan.refine import least_sure, put_in
from fcnconv.scores import Block, FloatArray, Mask
from fcnconv.system.progress import more

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
