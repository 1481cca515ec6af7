"""Scanning an image: the grid of windows at each scale, cut into tiles, one block of logits after another.

Only whole windows count, so the network is fed regions of ``window + stride · n`` pixels. A tile is read with
a halo around it, clipped at the image's edge and aligned to the stride, so that its cells see what they would
see in the whole image: for a local network the scores of a tile are those of the untiled scan, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fcnconv.errors import UsageError
from fcnconv.images import ImageSource, Pixels, resize
from fcnconv.scores import Block, FloatArray, Grid

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
    """

    factor: float | None = None
    short_side: int | None = None

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

    A number is a factor of the image's own size, ``NNNpx`` the length of the short side, and ``fit`` the
    model's evaluation size. Raises UsageError.
    """
    return tuple(_parse_scale(part.strip()) for part in text.split(","))


def _parse_scale(text: str) -> Scale:
    if text == "fit":
        return Scale()
    if match := re.fullmatch(r"(\d+)px", text):
        short_side = int(match[1])
        if short_side > 0:
            return Scale(short_side=short_side)
    elif re.fullmatch(r"\d*\.?\d+|\d+\.", text) and 0 < float(text) <= 64:
        return Scale(factor=float(text))
    raise UsageError(
        f"unknown scale {text!r}; a factor of the image's size up to 64 (1, 0.5), a short side (256px) or fit"
    )


def scan(
    source: ImageSource,
    grids: Iterable[Grid],
    run: Callable[[FloatArray], FloatArray],
    prepare: Callable[[Pixels], FloatArray],
    halo: int,
    tile: int | None = None,
) -> Iterator[Block]:
    """The logits of every window of every grid, block by block, rows first.

    source: the image; read region by region, at the size of each grid.
    grids: the windows, one grid a scale.
    run: the backend, float32 (1, 3, H, W) -> logits (1, num_classes, rows, cols).
    prepare: turns uint8 (H, W, 3) into the backend's float32 (1, 3, H, W).
    halo: pixels to read around a tile, a multiple of the stride.
    tile: cells along the side of a tile; None scans each grid in one piece.
    """
    for grid in grids:
        scaled = resize(source, grid.scan_size)
        for rows in spans(grid.rows, tile or grid.rows):
            for cols in spans(grid.cols, tile or grid.cols):
                top, bottom, row = _reach(rows, grid.rows, grid, halo)
                left, right, col = _reach(cols, grid.cols, grid, halo)
                logits = run(prepare(scaled.read((left, top, right, bottom))))[0]
                inner = logits[:, row : row + rows.stop - rows.start, col : col + cols.stop - cols.start]
                # (K, rows, cols) -> (rows, cols, K)
                yield Block(grid, rows, cols, np.ascontiguousarray(inner.transpose(1, 2, 0)))


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


def spans(count: int, size: int) -> list[slice]:
    """Slices of `size` (the last may be shorter) that partition ``range(count)``, in order."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _reach(span: slice, count: int, grid: Grid, halo: int) -> tuple[int, int, int]:
    """First and last pixel to read for a span of cells along one axis, and the index of its first cell in
    them.
    """
    end = (count - 1) * grid.stride + grid.window
    first = max(span.start * grid.stride - halo, 0)
    last = min((span.stop - 1) * grid.stride + grid.window + halo, end)
    return first, last, span.start - first // grid.stride
