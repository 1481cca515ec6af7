"""What a scan gives: scores, block by block or piece by piece of a whole map.

A block is what the network said of some windows. With what is true of the whole map (`MapInfo`) it becomes a
piece of that map, which knows probabilities and names. A `ScoreStream` gives the pieces as they come, and
feeds every writer; the map in memory, `maps.ScoreMap`, is the case of one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcnconv.activations import ACTIVATIONS
from fcnconv.activations import FloatArray as FloatArray
from fcnconv.grid import Box, Grid
from fcnconv.images import ImageSource
from fcnconv.labels import Labels, Selection
from fcnconv.options import Join, MapKind, Values
from fcnconv.provenance import Agreement, Provenance

if TYPE_CHECKING:
    from fcnconv.classification import Classification

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """The logits of a rectangle of cells, as a scan yields them.

    rows, cols: the cells' places in `grid`, as slices.
    logits: float32 (rows, cols, num_classes).
    exact: bool (rows, cols), the cells that were scored as real crops; None where none was.
    best_scale: of joined scales, uint8 (rows, cols), which of them the best class of each cell is from.
    cells: of a scan with class activations, the windows that were computed, as slices of the grid, and the
        activations of their feature cells, float32 (rows' + margin, cols' + margin, num_classes).

    Of a cell that was not looked at, all logits are NaN.
    """

    grid: Grid
    rows: slice
    cols: slice
    logits: FloatArray
    exact: Mask | None = None
    best_scale: npt.NDArray[np.uint8] | None = None
    cells: tuple[tuple[slice, slice], FloatArray] | None = None

    def part(self, rows: slice) -> Block:
        """The block of some of its rows, counted from its own first one."""
        place = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        exact = None if self.exact is None else self.exact[rows]
        best = None if self.best_scale is None else self.best_scale[rows]
        return replace(self, rows=place, logits=self.logits[rows], exact=exact, best_scale=best)


@dataclass(frozen=True)
class MapInfo:
    """What is true of a whole map, whatever part of it is at hand.

    temperature: what probabilities divide the logits by, to be as sure as real crops are.
    scales: the grids of the scales that were joined to this map; empty for one scale.
    source: the image that was scanned. looked_at: where, in words by name; empty if everywhere.
    join: how the scales were joined, None for one.
    kind: what the cells are, see `options.MapOptions.map`. others: gives the maps of other kinds that came of
        the same scan, once this one was read.
    answer: gives what the image shows as a whole, as `Classifier.classify` answers it.
    display: gives the map of the same image that display formats and regions show, where that is another one.
    """

    grid: Grid
    labels: Labels
    provenance: Provenance
    temperature: float = 1.0
    scales: tuple[Grid, ...] = ()
    source: ImageSource | None = field(default=None, repr=False, compare=False)
    join: Join | None = None
    looked_at: Mapping[str, str] = field(default_factory=dict)
    kind: MapKind = "windows"
    others: Mapping[MapKind, Callable[[], ScoreStream]] = field(
        default_factory=dict, repr=False, compare=False
    )
    answer: Callable[[], Classification] | None = field(default=None, repr=False, compare=False)
    display: Callable[[], MapBlock] | None = field(default=None, repr=False, compare=False)

    @property
    def has_best_scale(self) -> bool:
        """Whether each cell is told from which of several scales its best class is."""
        return bool(self.scales) and self.kind == "windows"

    @property
    def unit(self) -> str:
        """What a cell of this map is called: a window, or a (feature) cell."""
        return "window" if self.kind == "windows" else "cell"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes) of the whole map."""
        return self.grid.rows, self.grid.cols, len(self.labels)

    def box(self, row: int, col: int, best_scale: int | None = None) -> Box:
        """(x0, y0, x1, y1) of a cell's window in pixels of the original image.

        best_scale: of joined scales, which one the cell's best class is from; None is the map's own.
        """
        if best_scale is None or not self.has_best_scale:
            return self.grid.box(row, col)
        other = self.scales[best_scale]
        return other.box(*other.nearest(self.grid, row, col))


