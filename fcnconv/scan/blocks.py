"""Scanning an image: the grid of windows at each scale, cut into tiles, one block of logits after another.

Only whole windows count, so the network is fed regions of ``window + step · n`` pixels. A tile is read with a
halo around it, clipped at the image's edge and aligned to the step, so that its cells see what they would see
in the whole image: for a local network the scores of a tile are those of the untiled scan, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fcnconv.grid import Box, Grid
from fcnconv.scan.parts import PixelCells, chain, chain_work
from fcnconv.scan.tiles import Tiling
from fcnconv.scores import Block, FloatArray
from fcnconv.sources import ImageSource, Pixels, resize


def scan(
    source: ImageSource,
    grids: Iterable[Grid],
    prepare: Callable[[Pixels], FloatArray],
    tiling: Callable[[Grid], Tiling],
) -> Iterator[Block]:
    """The logits of every window of every grid, block by block, rows first.

    source: the image; read region by region, at the size of each grid.
    grids: the windows, one grid a scale.
    prepare: turns uint8 (H, W, 3) into the backend's float32 (1, 3, H, W).
    tiling: how a grid is cut, and what computes it.
    """
    for grid in grids:
        scaled, chosen = resize(source, grid.scan_size), tiling(grid)
        for down in _stretches(grid.rows, grid):
            for across in _stretches(grid.cols, grid):
                yield from _scan_stretch(grid, scaled, prepare, chosen, down, across)


def work(grid: Grid, tiling: Tiling) -> list[float]:
    """Multiply-adds of each part of the network in the scan of a grid, with all halos."""
    total = [0.0] * len(tiling.parts)
    high, wide = (max(side, 1) * tiling.parts[-1].pitch for side in tiling.blocks[-1])
    for down in _stretches(grid.rows, grid):
        for across in _stretches(grid.cols, grid):
            cells = down.spans(high), across.spans(wide)
            of_it = chain_work(tiling.parts, tiling.blocks, (down.steps, across.steps), cells)
            total = [a + b for a, b in zip(total, of_it, strict=True)]
    return total


@dataclass(frozen=True)
class _Stretch:
    """Cells along one axis that are computed from the image cut off at one place.

    The network is fed ``window + step · n`` pixels. Of a finer grid some last cells may end beyond that; they
    come from the image without its first pixels, so that it ends where they do. All others stay as they are
    in the coarse map.

    cells: their places in the grid. origin: the cell of the grid where the image is cut off. steps: n.
    """

    cells: slice
    origin: int
    steps: int

    @property
    def first(self) -> int:
        """The first cell, counted from the origin."""
        start: int = self.cells.start
        return start - self.origin

    def spans(self, size: int) -> list[slice]:
        """The cells, counted from the origin, in pieces of `size`."""
        pieces = spans(self.cells.stop - self.cells.start, size)
        return [slice(piece.start + self.first, piece.stop + self.first) for piece in pieces]

    def place(self, cells: slice) -> slice:
        """Their places in the grid."""
        return slice(cells.start + self.origin, cells.stop + self.origin)


def _stretches(count: int, grid: Grid) -> list[_Stretch]:
    steps, beyond = divmod(count - 1, grid.phases)
    stretches = [_Stretch(slice(0, count - beyond), 0, steps)]
    if beyond:
        stretches.append(_Stretch(slice(count - beyond, count), beyond, steps))
    return stretches


def _scan_stretch(
    grid: Grid,
    source: ImageSource,
    prepare: Callable[[Pixels], FloatArray],
    tiling: Tiling,
    down: _Stretch,
    across: _Stretch,
) -> Iterator[Block]:
    x, y = across.origin * grid.stride, down.origin * grid.stride

    def pixels(box: Box) -> FloatArray:
        return prepare(source.read((box[0] + x, box[1] + y, box[2] + x, box[3] + y)))

    image = PixelCells(pixels, grid.window, grid.stride * grid.phases)
    steps, first = (down.steps, across.steps), (down.first, across.first)
    top = chain(image, tiling.parts, tiling.blocks, steps, first)
    high, wide = top.block
    for rows in down.spans(high):
        for cols in across.spans(wide):
            logits = top.compute(rows.start, rows.stop, cols.start, cols.stop)
            # (K, rows, cols) -> (rows, cols, K); neither is held while the next is computed
            block = np.ascontiguousarray(logits.transpose(1, 2, 0))
            del logits
            yield Block(grid, down.place(rows), across.place(cols), block)
            del block


def spans(count: int, size: int) -> list[slice]:
    """Slices of `size` (the last may be shorter) that partition ``range(count)``, in order."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
