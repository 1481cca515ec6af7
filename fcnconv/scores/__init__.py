"""Scores: the result of a scan, block by block.

A `Block` has the scores of a rectangle of cells. Together with the facts about the whole map (`MapInfo`), it
is a `MapBlock`, which also has probabilities and names. A `ScoreStream` yields `MapBlock` objects while the
image is scanned. Every writer reads a stream. The map in memory, `maps.ScoreMap`, is a single `MapBlock`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box, Grid
from fcnconv.images import ImageSource
from fcnconv.labels import Labels, Selection
from fcnconv.options import Join, MapKind, Values
from fcnconv.provenance import Agreement, Crops, Provenance
from fcnconv.scores.activations import ACTIVATIONS
from fcnconv.scores.activations import FloatArray as FloatArray

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """The logits of a rectangle of cells, as a scan yields them.

    grid: the grid of the cells.
    rows, cols: the positions of the cells in `grid`, as slices.
    logits: float32 (rows, cols, num_classes). All logits of a cell outside the region of interest are NaN.
    exact: bool (rows, cols), the cells that were scored as crops; None if no cell was.
    best_scale: uint8 (rows, cols), for joined scales: the index of the scale from which the top class of each
        cell comes.
    cells: for a scan with class activations: the windows that were computed, as slices of the grid, and the
        activations of their feature cells, float32 (rows' + margin, cols' + margin, num_classes).
    """

    grid: Grid
    rows: slice
    cols: slice
    logits: FloatArray
    exact: Mask | None = None
    best_scale: npt.NDArray[np.uint8] | None = None
    cells: tuple[tuple[slice, slice], FloatArray] | None = None

    def centres(self, axis: int) -> npt.NDArray[np.float64]:
        """The centres of its cells along an axis, in pixels of the scanned image. axis: 0 is along x."""
        span = (self.cols, self.rows)[axis]
        return self.grid.centre(np.arange(span.start, span.stop, dtype=np.float64))

    def part(self, rows: slice) -> Block:
        """The block with some of the rows, counted from the first row of this block."""
        place = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        exact = None if self.exact is None else self.exact[rows]
        best = None if self.best_scale is None else self.best_scale[rows]
        return replace(self, rows=place, logits=self.logits[rows], exact=exact, best_scale=best)


@dataclass(frozen=True)
class MapInfo:
    """Facts about a whole map, which every block of it carries.

    grid: the cells of the map.
    labels: the classes.
    provenance: the network and how it was run.
    temperature: number that divides the logits, so that probabilities are as confident as the crops are.
    scales: the grids of the scales that were joined into this map; empty for one scale.
    source: the image that was scanned.
    join: how the scales were joined; None for one scale.
    roi: the region of interest, as named texts; empty if the whole image was scanned.
    kind: what the cells are, see `options.ScanOptions.map`.
    others: for each other kind of map from the same scan, a function that returns it after this map was read.
    answer: returns the answer of `Classifier.classify` for the whole image.
    display: returns the map of the same image that display formats and regions show; None if it is this map.
    """

    grid: Grid
    labels: Labels
    provenance: Provenance
    temperature: float = 1.0
    scales: tuple[Grid, ...] = ()
    source: ImageSource | None = field(default=None, repr=False, compare=False)
    join: Join | None = None
    roi: Mapping[str, str] = field(default_factory=dict)
    kind: MapKind = "windows"
    others: Mapping[MapKind, Callable[[], ScoreStream]] = field(
        default_factory=dict, repr=False, compare=False
    )
    answer: Callable[[], Classification] | None = field(default=None, repr=False, compare=False)
    display: Callable[[], MapBlock] | None = field(default=None, repr=False, compare=False)

    @property
    def has_best_scale(self) -> bool:
        """Whether the map records, for each cell, the scale from which its top class comes."""
        return bool(self.scales) and self.kind == "windows"

    @property
    def unit(self) -> str:
        """The word for a cell of this map: ``window``, or ``cell`` for a feature cell."""
        return "window" if self.kind == "windows" else "cell"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, cols, num_classes) of the whole map."""
        return self.grid.rows, self.grid.cols, len(self.labels)

    def box(self, row: int, col: int, best_scale: int | None = None) -> Box:
        """(x0, y0, x1, y1) of a cell's window in pixels of the original image.

        best_scale: for joined scales, the index of the scale from which the cell's top class comes. None is
            the map's own grid.
        """
        if best_scale is None or not self.has_best_scale:
            return self.grid.box(row, col)
        other = self.scales[best_scale]
        return other.box(*other.nearest(self.grid, row, col))


