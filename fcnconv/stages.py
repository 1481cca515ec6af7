"""A network computed in stages, each over small blocks, so that memory follows the block and not the image.

A tile of a scan must be read with the halo of the whole network, hundreds of pixels, and most of the work of
a small tile is halo. A stage is a part of the network between two places where one small feature map holds
all; its own halo is a few cells. So each stage is computed block by block, every block once, from the feature
map of the stage before, of which only the rows that are still needed are kept. A network that is not cut is
one stage, and its blocks are the usual tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fcnconv.scores import FloatArray

Run = Callable[[FloatArray], FloatArray]
"""float32 (1, C, h, w) -> (1, C', h', w'): a network, or a part of one."""


@dataclass(frozen=True)
class Stage:
    """A part of a network, from one feature map to the next, and what it costs.

    All maps grow in steps of the network's own stride: of an image of ``window + step · n`` pixels, a map has
    ``native + pitch · n`` cells along the axis.

    before, after: cells at the start and the end of its output that see past its input. They are right only
        where the input ends with the image.
    halo: steps that it computes around a block, along an axis; `span`, the steps of one window, are all that
        it computes beyond the grid itself.
    memory: bytes alive at its worst moment, for each step × step of a block with its halo.
    multiply_adds: its work, likewise.
    """

    run: Run
    channels: int
    native: int
    pitch: int
    before: int
    after: int
    halo: float
    span: float
    memory: float
    multiply_adds: float


class Cells(Protocol):
    """A map that is computed where it is read. native, pitch: its cells, as for `Stage`."""

    @property
    def native(self) -> int: ...

    @property
    def pitch(self) -> int: ...

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """float32 (C, bottom - top, right - left): the cells of a rectangle."""

    def forget(self, row: int) -> None:
        """Promises that no cell above `row` is read any more."""


@dataclass(frozen=True)
class PixelCells:
    """An image as the lowest map. pixels: box (x0, y0, x1, y1) -> float32 (1, 3, H, W)."""

    pixels: Callable[[tuple[int, int, int, int]], FloatArray]
    native: int
    pitch: int

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        cells: FloatArray = self.pixels((left, top, right, bottom))[0]
        return cells

    def forget(self, row: int) -> None:
        pass


class FeatureCells:
    """The output of a stage, computed in blocks that are kept until `forget`.

    below: its input. steps: (down, across), what the map has beyond its native size. block: the same, of one
    block.
    """

    def __init__(self, stage: Stage, below: Cells, steps: tuple[int, int], block: tuple[int, int]):
        self.stage = stage
        self.below = below
        self.steps = steps
        self.native, self.pitch = stage.native, stage.pitch
        self.rows, self.cols = (stage.native + stage.pitch * n for n in steps)
        self.block = max(block[0], 1) * stage.pitch, max(block[1], 1) * stage.pitch
        self.kept: dict[tuple[int, int], FloatArray] = {}

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        out = np.empty((bottom - top, right - left, self.stage.channels), np.float32)  # as torch likes it
        high, wide = self.block
        for row in range(top // high * high, bottom, high):
            for col in range(left // wide * wide, right, wide):
                cells = self._block(row, col)
                y0, y1 = max(row, top), min(row + high, bottom)
                x0, x1 = max(col, left), min(col + wide, right)
                part = cells[:, y0 - row : y1 - row, x0 - col : x1 - col]
                out[y0 - top : y1 - top, x0 - left : x1 - left] = part.transpose(1, 2, 0)
        return out.transpose(2, 0, 1)

    def forget(self, row: int) -> None:
        high, wide = self.block
        first = row // high * high
        self.kept = {place: cells for place, cells in self.kept.items() if place[0] >= first}
        while first < self.rows and all((first, col) in self.kept for col in range(0, self.cols, wide)):
            first += high
        start, _ = _region(self.stage, self.steps[0], first, first + 1)
        self.below.forget(start * self.below.pitch)

    def _block(self, row: int, col: int) -> FloatArray:
        if (row, col) not in self.kept:
            high, wide = self.block
            cells = self.compute(row, min(row + high, self.rows), col, min(col + wide, self.cols))
            # A part of a larger map would keep all of it alive.
            self.kept[row, col] = np.ascontiguousarray(cells.transpose(1, 2, 0)).transpose(2, 0, 1)
        return self.kept[row, col]

    def compute(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """float32 (channels, bottom - top, right - left): the cells of a rectangle, computed, not kept."""
        down, high = _region(self.stage, self.steps[0], top, bottom)
        across, wide = _region(self.stage, self.steps[1], left, right)
        native, pitch = self.below.native, self.below.pitch
        y, x = down * pitch, across * pitch
        region = self.below.read(y, y + native + high * pitch, x, x + native + wide * pitch)
        y, x = top - down * self.pitch, left - across * self.pitch
        cells: FloatArray = self.stage.run(region[None])[0, :, y : y + bottom - top, x : x + right - left]
        return cells


def _region(stage: Stage, steps: int, first: int, last: int) -> tuple[int, int]:
    """The step where a region starts and the steps that it grows by, so that its cells first to last - 1 are
    right. Along one axis of a map that grows by `steps`.
    """
    start = min(max((first - stage.before) // stage.pitch, 0), steps)
    lacking = last + stage.after - stage.native - start * stage.pitch
    return start, min(max(-(-lacking // stage.pitch), 0), steps - start)
