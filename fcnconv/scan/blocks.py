"""Scans an image: the grid of windows at each scale, cut into tiles, one block of logits after another.

A tile is read with a halo around it, clipped at the image's edge and aligned to the step, so that its cells
see the same pixels as in the whole image. For a local network the scores of a tile therefore equal the scores
of the untiled scan, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fcnconv.grid import Box, Grid
from fcnconv.images import ImageSource, Pixels, resize
from fcnconv.scan.rectangles import RectangleGroup, block_cells, regions
from fcnconv.scan.stages import PixelCells, chain
from fcnconv.scan.tiling import Tiling
from fcnconv.scores import Block, FloatArray


def scan(
    source: ImageSource,
    grids: Iterable[Grid],
    prepare: Callable[[Pixels], FloatArray],
    tiling: Callable[[Grid], Tiling],
) -> Iterator[Block]:
    """Yields the logits of every window of every grid, block by block, rows first; NaN where none is needed.

    Args:
        source: the image; read region by region, at the size of each grid.
        grids: the windows, one grid per scale.
        prepare: turns uint8 (H, W, 3) into the backend's float32 (1, 3, H, W).
        tiling: how a grid is cut, what computes it, and which of its cells are needed.
    """
    for grid in grids:
        scaled, chosen = resize(source, grid.scan_size), tiling(grid)
        for region in regions_of(grid, chosen):
            yield from scan_region(grid, scaled, prepare, chosen, region)


def regions_of(grid: Grid, tiling: Tiling) -> list[RectangleGroup]:
    """The groups of rectangles that a scan of a grid computes, one after another."""
    return regions(grid, block_cells(tiling.stages, tiling.blocks), tiling.needed, tiling.stages[-1].margin)


def scan_region(
    grid: Grid,
    source: ImageSource,
    prepare: Callable[[Pixels], FloatArray],
    tiling: Tiling,
    region: RectangleGroup,
) -> Iterator[Block]:
    """Yields the blocks of one group of rectangles, or of some of them.

    Args:
        grid, prepare: as for `scan`.
        source: the image at the size of the grid.
        tiling: how the grid is cut.
        region: the group of rectangles.
    """
    x, y = region.across.origin * grid.stride, region.down.origin * grid.stride

    def pixels(box: Box) -> FloatArray:
        return prepare(source.read((box[0] + x, box[1] + y, box[2] + x, box[3] + y)))

    image, top = PixelCells(pixels, grid.window, grid.stride * grid.phases), None
    if rects := region.rects:
        top = chain(image, tiling.stages, tiling.blocks, region.steps, rects)
    last = tiling.stages[-1]
    num_classes = last.channels // 2 if last.activations else last.channels
    for piece in region.pieces:
        rows, cols = piece.place
        cells = None
        whole = piece.inner == (slice(0, rows.stop - rows.start), slice(0, cols.stop - cols.start))
        if top is None or piece.rect is None or not whole:
            block = np.full((rows.stop - rows.start, cols.stop - cols.start, num_classes), np.nan, np.float32)
        if top is not None and piece.rect is not None:
            down, across = piece.rect
            # (K, rows, cols) -> (rows, cols, K); neither is held while the next is computed
            logits = top.compute(down.start, down.stop, across.start, across.stop).transpose(1, 2, 0)
            if last.activations:
                cells = piece.cells, np.ascontiguousarray(logits[:, :, :num_classes])
                logits = logits[
                    : logits.shape[0] - last.margin, : logits.shape[1] - last.margin, num_classes:
                ]
            if whole:
                block = np.ascontiguousarray(logits)
            else:
                block[piece.inner] = logits
            del logits
        yield Block(grid, rows, cols, block, cells=cells)
        del block, cells
