"""What a scan gives: scores, block by block or piece by piece of a whole map, and predictions.

A block is what the network said of some windows. With what is true of the whole map (`About`) it becomes a
piece of that map, which knows probabilities and names. A `ScoreStream` gives the pieces as they come, and
feeds every writer; the map in memory, `maps.ScoreMap`, is the case of one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box, Grid
from fcnconv.labels import Labels, Selection
from fcnconv.options import Values
from fcnconv.provenance import Agreement, Provenance
from fcnconv.sources import ImageSource

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """The logits of a rectangle of cells, as a scan yields them.

    rows, cols: the cells' places in `grid`, as slices.
    logits: float32 (rows, cols, num_classes).
    exact: bool (rows, cols), the cells that were scored as real crops; None where none was.
    best_scale: of joined scales, uint8 (rows, cols), which of them the best class of each cell is from.
    """

    grid: Grid
    rows: slice
    cols: slice
    logits: FloatArray
    exact: Mask | None = None
    best_scale: npt.NDArray[np.uint8] | None = None

    def part(self, rows: slice) -> Block:
        """The block of some of its rows, counted from its own first one."""
        place = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        exact = None if self.exact is None else self.exact[rows]
        best = None if self.best_scale is None else self.best_scale[rows]
        return replace(self, rows=place, logits=self.logits[rows], exact=exact, best_scale=best)


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
class About:
    """What is true of a whole map, whatever part of it is at hand.

    temperature: what probabilities divide the logits by, to be as sure as real crops are.
    scales: the grids of the scales that were joined to this map; empty for one scale.
    source: the image that was scanned.
    """

    grid: Grid
    labels: Labels
    provenance: Provenance
    temperature: float = 1.0
    scales: tuple[Grid, ...] = ()
    source: ImageSource | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes) of the whole map."""
        return self.grid.rows, self.grid.cols, len(self.labels)

    def box(self, row: int, col: int, best_scale: int | None = None) -> Box:
        """(x0, y0, x1, y1) of a cell's window in pixels of the original image.

        best_scale: of joined scales, which one the cell's best class is from; None is the map's own.
        """
        if best_scale is None or not self.scales:
            return self.grid.box(row, col)
        other = self.scales[best_scale]
        return other.box(*other.nearest(self.grid, row, col))


@dataclass(frozen=True, repr=False)
class Piece:
    """The scores of a rectangle of a map's cells. about: the map. block: the cells' logits and places."""

    about: About
    block: Block

    @property
    def place(self) -> tuple[slice, slice]:
        """The cells' rows and columns in the whole map."""
        return self.block.rows, self.block.cols

    @property
    def logits(self) -> FloatArray:
        """float32 (rows, cols, num_classes): the scores as the network gave them."""
        return self.block.logits

    @property
    def exact(self) -> Mask:
        """bool (rows, cols): the cells whose scores are those of real crops, which have no temperature."""
        if self.block.exact is not None:
            return self.block.exact
        return np.full(self.logits.shape[:2], self.about.provenance.anchors == 1)

    def probabilities(self) -> FloatArray:
        """float32 (rows, cols, num_classes), 0 to 1: the softmax over the classes of each cell, of the logits
        divided by the temperature.
        """
        if self.about.temperature == 1:
            return softmax(self.logits)
        temperature = np.full((*self.logits.shape[:2], 1), self.about.temperature, np.float32)
        if self.block.exact is not None:
            temperature[self.block.exact] = 1
        return softmax((self.logits / temperature).astype(np.float32, copy=False))

    def planes(self, selections: Sequence[Selection], values: Values = "probabilities") -> FloatArray:
        """float32 (rows, cols, len(selections)): a plane a category or concept.

        values: the probability of a concept is the sum over its classes, and its logit the log-sum-exp of
            theirs, so that the softmax over concepts that share no class has the same ratios.
        """
        if values == "probabilities":
            return sum_over(self.probabilities(), selections)
        planes = [_log_sum_exp(self.logits[:, :, s.classes]) for s in selections]
        return np.stack(planes, axis=-1)

    def top_k(self, k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Class indices and probabilities of the k best classes of each cell, best first: two arrays
        (rows, cols, min(k, num_classes)).
        """
        probabilities = self.probabilities()
        class_idx = top_k(probabilities, k)
        return class_idx, np.take_along_axis(probabilities, class_idx, axis=-1)


PIECE_VALUES = 4_000_000
"""Scores that are worked on at once: 16 MB, and a few times that for what is made of them."""


def strips(block: Block) -> Iterator[Block]:
    """The block, cut into strips of rows of at most `PIECE_VALUES` values, or of one row."""
    rows, cols, num_classes = block.logits.shape
    high = max(PIECE_VALUES // (cols * num_classes), 1)
    for top in range(0, rows, high):
        yield block.part(slice(top, min(top + high, rows)))


@dataclass
class ScoreStream:
    """A map as it comes, to be read once: what every writer takes.

    blocks: of all of them together, each cell is in one.
    compared: gives, when the last block has come, how the map agrees with real crops; `about` tells it then.
    exact_cells: how many cells of those that came so far have the scores of real crops.
    """

    about: About
    blocks: Iterable[Block]
    compared: Callable[[], Agreement | None] | None = None
    exact_cells: int = 0

    def pieces(self) -> Iterator[Piece]:
        """The map in pieces of at most `PIECE_VALUES` values, as the scan gives them."""
        for block in self.blocks:
            for strip in strips(block):
                piece = Piece(self.about, strip)
                self.exact_cells += int(piece.exact.sum())
                yield piece
        if self.compared:
            provenance = replace(self.about.provenance, agreement=self.compared())
            self.about = replace(self.about, provenance=provenance)


class Peaks:
    """For each category or concept the window where its probability is highest, of blocks as they come."""

    def __init__(self, count: int):
        self.probability = np.full(count, -1, np.float32)
        self.cell = np.zeros((count, 2), np.int64)
        self.grid: npt.NDArray[np.object_] = np.empty(count, object)

    def update(self, block: Block, probabilities: FloatArray) -> None:
        """Takes a block's probabilities, float32 (rows, cols, count)."""
        cols = probabilities.shape[1]
        probabilities = probabilities.reshape(-1, len(self.probability))
        cell = probabilities.argmax(0)
        found = probabilities.max(0)
        better = found > self.probability
        self.probability[better] = found[better]
        self.cell[better] = np.stack(np.divmod(cell, cols), axis=1)[better] + (
            block.rows.start,
            block.cols.start,
        )
        self.grid[better] = block.grid

    def box(self, index: int) -> Box:
        """The window of a category or concept, by its place in the order of the probabilities."""
        grid: Grid = self.grid[index]
        return grid.box(*self.cell[index].tolist())


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
