"""What a scan gives: the score map, in memory or as it comes, and predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box, Grid, window_box
from fcnconv.labels import Labels, Selection

FloatArray = npt.NDArray[np.float32]
Values = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Block:
    """The logits of a rectangle of cells, as a scan yields them.

    rows, cols: the cells' places in `grid`, as slices.
    logits: float32 (rows, cols, num_classes).
    best_scale: of joined scales, uint8 (rows, cols), as in `ScoreMap`.
    """

    grid: Grid
    rows: slice
    cols: slice
    logits: FloatArray
    best_scale: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Provenance:
    """Where scores come from: enough to make them again.

    tiles: pieces that a network which looks at the whole image was run in, so that the scores depend on them;
        1 for all others.
    mean, std: what pixels were centred on and divided by, of each channel, for intensities 0 to 1.
    """

    model: str
    weights_sha256: str
    mode: str
    tiles: int = 1
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Prediction:
    """One class of a ranking, or the concept that an image shows.

    class_idx: None for a concept, whose name `category` holds.
    box: the window where it is most probable, (x0, y0, x1, y1) in pixels of the original image.
    """

    rank: int
    class_idx: int | None
    wnid: str | None
    category: str
    probability: float
    box: Box


@dataclass(frozen=True)
class Classification:
    """The answer about a whole image: its size in pixels, the scales scanned, the temperature of the
    probabilities, and the top classes, best first.
    """

    width: int
    height: int
    model: str
    scales: tuple[float, ...]
    temperature: float
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class ScoreMap:
    """The scores of every window of an image.

    logits: float32 (rows, cols, num_classes); ``logits[y, x, k]`` is the score of class k in the window
        ``grid.box(y, x)``, as the network gave it.
    temperature: what probabilities divide the logits by, to be as sure as real crops are.
    exact: bool (rows, cols), the cells that were scored as real crops, which have no temperature; or None.
    scales: the grids of the scales that were joined to this map; empty for one scale.
    best_scale: uint8 (rows, cols), which of `scales` the most probable class of each cell is from.
    """

    logits: FloatArray
    grid: Grid
    labels: Labels
    provenance: Provenance
    temperature: float = 1.0
    exact: npt.NDArray[np.bool_] | None = None
    scales: tuple[Grid, ...] = ()
    best_scale: npt.NDArray[np.uint8] | None = None

    def box(self, row: int, col: int) -> Box:
        """(x0, y0, x1, y1) of the window that a cell's best class is from, in pixels of the original."""
        return window_box(self.grid, self.scales, self.best_scale, row, col)

    def pieces(self) -> Iterator[Piece]:
        """The map in strips of rows, none of more than `PIECE_VALUES` values: what the writers read."""
        block = Block(self.grid, slice(0, self.shape[0]), slice(0, self.shape[1]), self.logits)
        for strip in strips(block):
            exact = None if self.exact is None else self.exact[strip.rows]
            best = None if self.best_scale is None else self.best_scale[strip.rows]
            part = replace(self, logits=strip.logits, exact=exact, best_scale=best)
            yield Piece(strip.rows, strip.cols, part)

    @property
    def exact_cells(self) -> int:
        """The number of cells whose scores are those of real crops."""
        return int(self.exact_mask().sum())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes)."""
        rows, cols, num_classes = self.logits.shape
        return rows, cols, num_classes

    def exact_mask(self) -> npt.NDArray[np.bool_]:
        """bool (rows, cols): the cells whose scores are those of real crops."""
        if self.exact is not None:
            return self.exact
        return np.full(self.logits.shape[:2], self.provenance.mode == "windows")

    def probabilities(self) -> FloatArray:
        """float32 (rows, cols, num_classes), 0 to 1: the softmax over the classes of each cell, of the logits
        divided by the temperature.
        """
        if self.temperature == 1:
            return softmax(self.logits)
        temperature = np.full((*self.logits.shape[:2], 1), self.temperature, np.float32)
        if self.exact is not None:
            temperature[self.exact] = 1
        return softmax((self.logits / temperature).astype(np.float32, copy=False))

    def plane(self, selection: Selection) -> FloatArray:
        """float32 (rows, cols), 0 to 1: the probability of a category or concept in each cell."""
        return self.planes([selection])[:, :, 0]

    def planes(self, selections: Sequence[Selection], values: Values = "probabilities") -> FloatArray:
        """float32 (rows, cols, len(selections)): a plane a category or concept.

        values: the probability of a concept is the sum over its classes, and its logit the log-sum-exp of
            theirs, so that the softmax over concepts that share no class has the same ratios.
        """
        if values == "probabilities":
            return sum_over(self.probabilities(), selections)
        planes = [_log_sum_exp(self.logits[:, :, s.classes]) for s in selections]
        return np.stack(planes, axis=-1)

    def best_windows(self, k: int) -> tuple[Prediction, ...]:
        """The k classes that are most probable in some window, best first, each with that window."""
        probabilities = self.probabilities().reshape(-1, self.logits.shape[2])
        highest, cell = probabilities.max(0), probabilities.argmax(0)
        return tuple(
            Prediction(
                rank,
                i,
                self.labels.wnid(i),
                self.labels.categories[i],
                float(highest[i]),
                self.box(*divmod(int(cell[i]), self.grid.cols)),
            )
            for rank, i in enumerate(top_k(highest, k).tolist(), start=1)
        )

    def top_k(self, k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Class indices and probabilities of the k best classes of each cell, best first: two arrays
        (rows, cols, min(k, num_classes))."""
        probabilities = self.probabilities()
        class_idx = top_k(probabilities, k)
        return class_idx, np.take_along_axis(probabilities, class_idx, axis=-1)


