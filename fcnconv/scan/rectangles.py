"""Cuts a grid into rectangles that are computed one after another, and computes the work that this takes.

Only whole windows count, so the network is fed regions of ``window + step · n`` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fcnconv.grid import Grid
from fcnconv.scan.stages import Rect, Stage, chain_work
from fcnconv.scores import Mask


@dataclass(frozen=True)
class Stretch:
    """Cells along one axis that are computed from the image cut off at one place.

    The network is fed ``window + step · n`` pixels. In a finer grid, some of the last cells may end beyond
    that. They are computed from the image without its first pixels, so that it ends where they do. All other
    cells keep their values in the coarse map.

    Attributes:
        cells: the places of the cells in the grid.
        origin: the cell of the grid where the image is cut off.
        steps: n.
    """

    cells: slice
    origin: int
    steps: int

    def spans(self, size: int) -> list[slice]:
        """The cells, counted from the origin, in spans of `size`."""
        first = self.cells.start - self.origin
        pieces = spans(self.cells.stop - self.cells.start, size)
        return [slice(piece.start + first, piece.stop + first) for piece in pieces]

    def place(self, cells: slice) -> slice:
        """The places of cells in the grid."""
        return slice(cells.start + self.origin, cells.stop + self.origin)


@dataclass(frozen=True)
class CellRectangle:
    """A rectangle of cells that is yielded at once.

    Attributes:
        place: its place in the grid.
        rect: the part of it that is computed, counted from where the image is cut off; None if nothing is.
        inner: the place of `rect` in the rectangle.
    """

    place: Rect
    rect: Rect | None
    inner: Rect

    @property
    def cells(self) -> Rect:
        """The place in the grid of the computed cells: from their start to the end of their windows."""
        return tuple(  # type: ignore[return-value]
            slice(place.start + inner.start, place.start + inner.stop)
            for place, inner in zip(self.place, self.inner, strict=True)
        )


@dataclass(frozen=True)
class RectangleGroup:
    """The rectangles of a grid that are computed from the image cut off at one place, rows first."""

    down: Stretch
    across: Stretch
    pieces: tuple[CellRectangle, ...]

    @property
    def rects(self) -> list[Rect]:
        """The computed part of each rectangle."""
        return [piece.rect for piece in self.pieces if piece.rect is not None]

    @property
    def steps(self) -> tuple[int, int]:
        """The size of the cut image in excess of one window, down and across, in native strides."""
        return self.down.steps, self.across.steps


def regions(
    grid: Grid, block: tuple[int, int], needed: Mask | None = None, margin: int = 0
) -> list[RectangleGroup]:
    """Cuts a grid into rectangles of at most `block` = (rows, cols).

    Args:
        grid: the grid.
        block: the largest size of a rectangle.
        needed: bool (rows, cols), the cells that are computed; None means all. In each rectangle, the
            smallest rectangle around its needed cells is computed.
        margin: cells that are computed in excess of one per window, as for the last stage of the network.
    """
    return [
        RectangleGroup(
            *(down, across),
            tuple(
                _piece(down.place(rows), across.place(cols), (rows.start, cols.start), needed, margin)
                for rows in down.spans(block[0])
                for cols in across.spans(block[1])
            ),
        )
        for down in _stretches(grid.rows, grid)
        for across in _stretches(grid.cols, grid)
    ]


def _piece(
    rows: slice, cols: slice, first: tuple[int, int], needed: Mask | None, margin: int
) -> CellRectangle:
    """One rectangle. first: the first row and the first column, counted from where the image is cut off."""
    inner = slice(0, rows.stop - rows.start), slice(0, cols.stop - cols.start)
    if needed is not None:
        here = needed[rows, cols]
        if not here.any():
            return CellRectangle((rows, cols), None, inner)
        inner = _extent(here, axis=1), _extent(here, axis=0)
    down, across = (
        slice(start + span.start, start + span.stop + margin)
        for start, span in zip(first, inner, strict=True)
    )
    return CellRectangle((rows, cols), (down, across), inner)


def _extent(wanted: Mask, axis: int) -> slice:
    places = np.flatnonzero(wanted.any(axis))
    return slice(int(places[0]), int(places[-1]) + 1)


def block_cells(stages: Sequence[Stage], blocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (rows, cols) of a rectangle, given the `blocks` of the stages in steps."""
    high, wide = (max(side, 1) * stages[-1].pitch for side in blocks[-1])
    return high, wide


def work(
    grid: Grid, stages: Sequence[Stage], blocks: Sequence[tuple[int, int]], needed: Mask | None = None
) -> list[float]:
    """Multiply-adds of each stage of the network in the scan of a grid, with all halos."""
    total = [0.0] * len(stages)
    for region in regions(grid, block_cells(stages, blocks), needed, stages[-1].margin):
        of_it = chain_work(stages, blocks, region.steps, region.rects)
        total = [a + b for a, b in zip(total, of_it, strict=True)]
    return total


def _stretches(count: int, grid: Grid) -> list[Stretch]:
    steps, beyond = divmod(count - 1, grid.phases)
    stretches = [Stretch(slice(0, count - beyond), 0, steps)]
    if beyond:
        stretches.append(Stretch(slice(count - beyond, count), beyond, steps))
    return stretches


def spans(count: int, size: int) -> list[slice]:
    """Slices of `size` that partition ``range(count)``, in order; the last may be shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
