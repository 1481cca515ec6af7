"""Scanning an image: the grid of windows at each scale, cut into tiles, one block of logits after another.

Only whole windows count, so the network is fed regions of ``window + step · n`` pixels. A tile is read with a
halo around it, clipped at the image's edge and aligned to the step, so that its cells see what they would see
in the whole image: for a local network the scores of a tile are those of the untiled scan, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Grid
from fcnconv.scores import Block, FloatArray
from fcnconv.sources import ImageSource, Pixels, resize
from fcnconv.stages import PixelCells, chain
from fcnconv.tiles import Tiling

CROP_BATCH = 32
"""Crops that are scored together: enough to fill two cores, at 20 MB of input for a window of 224 px."""


@dataclass(frozen=True)
class Geometry:
    """Where the cells of a network lie, and how far they see. All lengths in pixels.

    window: side of the square that one cell answers for.
    stride: distance of neighbouring cells.
    receptive_field: side of the square that can influence one feature cell.
    halo: what must be read around a tile so that its cells equal those of the whole; a multiple of `stride`.
    local: False if an operation looks at the whole image, so that no halo is enough.
    phases: cells along an axis for each of the network's own: 1, or more where its stride was made finer.
    """

    window: int
    stride: int
    receptive_field: int
    halo: int
    local: bool
    phases: int = 1

    @property
    def step(self) -> int:
        """The network's own stride: it accepts regions of ``window + step · n`` pixels."""
        return self.stride * self.phases


@dataclass(frozen=True)
class Scale:
    """A size at which an image is scanned: one of three ways to say it.

    factor: of the image's own size. short_side: in pixels. Neither: the model's evaluation size.
    halvings: whether all halves, quarters, … of it belong to it too, down to the evaluation size.
    """

    factor: float | None = None
    short_side: int | None = None
    halvings: bool = False

    def scan_sizes(self, image_size: tuple[int, int], eval_size: int, window: int) -> list[tuple[int, int]]:
        """The size at this scale, and with `halvings` those below it, largest first."""
        sizes = [self.scan_size(image_size, eval_size, window)]
        factor = (self.factor or 1) / 2
        while self.halvings and min(image_size) * factor >= max(eval_size, window):
            sizes.append(Scale(factor).scan_size(image_size, eval_size, window))
            factor /= 2
        return sizes

    def pixels(self, eval_size: int, window: int) -> int | None:
        """The short side of every image at this scale; None if it depends on the image."""
        if self.factor is not None:
            return None
        return max(eval_size if self.short_side is None else self.short_side, window)

    def scan_size(self, image_size: tuple[int, int], eval_size: int, window: int) -> tuple[int, int]:
        """(width, height) of the image at this scale, its proportions kept, no side shorter than `window`."""
        short = min(image_size)
        ratio = (self.pixels(eval_size, window) or max(short * (self.factor or 1), window)) / short
        return max(round(image_size[0] * ratio), window), max(round(image_size[1] * ratio), window)


def parse_scales(text: str) -> tuple[Scale, ...]:
    """The scales of a comma-separated list such as ``1``, ``fit`` or ``0.5,256px``.

    A number is a factor of the image's own size, ``NNNpx`` the length of the short side, ``fit`` the model's
    evaluation size, and ``auto`` the image's own size, halved again and again down to that. Raises
    UsageError.
    """
    return tuple(_parse_scale(part.strip()) for part in text.split(","))


def _parse_scale(text: str) -> Scale:
    if text == "fit":
        return Scale()
    if text == "auto":
        return Scale(factor=1, halvings=True)
    if match := re.fullmatch(r"(\d+)px", text):
        short_side = int(match[1])
        if short_side > 0:
            return Scale(short_side=short_side)
    elif re.fullmatch(r"\d*\.?\d+|\d+\.", text) and 0 < float(text) <= 64:
        return Scale(factor=float(text))
    raise UsageError(
        f"unknown scale {text!r}; a factor of the image's size up to 64 (1, 0.5), a short side (256px), "
        "fit or auto"
    )


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
        for down in _parts(grid.rows, grid):
            for across in _parts(grid.cols, grid):
                yield from _scan_part(grid, scaled, prepare, chosen, down, across)


@dataclass(frozen=True)
class _Part:
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


def _parts(count: int, grid: Grid) -> list[_Part]:
    steps, beyond = divmod(count - 1, grid.phases)
    parts = [_Part(slice(0, count - beyond), 0, steps)]
    if beyond:
        parts.append(_Part(slice(count - beyond, count), beyond, steps))
    return parts


def _scan_part(
    grid: Grid,
    source: ImageSource,
    prepare: Callable[[Pixels], FloatArray],
    tiling: Tiling,
    down: _Part,
    across: _Part,
) -> Iterator[Block]:
    x, y = across.origin * grid.stride, down.origin * grid.stride

    def pixels(box: Box) -> FloatArray:
        return prepare(source.read((box[0] + x, box[1] + y, box[2] + x, box[3] + y)))

    image = PixelCells(pixels, grid.window, grid.stride * grid.phases)
    steps, first = (down.steps, across.steps), (down.first, across.first)
    top = chain(image, tiling.stages, tiling.blocks, steps, first)
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


def score_crops(
    source: ImageSource,
    grid: Grid,
    cells: Iterable[int],
    run: Callable[[FloatArray], FloatArray],
    prepare: Callable[[Pixels], FloatArray],
) -> FloatArray:
    """float32 (number of cells, num_classes): the logits of single windows of a grid, each cropped by itself.

    cells: numbers of the cells, row by row. run, prepare: as for `scan`; `run` scores each crop by itself.
    """
    scaled = resize(source, grid.scan_size)
    logits = []
    remaining = iter(cells)
    while batch := list(islice(remaining, CROP_BATCH)):
        corners = [(cell % grid.cols * grid.stride, cell // grid.cols * grid.stride) for cell in batch]
        crops = [prepare(scaled.read((x, y, x + grid.window, y + grid.window))) for x, y in corners]
        logits.append(run(np.concatenate(crops))[:, :, 0, 0])
    return np.concatenate(logits)
