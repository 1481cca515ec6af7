"""How true a corrected map is, from a random sample of its windows that real crops are compared with.

The sample is drawn before anything is known of the image, among the windows that are not anchors, and
compared before it is put in. Of those that stay uncompared the share that agrees is unknown but for it; all
others are exact. The interval is that of the number of uncompared windows that agree, given the sample
(beta-binomial, Jeffreys' prior): it holds for small maps, of which the sample is a large part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fcnconv.activations import ACTIVATIONS, FloatArray
from fcnconv.provenance import Activation, Agreement

LEVEL = 0.95
"""Of the intervals. Measured over 31 photos at four sizes, with 16 to 26 windows: the true agreement lay
inside in 94 to 98 of 100 maps, the true divergence in 88 to 100."""

SURE = 0.5
"""Probability of a crop's first class from which its agreement with the map means something: where the crop
itself is undecided, as on a grey wall, the first class is a matter of chance."""

LEAST_SAMPLE, MOST_SAMPLE, SAMPLE_OF = 16, 256, 40
"""Windows that are compared: one of so many, and at least and at most."""

_MOST_COUNTED = 20_000
"""Uncompared windows that are counted one by one; of more, so many stand for all."""


@dataclass
class AgreementEstimator:
    """Counts what is compared while a map is corrected; an `Agreement` when all its blocks have come.

    divergences: of each compared window, in nats. variations: its total variation distance, 0 to 1.
    sure: compared windows whose crop is at least 50 % sure; sure_same: of these, those of the same answer.
    activation: of the labels; nothing is compared of outputs that are taken as they are.
    """

    cells: int = 0
    exact: int = 0
    same: int = 0
    divergences: list[float] = field(default_factory=list)
    activation: Activation = "softmax"
    sure: int = 0
    sure_same: int = 0
    variations: list[float] = field(default_factory=list)

    def compare(self, logits: FloatArray, crops: FloatArray) -> None:
        """Takes windows of the sample: their logits in the map and as crops, float32 (n, num_classes)."""
        read = ACTIVATIONS[self.activation]
        if read.divergence is not None:
            same = read.same(logits, crops)
            self.same += int(same.sum())
            true = read.probabilities(crops)
            apart = np.abs(true - read.probabilities(logits))
            several = self.activation == "softmax"
            sure = true.max(-1) >= SURE if several else np.ones_like(same)  # of a class alone one side is
            self.sure += int(sure.sum())
            self.sure_same += int((same & sure).sum())
            self.variations += (apart.sum(-1) / 2 if several else apart.mean(-1)).tolist()
            self.divergences += read.divergence(crops, logits).tolist()

    def add(self, other: AgreementEstimator) -> None:
        """Counts what another one counted, of other windows, too."""
        self.cells += other.cells
        self.exact += other.exact
        self.same += other.same
        self.divergences += other.divergences
        self.sure += other.sure
        self.sure_same += other.sure_same
        self.variations += other.variations

    def agreement(self, level: float = LEVEL) -> Agreement | None:
        """What the sample tells; None where windows are left and none was compared.

        level: probability that each interval holds the truth.
        """
        compared, rest = len(self.divergences), self.cells - self.exact
        if not self.cells or (rest and not compared):
            return None
        low, high = unseen_interval(self.same, compared, rest, level)
        mean, least, most = _mean_interval(np.array(self.divergences), rest, level)
        share = rest / self.cells
        return Agreement(
            self.cells,
            self.exact,
            compared,
            self.same,
            first_class=1 - share * (1 - self.same / compared) if rest else 1.0,
            low=(self.exact + low) / self.cells,
            high=(self.exact + high) / self.cells,
            divergence=share * mean,
            divergence_low=share * least,
            divergence_high=share * most,
            sure=self.sure,
            sure_same=self.sure_same,
            total_variation=share * float(np.mean(self.variations)) if self.variations else 0.0,
        )


def sample_size(windows: int) -> int:
    """How many windows are compared by default. windows: of the network's own, in the map."""
    return min(max(windows // SAMPLE_OF, LEAST_SAMPLE), MOST_SAMPLE)


def sample_windows(
    shape: tuple[int, int],
    anchor_rows: npt.NDArray[np.int64],
    anchor_cols: npt.NDArray[np.int64],
    count: int,
    seed: int,
    inside: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int64]:
    """int64: the numbers of `count` cells, row by row, that are no anchors, each as likely as any other; or
    of all such cells.

    shape: (rows, cols) of the grid. Anchors are where a row and a column of them meet.
    inside: bool (rows, cols), the cells to draw from; None are all.
    """
    rows, cols = shape
    if inside is not None:
        others = inside.copy()
        others[np.ix_(anchor_rows, anchor_cols)] = False
        places = np.flatnonzero(others)
        drawn = np.random.default_rng(seed).choice(places, min(count, len(places)), replace=False)
        return np.sort(drawn)
    free = np.full(rows, cols)
    free[anchor_rows] -= len(anchor_cols)
    ends = free.cumsum()
    number = int(ends[-1])
    generator = np.random.default_rng(seed)
    rank = (
        np.sort(generator.choice(number, min(count, number), replace=False)) if number else np.empty(0, int)
    )
    row = np.searchsorted(ends, rank, side="right")
    col = rank - (ends[row] - free[row])
    between = np.setdiff1d(np.arange(cols), anchor_cols)
    crossed = np.isin(row, anchor_rows)
    col[crossed] = between[col[crossed]]
    cells: npt.NDArray[np.int64] = row * cols + col
    return cells


def unseen_interval(same: int, compared: int, rest: int, level: float = LEVEL) -> tuple[float, float]:
    """From how many to how many of `rest` windows agree, if `same` of `compared` drawn beside them do."""
    if not rest:
        return 0, 0
    number = min(rest, _MOST_COUNTED)
    a, b = same + 0.5, compared - same + 0.5
    k = np.arange(number)
    # Beta-binomial: P(k + 1) / P(k)
    steps = np.log((number - k) * (k + a) / ((k + 1) * (number - k - 1 + b)))
    logs = np.concatenate([[0.0], steps.cumsum()])
    below = np.exp(logs - logs.max()).cumsum()
    tail = (1 - level) / 2 * below[-1]
    low, high = np.searchsorted(below, [tail, below[-1] - tail]).tolist()
    return low * rest / number, high * rest / number


def _mean_interval(values: npt.NDArray[np.float64], rest: int, level: float) -> tuple[float, float, float]:
    """The mean of a sample, and from where to where the mean of `rest` values that were not drawn may lie.

    Divergences are skewed, so that a sample often misses the few large ones; one value of three times the
    mean is supposed beside it. Student's t, by its expansion for many degrees of freedom.
    """
    if not rest:
        return 0.0, 0.0, 0.0
    mean, count = float(values.mean()), len(values)
    error = np.append(values, 3 * mean).std(ddof=1) * np.sqrt(1 / count + 1 / rest)
    z = NormalDist().inv_cdf((1 + level) / 2)
    reach = float((z + (z**3 + z) / (4 * count)) * error)
    return mean, max(mean - reach, 0.0), mean + reach
