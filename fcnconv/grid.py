"""Grids of windows: a network's geometry, the sizes at which an image is scanned, and the window of each cell
in the scanned image and in the original image.

Nothing here imports numpy, so that reading the command line does not load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Coordinate = TypeVar("Coordinate", float, "npt.NDArray[np.float64]")
"""One coordinate along an axis, or an array of coordinates."""

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels; x1 and y1 lie outside."""


@dataclass(frozen=True)
class Geometry:
    """Where the cells of a network lie, and which pixels influence them. All lengths are in pixels.

    window: side of the square that one cell scores.
    stride: distance between neighbouring cells.
    receptive_field: side of the square that can influence one feature cell.
    halo: width of the border to read around a tile so that its cells equal the cells of the whole image; a
        multiple of `stride`.
    local: False if an operation depends on the whole image, so that no halo is wide enough.
    phases: number of cells along an axis per native cell: 1, or more if the stride was made finer.
    cause: the operation that depends on the whole image; empty for a local network.
    """

    window: int
    stride: int
    receptive_field: int
    halo: int
    local: bool
    phases: int = 1
    cause: str = field(default="", compare=False)

    @property
    def step(self) -> int:
        """The native stride: the network accepts regions of ``window + step · n`` pixels."""
        return self.stride * self.phases


SIDE_CELLS, LEAST_CELLS = 12, 7
ENLARGED, MOST_ENLARGED = 1.1, 4.0
"""How far ``auto`` enlarges an image: `ENLARGED` times while fewer than `SIDE_CELLS` windows lie along its
short side, or further until there are `LEAST_CELLS`, but never more than `MOST_ENLARGED` times.

Enlarging helps to find small things, and its cost grows with the square of the factor. Measured by
`benchmarks/localisation.py` with focused maps of labelled photos of about 640 × 480 px:

    enlarged to             pointing accuracy    of small things    time, in passes at the photo's own size
    nearest whole windows   0.597                0.412              1.6
    1.05 times              0.601                0.412              1.8
    1.1 times               0.620                0.456              1.9
"""


@dataclass(frozen=True)
class Scale:
    """A size at which an image is scanned, given in one of three ways.

    factor: a factor of the image's own size. short_side: the short side, in pixels. If both are None, the
        size is the model's evaluation size.
    pyramid: whether to scan at all sizes at which something may be found: the image's own size, or an
        enlarged one for a small image; its repeated halves; and the evaluation size. An enlarged size is a
        whole number of windows, so that no border is left out.
    """

    factor: float | None = None
    short_side: int | None = None
    pyramid: bool = False

    def __str__(self) -> str:
        if self.pyramid:
            return "auto"
        if self.short_side is not None:
            return f"{self.short_side}px"
        return "fit" if self.factor is None else f"{self.factor:g}"

    def scan_sizes(
        self, image_size: tuple[int, int], eval_size: int, window: int, step: int
    ) -> list[tuple[int, int]]:
        """The (width, height) at this scale, or each size of its pyramid, largest first.

        Args:
            image_size: (width, height) of the image.
            eval_size: the model's evaluation size, in pixels of the short side.
            window: side of the window, in pixels.
            step: the native stride, in pixels.
        """
        if not self.pyramid:
            return [self.scan_size(image_size, eval_size, window)]
        short, least = min(image_size), max(eval_size, window)
        many, few = (window + (cells - 1) * step for cells in (SIDE_CELLS, LEAST_CELLS))
        factor = max(1.0, min(many / short, ENLARGED), min(few / short, MOST_ENLARGED))
        enlarged = factor > 1 and short * factor > least
        scales = [Scale(factor)] if short * factor > least else []
        while short * (factor := factor / 2) >= least * 2**0.5:  # a size close to the last shows nothing new
            scales.append(Scale(factor))
        scales.append(Scale())
        sizes = [scale.scan_size(image_size, eval_size, window) for scale in scales]
        if enlarged:
            width, height = (window + ceil((side - window) / step - 0.5) * step for side in sizes[0])
            sizes[0] = width, height
        return sizes

    def pixels(self, eval_size: int, window: int) -> int | None:
        """The short side of every image at this scale; None if it depends on the image."""
        if self.factor is not None:
            return None
        return max(eval_size if self.short_side is None else self.short_side, window)

    def scan_size(self, image_size: tuple[int, int], eval_size: int, window: int) -> tuple[int, int]:
        """(width, height) of the image at this scale, with its proportions, and no side below `window`."""
        short = min(image_size)
        ratio = (self.pixels(eval_size, window) or max(short * (self.factor or 1), window)) / short
        return max(round(image_size[0] * ratio), window), max(round(image_size[1] * ratio), window)


@dataclass(frozen=True)
class Grid:
    """The windows of one scan, and where they lie in the original image.

    window, stride: in pixels of the scanned image.
    image_size: (width, height) of the original image.
    scan_size: (width, height) of the scanned image, to which the original was resized; both sides ≥ window.
    phases: number of windows along an axis per native window; above 1 if the stride was made finer.
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
        """Size of the scanned image as a factor of the original size, measured along the short side."""
        short = 0 if self.image_size[0] < self.image_size[1] else 1
        return self.scan_size[short] / self.image_size[short]

    def cells(self, count: int) -> Grid:
        """The grid of the feature cells of these windows. Each "window" of it is a single feature cell.

        count: K, the number of feature cells of a window along an axis. The grid has
            ``rows + (K - 1) · phases`` rows. The K cells of a window lie around its centre, one native stride
            apart.
        """
        return replace(self, window=self.window - (count - 1) * self.stride * self.phases)

    def box(self, row: int, col: int) -> Box:
        """(x0, y0, x1, y1) of a cell's window, in pixels of the original image; x1 and y1 lie outside."""
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

    def centre(self, cell: Coordinate) -> Coordinate:
        """The centre of a cell's window along an axis, in pixels of the scanned image.

        cell: the row or column of the cell.
        """
        return cell * self.stride + self.window / 2

    def cell_at(self, pixel: Coordinate) -> Coordinate:
        """The fractional row or column whose window has its centre at a pixel of the scanned image.

        This is the inverse of `centre`.
        """
        return (pixel - self.window / 2) / self.stride

    def nearest(self, grid: Grid, row: int, col: int) -> tuple[int, int]:
        """The (row, col) of this grid whose centre is nearest to the centre of a cell of another grid."""
        y, x = (
            grid.centre(cell) * mine / theirs
            for cell, mine, theirs in zip((row, col), self.scan_size[::-1], grid.scan_size[::-1], strict=True)
        )
        return (
            min(max(int(self.cell_at(y) + 0.5), 0), self.rows - 1),
            min(max(int(self.cell_at(x) + 0.5), 0), self.cols - 1),
        )

    def square(self, row: int, col: int) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of the square of one stride around a window's centre, in pixels of the original
        image. Windows overlap, but these squares do not.
        """
        edges = (
            self.centre(cell + side / 2) * length / scanned
            for side in (-1, 1)
            for cell, length, scanned in zip((col, row), self.image_size, self.scan_size, strict=True)
        )
        x0, y0, x1, y1 = edges
        return x0, y0, x1, y1


def finest_of(grids: Sequence[Grid]) -> Grid:
    """The grid with the most cells, on which several scales are joined."""
    return max(grids, key=lambda grid: grid.rows * grid.cols)
