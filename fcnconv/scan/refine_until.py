"""Scoring windows exactly until a map agrees with real crops as often as it is asked to."""

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
"""How much larger than usual the sample is: a small one cannot tell a large share surely."""

STEP = 0.03
"""Share of the windows that are scored between two looks at the estimate."""


def asked_sample(windows: int) -> int:
    """How many windows are compared where a share of agreement is asked for. windows: in the map."""
    return max(sample_size(windows), SAMPLE_TIMES * windows // SAMPLE_OF, min(windows // 3, 48))


USUAL = 0.7
"""The lower end of the estimate that a map with anchors usually begins with."""


def lacking(cells: int, exact: int, low: float, share: float) -> float:
    """About how many windows must still be scored for the lower end `low` of the estimate to reach `share`:
    those that it takes if they are no better or worse than the others that are left.

    cells: windows of the map, of which `exact` are scored.
    """
    return (cells - exact) * (1 - (1 - share) / (1 - low)) if low < share else 0.0


def first_guess(cells: int, scored: int, share: float) -> float:
    """The same before anything is known of the map. scored: windows that will be, in any case."""
    return lacking(cells, scored, max(USUAL, scored / cells), share)


def refine_until(
    block: Block,
    score: Callable[[npt.NDArray[np.int64]], FloatArray],
    sample: npt.NDArray[np.int64],
    share: float,
    tally: AgreementEstimator,
    inside: Mask | None = None,
) -> Block:
    """The block with as many windows scored exactly as it takes for the lower end of the estimate of its
    agreement with real crops to reach `share`, or all of them.

    block: a whole corrected map with its mask of exact cells, changed in place.
    score: scores single windows, by their numbers. sample: random cells that are not exact; they are compared
        at each look, and put in at the end. tally: is told what the last look found.
    inside: bool (rows, cols), the cells that are looked at; None are all.

    The least sure windows come first. Those of the sample among them count as exact from then on, and no
    more for the others: what is left of it stays a random sample of the windows that are left.
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
        found = AgreementEstimator(
            cells_inside, int(exact.sum()) + int(left.sum()), activation=tally.activation
        )
        found.compare(logits[y[left], x[left]], crops[left])
        told = found.agreement()
        if (exact | outside).all() or (told is not None and told.low >= share):
            break
        now = lacking(cells_inside, found.exact, told.low if told else found.exact / cells_inside, share)
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
    tally.add(found)
    return replace(block, logits=logits, exact=exact)
