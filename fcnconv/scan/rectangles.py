"""How a grid is cut into pieces that are computed one after another, and what that costs.

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

    The network is fed ``window + step · n`` pixels. Of a finer grid some last cells may end beyond that; they
    come from the image without its first pixels, so that it ends where they do. All others stay as they are
    in the coarse map.

    cells: their places in the grid. origin: the cell of the grid where the image is cut off. steps: n.
    """

    cells: slice
    origin: int
    steps: int

    def spans(self, size: int) -> list[slice]:
        """The cells, counted from the origin, in pieces of `size`."""
        first = self.cells.start - self.origin
        pieces = spans(self.cells.stop - self.cells.start, size)
        return [slice(piece.start + first, piece.stop + first) for piece in pieces]

    def place(self, cells: slice) -> slice:
        """Their places in the grid."""
        return slice(cells.start + self.origin, cells.stop + self.origin)


@dataclass(frozen=True)
class CellRectangle:
    """A rectangle of cells that comes out at once. place: in the grid. rect: what of it is computed, counted
    from where the image is cut off; None where nothing is. inner: where that lies in the piece.
    """

    place: Rect
    rect: Rect | None
    inner: Rect

    @property
    def cells(self) -> Rect:
        """Where what is computed begins in the grid, and where its windows end."""
        return tuple(  # type: ignore[return-value]
            slice(place.start + inner.start, place.start + inner.stop)
            for place, inner in zip(self.place, self.inner, strict=True)
        )


@dataclass(frozen=True)
class RectangleGroup:
    """The pieces of a grid that are computed from the image cut off at one place, rows first."""

    down: Stretch
    across: Stretch
    pieces: tuple[CellRectangle, ...]

    @property
    def rects(self) -> list[Rect]:
        """What is computed of them."""
        return [piece.rect for piece in self.pieces if piece.rect is not None]

    @property
    def steps(self) -> tuple[int, int]:
        """What the image has there beyond a window, down and across, in the network's own strides."""
        return self.down.steps, self.across.steps


def regions(
    grid: Grid, block: tuple[int, int], needed: Mask | None = None, margin: int = 0
) -> list[RectangleGroup]:
    """A grid in pieces of at most `block` = (rows, cols).

    needed: bool (rows, cols), the cells that are computed; None are all. Of a piece the rectangle around its
    needed cells is. margin: as of the last part of the network, what is computed beyond a cell a window.
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
    """first: of the rows and of the columns, counted from where the image is cut off."""
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


def block_cells(parts: Sequence[Stage], blocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(rows, cols) of a piece, where `blocks` are those of the parts in steps."""
    high, wide = (max(side, 1) * parts[-1].pitch for side in blocks[-1])
    return high, wide


def work(
    grid: Grid, parts: Sequence[Stage], blocks: Sequence[tuple[int, int]], needed: Mask | None = None
) -> list[float]:
    """Multiply-adds of each part of the network in the scan of a grid, with all halos."""
    total = [0.0] * len(parts)
    for region in regions(grid, block_cells(parts, blocks), needed, parts[-1].margin):
        of_it = chain_work(parts, blocks, region.steps, region.rects)
        total = [a + b for a, b in zip(total, of_it, strict=True)]
    return total


def _stretches(count: int, grid: Grid) -> list[Stretch]:
    steps, beyond = divmod(count - 1, grid.phases)
    stretches = [Stretch(slice(0, count - beyond), 0, steps)]
    if beyond:
        stretches.append(Stretch(slice(count - beyond, count), beyond, steps))
    return stretches


def spans(count: int, size: int) -> list[slice]:
    """Slices of `size` (the last may be shorter) that partition ``range(count)``, in order."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