@dataclass(frozen=True, repr=False)
class MapBlock:
    """The scores of a rectangle of a map's cells. about: the map. block: the cells' logits and places."""

    about: MapInfo
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
        return (self.about.provenance.anchors == 1) & ~np.isnan(self.logits[:, :, 0])

    def probabilities(self) -> FloatArray:
        """float32 (rows, cols, num_classes), 0 to 1: of each cell's logits, divided by the temperature,
        under the activation of the labels. Raises UsageError for outputs that are taken as they are and are
        no probabilities.

        Of joined scales, and of focused maps, the logits are logarithms of probabilities, which may sum to
        more than 1: one class is found at one scale or place, another at another.
        """
        if self.about.has_best_scale or self.about.kind == "focused":
            joined: FloatArray = np.exp(self.logits / np.float32(self.about.temperature))
            return joined
        probabilities = ACTIVATIONS[self.about.labels.activation].probabilities
        if self.about.temperature == 1:
            return probabilities(self.logits)
        temperature = np.full((*self.logits.shape[:2], 1), self.about.temperature, np.float32)
        if self.block.exact is not None:
            temperature[self.block.exact] = 1
        return probabilities((self.logits / temperature).astype(np.float32, copy=False))

    def class_maps(self, selections: Sequence[Selection], values: Values = "probabilities") -> FloatArray:
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

    about: MapInfo
    blocks: Iterable[Block]
    compared: Callable[[], Agreement | None] | None = None
    exact_cells: int = 0

    def pieces(self) -> Iterator[MapBlock]:
        """The map in pieces of at most `PIECE_VALUES` values, as the scan gives them."""
        for block in self.blocks:
            for strip in strips(block):
                piece = MapBlock(self.about, strip)
                self.exact_cells += int(piece.exact.sum())
                yield piece
        if self.compared:
            provenance = replace(self.about.provenance, agreement=self.compared())
            self.about = replace(self.about, provenance=provenance)


def shown(values: FloatArray) -> FloatArray:
    """Probabilities as pictures have them: 0 where nothing was looked at, which is NaN."""
    return np.nan_to_num(values, nan=0.0) if np.isnan(values).any() else values


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


def top_k(scores: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Indices of the k largest scores along the last axis, largest first; equal scores in index order, and
    NaN last.
    """
    count = scores.shape[-1]
    if k > count // _FEW:
        return _sorted(scores)[..., :k]
    # NumPy finds the k-th largest value in a tenth of the time that sorting takes.
    flat = scores.reshape(-1, count)
    chosen = flat >= np.partition(flat, count - k, axis=-1)[:, count - k, None]
    clear = chosen.sum(-1) == k  # no others are equal to it, and none is NaN
    result = np.empty((len(flat), k), np.int64)
    class_idx = np.nonzero(chosen[clear])[1].reshape(-1, k)
    order = _sorted(np.take_along_axis(flat[clear], class_idx, axis=-1))
    result[clear] = np.take_along_axis(class_idx, order, axis=-1)
    result[~clear] = _sorted(flat[~clear])[:, :k]
    return result.reshape(*scores.shape[:-1], k)


_FEW = 8
"""The share of the scores, one in so many, up to which the largest are found without sorting all."""


def _sorted(scores: FloatArray) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=-1, kind="stable")
    return order


def strength(probabilities: FloatArray) -> npt.NDArray[np.float64]:
    """float64 (num_classes,): how much of an image each class shows in, the sum over windows of its squared
    probability; that of all of them tells the foremost class. One that fills the image goes before one that
    a single window, of thousands, is sure of.

    probabilities: float32 (..., num_classes).
    """
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    result: npt.NDArray[np.float64] = np.einsum("nk,nk->k", flat, flat, dtype=np.float64)
    return result
