"""Ways to make a map, tried on the user's own images: the cost of each, and its distance from crops."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcnconv.api.classifier import Classifier
from fcnconv.grid import Grid, Scale
from fcnconv.images import ImageSource
from fcnconv.provenance import Activation, Anchored, Correction, Crops, Dense, correction_record
from fcnconv.scan.agreement import AgreementEstimator
from fcnconv.scan.correction import correct
from fcnconv.scores import Block
from fcnconv.scores.activations import ACTIVATIONS, FloatArray

WAYS = (
    Dense(),
    Anchored(6),
    Anchored(4),
    Anchored(4, 0.1),
    Anchored(3),
    Anchored(3, 0.1),
    Anchored(3, 0.2),
    Anchored(2),
    Crops(),
)
"""The ways that are tried, roughly from cheap to expensive."""


@dataclass(frozen=True)
class Tried:
    """The result of one way to make a map.

    Attributes:
        anchors: See `options.ScanOptions`.
        refine: See `options.ScanOptions`.
        crops: Fraction of the windows that were scored as crops.
        agreement: Fraction of windows with the top class of their crop.
        divergence: Mean Kullback-Leibler divergence of the map's probabilities from the crops' probabilities,
            in nats.
        time: Time as a fraction of the time for scoring every window as a crop, from the measured times of
            the scan and of the crops.
    """

    anchors: int
    refine: float
    crops: float
    agreement: float
    divergence: float
    time: float

    def __str__(self) -> str:
        name = f"--anchors {self.anchors}" + (f" --refine {self.refine:g}" if self.refine else "")
        return f"  {name:<26}{self.crops:7.1%}{self.agreement:10.1%}{self.divergence:11.3f}{self.time:10.2f}"


HEADING = f"  {'a map made with':<26}{'crops':>7}{'agrees':>10}{'KL, nats':>11}{'time':>10}"
"""The heading of a table of `Tried`."""


@dataclass(frozen=True)
class _Window:
    """A rectangle of a grid, scored both ways: dense, crops float32 (rows, cols, num_classes)."""

    grid: Grid
    dense: FloatArray
    crops: FloatArray


def try_ways(
    classifier: Classifier,
    sources: Sequence[ImageSource],
    scales: Sequence[Scale],
    temperature: float,
    max_windows: int = 500,
) -> tuple[Tried, ...]:
    """Returns the results of `WAYS` on some images.

    Args:
        classifier: The classifier, in `fcn` mode.
        sources: The images.
        scales: Sizes to scan at.
        temperature: The temperature of the dense map.
        max_windows: The number of windows that are tried in all. For larger maps, a rectangle in the middle
            of each is tried.
    """
    scans = [(source, grid) for source in sources for grid in classifier.grids(source, scales)]
    windows, dense_time, crop_time = [], 0.0, 0.0
    for source, grid in scans:
        start = time.perf_counter()
        dense = classifier.dense(source, grid)
        dense_time += (time.perf_counter() - start) / dense[..., 0].size
        rows, cols = _middle(grid, max_windows // len(scans))
        cells = np.arange(grid.rows)[rows, None] * grid.cols + np.arange(grid.cols)[cols]
        start = time.perf_counter()
        crops = classifier.crops(source, grid, cells.ravel())
        crop_time += (time.perf_counter() - start) / cells.size
        dense = dense[rows, cols]
        width, height = (grid.window + (count - 1) * grid.stride for count in cells.shape[::-1])
        part = Grid(grid.window, grid.stride, (width, height), (width, height), grid.phases)
        windows.append(_Window(part, dense, crops.reshape(dense.shape)))
    return tuple(
        _tried(way, windows, temperature, dense_time / crop_time, classifier.labels.activation)
        for way in WAYS
    )


def _middle(grid: Grid, most: int) -> tuple[slice, slice]:
    """Returns the rows and columns of a rectangle in the middle of a grid, with the grid's proportions and at
    most so many windows.
    """
    share = min((max(most, 16) / (grid.rows * grid.cols)) ** 0.5, 1.0)
    counts = [max(int(count * share + 1e-9), 1) for count in (grid.rows, grid.cols)]
    starts = [(count - n) // 2 for count, n in zip((grid.rows, grid.cols), counts, strict=True)]
    rows, cols = (slice(start, start + n) for start, n in zip(starts, counts, strict=True))
    return rows, cols


def _tried(
    way: Correction, windows: Sequence[_Window], temperature: float, dense: float, activation: Activation
) -> Tried:
    """Returns the result of one way. dense: the time per window of the dense map, relative to the time per
    crop.
    """
    read, scored, same, total = ACTIVATIONS[activation], 0, 0, 0
    assert read.divergence is not None  # loaded only for comparisons
    off = 0.0
    for window in windows:
        rows, cols, num_classes = window.dense.shape
        block = Block(window.grid, slice(0, rows), slice(0, cols), window.dense.copy())
        crops = window.crops.reshape(-1, num_classes)
        dense_blocks, tally = (
            None if isinstance(way, Crops) else [block],
            AgreementEstimator(activation=activation),
        )
        blocks = correct(window.grid, num_classes, dense_blocks, crops.__getitem__, way, tally)
        logits = np.empty_like(window.dense)
        for made in blocks:
            logits[made.rows, made.cols] = made.logits
            scored += _count(made.exact)
        found = logits.reshape(-1, num_classes) / np.float32(temperature if isinstance(way, Dense) else 1)
        same += int(read.same(found, crops).sum())
        off += float(read.divergence(crops, found).sum())
        total += len(crops)
    share = scored / total
    record, time = correction_record(way), share + dense * (not isinstance(way, Crops))
    return Tried(int(record["anchors"]), record["refine"], share, same / total, off / total, time)


def _count(exact: npt.NDArray[np.bool_] | None) -> int:
    return 0 if exact is None else int(exact.sum())