PIECE_VALUES = 4_000_000
"""Scores that are worked on at once: 16 MB, and a few times that for what is made of them."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of a score map, as a small map of its own, whose grid and boxes are those of the whole.

    rows, cols: its cells' places in the whole, as slices.
    """

    rows: slice
    cols: slice
    map: ScoreMap


def strips(block: Block) -> Iterator[Block]:
    """The block, cut into strips of rows of at most `PIECE_VALUES` values, or of one row."""
    rows, cols, num_classes = block.logits.shape
    high = max(PIECE_VALUES // (cols * num_classes), 1)
    for top in range(0, rows, high):
        part = slice(top, min(top + high, rows))
        place = slice(block.rows.start + part.start, block.rows.start + part.stop)
        best = None if block.best_scale is None else block.best_scale[part]
        yield replace(block, rows=place, logits=block.logits[part], best_scale=best)


@dataclass(frozen=True)
class MapStream:
    """A score map as it comes from a scan, to be read once, for maps that do not fit in memory.

    blocks: the scan; of all blocks together, each cell is in one.
    The rest is as in `ScoreMap`.
    """

    blocks: Iterator[Block]
    grid: Grid
    labels: Labels
    provenance: Provenance
    temperature: float = 1.0
    scales: tuple[Grid, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes)."""
        return self.grid.rows, self.grid.cols, len(self.labels)

    @property
    def exact_cells(self) -> int:
        """The number of cells whose scores are those of real crops."""
        return self.grid.rows * self.grid.cols if self.provenance.mode == "windows" else 0

    def pieces(self) -> Iterator[Piece]:
        """The map in pieces, as the scan gives them."""
        about = self.grid, self.labels, self.provenance, self.temperature
        for block in self.blocks:
            for strip in strips(block):
                part = ScoreMap(strip.logits, *about, scales=self.scales, best_scale=strip.best_scale)
                yield Piece(strip.rows, strip.cols, part)

    def collect(self) -> ScoreMap:
        """The whole map in memory."""
        logits = np.empty(self.shape, np.float32)
        best = np.empty(self.shape[:2], np.uint8) if self.scales else None
        for block in self.blocks:
            logits[block.rows, block.cols] = block.logits
            if best is not None and block.best_scale is not None:
                best[block.rows, block.cols] = block.best_scale
        about = self.grid, self.labels, self.provenance, self.temperature
        return ScoreMap(logits, *about, scales=self.scales, best_scale=best)


AnyMap = ScoreMap | MapStream
"""A score map in memory, or as it comes."""


def softmax(logits: FloatArray) -> FloatArray:
    """The softmax over the last axis: float32, 0 to 1, of the shape of `logits`."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = exp / exp.sum(axis=-1, keepdims=True)
    return probabilities


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    """The logarithm of the summed exponentials along the last axis; a single logit comes back exactly."""
    top = logits.max(axis=-1)
    result: FloatArray = np.log(np.exp(logits - top[..., None]).sum(-1)) + top
    return result


def sum_over(probabilities: FloatArray, selections: Sequence[Selection]) -> FloatArray:
    """The probability of each selection: float32 (..., len(selections)), 0 to 1.

    probabilities: float32 (..., num_classes).
    """
    if [s.class_idx for s in selections] == list(range(probabilities.shape[-1])):
        return probabilities  # every category and nothing else
    sums = [probabilities[..., s.classes].sum(-1) for s in selections]
    planes: FloatArray = np.minimum(np.stack(sums, axis=-1), 1)  # a sum of roundings can pass 1
    return planes


def most_specific(selections: Sequence[Selection], probabilities: FloatArray, at_least: float) -> int:
    """The index of the selection of the fewest classes whose probability is at least `at_least`, the most
    probable of equally small ones; of the widest selection if none is so probable.

    probabilities: float32 (len(selections),).
    """
    sizes = [len(selection.classes) for selection in selections]
    sure = np.flatnonzero(probabilities >= at_least).tolist()
    if not sure:
        return sizes.index(max(sizes))
    return min(sure, key=lambda i: (sizes[i], -probabilities[i]))


def top_k(scores: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Indices of the k largest scores along the last axis, largest first; equal scores in index order."""
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=-1, kind="stable")[..., :k]
    return order