@dataclass(frozen=True, repr=False)
class MapBlock:
    """The scores of a rectangle of cells of a map.

    info: the facts about the whole map. block: the logits and positions of the cells.
    """

    info: MapInfo
    block: Block

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the whole map that these cells are, as slices: ``array[block.slices]``."""
        return self.block.rows, self.block.cols

    @property
    def logits(self) -> FloatArray:
        """float32 (rows, cols, num_classes): the scores before the activation."""
        return self.block.logits

    @property
    def exact(self) -> Mask:
        """bool (rows, cols): the cells that were scored as crops, to which no temperature applies."""
        if self.block.exact is not None:
            return self.block.exact
        return isinstance(self.info.provenance.correction, Crops) & ~np.isnan(self.logits[:, :, 0])

    def probabilities(self) -> FloatArray:
        """The probability of each class in each cell: the activation of the logits over the temperature.

        For joined scales and for focused maps, the logits are logarithms of probabilities. These may sum to
        more than 1, because different classes come from different scales or places.

        Returns:
            float32 (rows, cols, num_classes), 0 to 1.

        Raises:
            UsageError: the activation is ``none`` and the outputs are no probabilities.
        """
        if self._holds_logs:
            return self._exp(self.logits)
        probabilities = ACTIVATIONS[self.info.labels.activation].probabilities
        if self.info.temperature == 1:
            return probabilities(self.logits)
        temperature = np.full((*self.logits.shape[:2], 1), self.info.temperature, np.float32)
        if self.block.exact is not None:
            temperature[self.block.exact] = 1
        return probabilities((self.logits / temperature).astype(np.float32, copy=False))

    @property
    def _holds_logs(self) -> bool:
        """Whether the logits are logarithms of probabilities, each of which stands alone."""
        return self.info.has_best_scale or self.info.kind == "focused"

    def _exp(self, logs: FloatArray) -> FloatArray:
        probabilities: FloatArray = np.exp(logs / np.float32(self.info.temperature))
        return probabilities

    def class_maps(self, selections: Sequence[Selection], values: Values = "probabilities") -> FloatArray:
        """The maps of categories and concepts.

        Args:
            selections: the categories and concepts.
            values: the probability of a concept is the sum over its classes. Its logit is the log-sum-exp
                over its classes, so that the softmax over concepts that share no class has the same ratios.

        Returns:
            One map per selection: float32 (rows, cols, len(selections)).
        """
        if values == "probabilities" and self._holds_logs:
            chosen = sorted({i for selection in selections for i in selection.classes})
            place = {i: n for n, i in enumerate(chosen)}
            narrow = [replace(s, classes=tuple(place[i] for i in s.classes)) for s in selections]
            return sum_over(self._exp(self.logits[:, :, chosen]), narrow)
        if values == "probabilities":
            return sum_over(self.probabilities(), selections)
        planes = [_log_sum_exp(self.logits[:, :, s.classes]) for s in selections]
        return np.stack(planes, axis=-1)

    def top_k(self, k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """The k best classes of each cell, best first.

        Returns:
            The class indices and the probabilities: two arrays (rows, cols, min(k, num_classes)).
        """
        probabilities = self.probabilities()
        class_idx = top_k(probabilities, k)
        return class_idx, np.take_along_axis(probabilities, class_idx, axis=-1)


PIECE_VALUES = 4_000_000
"""Number of scores to process at once: 16 MB, and a few times as much for intermediate results."""


def strips(block: Block) -> Iterator[Block]:
    """Cut a block into strips of rows. A strip has at most `PIECE_VALUES` values, or is one row."""
    return map(block.part, row_strips(block.logits))


def row_strips(scores: FloatArray) -> Iterator[slice]:
    """The rows of each strip of an array (rows, cols, num_classes), see `strips`."""
    rows, cols, num_classes = scores.shape
    high = max(PIECE_VALUES // (cols * num_classes), 1)
    for top in range(0, rows, high):
        yield slice(top, min(top + high, rows))


@dataclass
class ScoreStream:
    """A map that is read once, while the image is scanned. Every writer takes one.

    info: the facts about the map. Its provenance is what is known before the scan.
    blocks: the blocks of the map. Each cell is in exactly one block.
    compared: returns the agreement of the map with crops, after the last block.
    final: the provenance, if it is known already: of a map in memory.
    """

    info: MapInfo
    blocks: Iterable[Block]
    compared: Callable[[], Agreement | None] | None = None
    final: Provenance | None = None

    def pieces(self) -> Iterator[MapBlock]:
        """Yield the map in pieces of at most `PIECE_VALUES` values, while the image is scanned."""
        exact_cells = 0
        for block in self.blocks:
            for strip in strips(block):
                piece = MapBlock(self.info, strip)
                exact_cells += int(piece.exact.sum())
                yield piece
        if self.final is None:
            agreement = self.compared() if self.compared else None
            self.final = replace(self.info.provenance, exact_cells=exact_cells, agreement=agreement)

    def finish(self) -> Provenance:
        """Return the provenance of the whole map, which is complete once all pieces have been read.

        Raises:
            RuntimeError: pieces are left.
        """
        if self.final is None:
            raise RuntimeError("the map has not been read to its end")
        return self.final


def shown(values: FloatArray) -> FloatArray:
    """Probabilities for pictures, with 0 in place of NaN (outside the region of interest)."""
    return np.nan_to_num(values, nan=0.0) if np.isnan(values).any() else values


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    """The logarithm of the summed exponentials along the last axis. A single logit is returned exactly."""
    top = logits.max(axis=-1)
    result: FloatArray = np.log(np.exp(logits - top[..., None]).sum(-1)) + top
    return result


def sum_over(probabilities: FloatArray, selections: Sequence[Selection]) -> FloatArray:
    """The probability of each selection.

    probabilities: float32 (..., num_classes). Returns float32 (..., len(selections)), 0 to 1.
    """
    if [s.class_idx for s in selections] == list(range(probabilities.shape[-1])):
        return probabilities  # the selections are all categories, in order
    sums = [probabilities[..., s.classes].sum(-1) for s in selections]
    planes: FloatArray = np.minimum(np.stack(sums, axis=-1), 1)  # a sum of rounded values can exceed 1
    return planes


def top_k(scores: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """The indices of the k largest scores along the last axis, largest first.

    Equal scores are in index order, and NaN comes last.
    """
    count = scores.shape[-1]
    if k > count // _FEW:
        return _sorted(scores)[..., :k]
    # NumPy finds the k-th largest value in a tenth of the time of sorting.
    flat = scores.reshape(-1, count)
    chosen = flat >= np.partition(flat, count - k, axis=-1)[:, count - k, None]
    clear = chosen.sum(-1) == k  # no other value equals it, and no value is NaN
    result = np.empty((len(flat), k), np.int64)
    class_idx = np.nonzero(chosen[clear])[1].reshape(-1, k)
    order = _sorted(np.take_along_axis(flat[clear], class_idx, axis=-1))
    result[clear] = np.take_along_axis(class_idx, order, axis=-1)
    result[~clear] = _sorted(flat[~clear])[:, :k]
    return result.reshape(*scores.shape[:-1], k)


_FEW = 8
"""Up to one in so many of the scores are found without sorting all scores."""


def _sorted(scores: FloatArray) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=-1, kind="stable")
    return order


def strength(probabilities: FloatArray) -> npt.NDArray[np.float64]:
    """How much of an image shows each class: the sum over windows of its squared probability.

    A class that fills the image is stronger than a class that only one of thousands of windows is sure of.

    probabilities: float32 (..., num_classes). Returns float64 (num_classes,).
    """
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    result: npt.NDArray[np.float64] = np.einsum("nk,nk->k", flat, flat, dtype=np.float64)
    return result


@dataclass(frozen=True)
class Prediction:
    """One class of a ranking, or the concept that an image shows.

    class_idx: the index of the class; None for a concept, whose name is in `category`.
    box: the window where the class is most probable, (x0, y0, x1, y1) in pixels of the original image.
    """

    rank: int
    class_idx: int | None
    wnid: str | None
    category: str
    probability: float
    box: Box


@dataclass(frozen=True)
class Classification:
    """The classes of a whole image.

    width, height: the size of the image, in pixels. model: the name of the model.
    scales: the scanned scales, as factors of the image's own size.
    temperature: the number that divided the logits before they became probabilities.
    predictions: the top classes, best first.
    """

    width: int
    height: int
    model: str
    scales: tuple[float, ...]
    temperature: float
    predictions: tuple[Prediction, ...]
