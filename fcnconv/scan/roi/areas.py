"""Areas of an image: functions that report which points lie inside; and the region where several meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fcnconv.errors import UsageError
from fcnconv.grid import Box, Grid

Points = npt.NDArray[np.float64]
Inside = npt.NDArray[np.bool_]

Area = Callable[[Points, Points], Inside]
"""An area: (x (cols,), y (rows,)), rising, in pixels of the image -> bool (rows, cols), the points inside."""

Rings = Sequence[Points]
"""A polygon: its outer ring and its holes, float64 (n, 2) each, x and y."""


def rectangle(box: Box) -> Area:
    """The area of a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box

    def inside(x: Points, y: Points) -> Inside:
        return ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))

    return inside


def raster(mask: Inside, image_size: tuple[int, int]) -> Area:
    """The area where a mask is true: bool (h, w), of any size, stretched over the whole image."""

    def inside(x: Points, y: Points) -> Inside:
        col, row = (
            np.clip((points * cells / length).astype(np.intp), 0, cells - 1)
            for points, cells, length in zip((x, y), mask.shape[::-1], image_size, strict=True)
        )
        return mask[np.ix_(row, col)]

    return inside


def polygons(shapes: Iterable[Rings]) -> Area:
    """The area inside any of the polygons, without their holes."""
    each = list(shapes)

    def inside(x: Points, y: Points) -> Inside:
        found = np.zeros((len(y), len(x)), np.bool_)
        for rings in each:
            _fill(found, rings, x, y)
        return found

    return inside


def _fill(found: Inside, rings: Rings, x: Points, y: Points) -> None:
    """Marks the points inside a polygon: the points with an odd number of its edges to their left."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    first, last = np.searchsorted(y, (starts[:, 1].min(), starts[:, 1].max()))
    for row in range(first, min(last + 1, len(y))):
        crossed = (starts[:, 1] <= y[row]) != (ends[:, 1] <= y[row])
        a, b = starts[crossed], ends[crossed]
        edges = np.sort(a[:, 0] + (y[row] - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1]))
        found[row] |= np.searchsorted(edges, x, side="right") % 2 == 1


def cells_inside(areas: Iterable[Area], grid: Grid) -> Inside:
    """The windows whose centres lie in all of the areas: bool (rows, cols)."""
    x, y = (
        grid.centre(np.arange(count, dtype=np.float64)) * (length / scanned)
        for count, length, scanned in zip(
            (grid.cols, grid.rows), grid.image_size, grid.scan_size, strict=True
        )
    )
    inside = np.ones((grid.rows, grid.cols), np.bool_)
    for area in areas:
        inside &= area(x, y)
    return inside


@dataclass(frozen=True)
class RegionOfInterest:
    """The region of interest of an image: the intersection of some areas.

    Attributes:
        areas: the areas; none means the whole image.
        record: the options that define the areas, for the provenance.
    """

    areas: tuple[Area, ...] = ()
    record: Mapping[str, str] = field(default_factory=dict)

    def cells(self, grid: Grid) -> Inside | None:
        """The windows inside the region of interest.

        Returns:
            bool (rows, cols); None means all windows.

        Raises:
            UsageError: if no window is inside.
        """
        if not self.areas:
            return None
        inside = cells_inside(self.areas, grid)
        if not inside.any():
            asked = ", ".join(f"{name} {value}" for name, value in self.record.items())
            raise UsageError(
                f"no window ({grid.window} px) has its centre inside {asked}; choose a larger area, a "
                "finer --stride or a larger --scales"
            )
        return None if inside.all() else inside


WHOLE_IMAGE = RegionOfInterest()
"""The region of interest of a scan that leaves nothing out."""
