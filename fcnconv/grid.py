"""Where each cell's window lies: in the scanned image, and in the original one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 lie outside."""


@dataclass(frozen=True)
class Grid:
    """The windows of one scan, and where they lie in the original image.

    window, stride: pixels of the scanned image.
    image_size: (width, height) of the original image.
    scan_size: (width, height) that it was resized to before it was scanned; both sides ≥ window.
    phases: windows for each of the network's own along an axis, where its stride was made finer.
    """

    window: int
    stride: int
    image_size: tuple[int, int]
    scan_size: tuple[int, int]
    phases: int = 1

    @property
    def cols(self) -> int:
        """Number of whole windows side by side."""
        return (self.scan_size[0] - self.window) // self.stride + 1

    @property
    def rows(self) -> int:
        """Number of whole windows one below the other."""
        return (self.scan_size[1] - self.window) // self.stride + 1

    @property
    def scale(self) -> float:
        """Size of the scanned image as a factor of the original (from the short side, which sets it)."""
        short = 0 if self.image_size[0] < self.image_size[1] else 1
        return self.scan_size[short] / self.image_size[short]

    def box(self, row: int, col: int) -> Box:
        """(x0, y0, x1, y1) of a cell's window in pixels of the original image; x1 and y1 lie outside."""
        x0, x1 = self._extent(col, 0)
        y0, y1 = self._extent(row, 1)
        return x0, y0, x1, y1

    def _extent(self, cell: int, axis: int) -> tuple[int, int]:
        length = self.image_size[axis]
        ratio = length / self.scan_size[axis]
        first = min(
            round(cell * self.stride * ratio), length - 1
        )  # an enlarged image has windows of under 1 px
        return first, max(round((cell * self.stride + self.window) * ratio), first + 1)

    def nearest(self, grid: Grid, row: int, col: int) -> tuple[int, int]:
        """The cell of this grid whose centre is nearest in the image to that of another grid's cell."""
        y, x = (
            (cell * grid.stride + grid.window / 2) * mine / theirs
            for cell, mine, theirs in zip((row, col), self.scan_size[::-1], grid.scan_size[::-1], strict=True)
        )
        return (
            min(max(int((y - self.window / 2) / self.stride + 0.5), 0), self.rows - 1),
            min(max(int((x - self.window / 2) / self.stride + 0.5), 0), self.cols - 1),
        )

    def square(self, row: int, col: int) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the square of one stride around a window's centre, in pixels of the original:
        the part of the image that a cell has to itself, where windows overlap.
        """
        edges = (
            (cell * self.stride + (self.window + side * self.stride) / 2) * length / scanned
            for side in (-1, 1)
            for cell, length, scanned in zip((col, row), self.image_size, self.scan_size, strict=True)
        )
        x0, y0, x1, y1 = edges
        return x0, y0, x1, y1


def window_box(
    grid: Grid, scales: Sequence[Grid], best_scale: npt.NDArray[np.uint8] | None, row: int, col: int
) -> Box:
    """(x0, y0, x1, y1) of the window that the best class of a map's cell is from, in pixels of the original.

    grid, scales, best_scale: of the map, as in `ScoreMap`.
    """
    if best_scale is None:
        return grid.box(row, col)
    other = scales[int(best_scale[row, col])]
    return other.box(*other.nearest(grid, row, col))
