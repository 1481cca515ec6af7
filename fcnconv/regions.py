"""Regions: the connected areas of a class's map over a threshold, with outlines in pixels of the image.

The map is a plane of cells with a place over the image. Between the centres of cells it is bilinear, and the
outlines are its contour lines, so that they run through cells and not along their squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import contourpy
import numpy as np
import numpy.typing as npt
import shapely
from shapely import Polygon

from fcnconv.activations import FloatArray
from fcnconv.grid import Box, Grid
from fcnconv.images.georeference import GeoReference
from fcnconv.labels import Selection
from fcnconv.options import AT_LEAST, BESIDE, PLAIN_MAP, THRESHOLD, MapOptions

Points = npt.NDArray[np.float64]

LEAST = 1e-3
"""The least value that a region is asked to have: lower ones are noise."""


@dataclass(frozen=True)
class Placement:
    """Where a plane of cells lies over an image.

    x0, y0: left top corner of the first cell. cell_width, cell_height: sides of a cell. All in pixels of the
        original image.
    image_size: (width, height) of the original image.
    """

    x0: float
    y0: float
    cell_width: float
    cell_height: float
    image_size: tuple[int, int]

    def centres(self, rows: int, cols: int) -> tuple[Points, Points]:
        """The centres of the cells of a plane: x (cols,) and y (rows,), float64."""
        x = self.x0 + self.cell_width * (np.arange(cols, dtype=np.float64) + 0.5)
        y = self.y0 + self.cell_height * (np.arange(rows, dtype=np.float64) + 0.5)
        return x, y


def place_of_windows(grid: Grid) -> Placement:
    """The place of a plane of windows: each has the square of one stride around its centre."""
    x0, y0, x1, y1 = grid.square(0, 0)
    return Placement(x0, y0, x1 - x0, y1 - y0, grid.image_size)


@dataclass(frozen=True)
class Region:
    """A connected area of a class's map over a threshold. Lengths are in pixels of the original image.

    class_idx: None for a concept, whose name is in `category`.
    probability: the highest value of the map inside. mean: the mean of the cells inside.
    area: in square pixels, without holes.
    box: (x0, y0, x1, y1), the whole pixels that the region touches; x1 and y1 lie outside.
    peak: (x, y), the centre of the cell with the highest value.
    polygon: the outline, with holes.
    """

    class_idx: int | None
    wnid: str | None
    category: str
    probability: float
    mean: float
    area: float
    box: Box
    peak: tuple[float, float]
    polygon: Polygon = field(repr=False)

    @property
    def rings(self) -> list[Points]:
        """The outline and then the holes: closed rings, float64 (n, 2), x and y."""
        return [np.asarray(ring.coords) for ring in (self.polygon.exterior, *self.polygon.interiors)]


@dataclass(frozen=True)
class Located:
    """The regions in an image.

    name: what the image is called: its path, most often. width, height: of the image, in pixels.
    model: what found them. regions: those of the first class first, and the most probable of each class.
    georeference: where the image lies on a map, if its file says it.
    """

    name: str
    width: int
    height: int
    model: str
    regions: tuple[Region, ...]
    georeference: GeoReference | None = None

    def record(self) -> dict[str, Any]:
        """The same as JSON has it, with the image as its ``path``. Polygons are lists of closed rings."""
        regions = [
            {
                "class_idx": region.class_idx,
                "wnid": region.wnid,
                "category": region.category,
                "probability": round(region.probability, 6),
                "mean": round(region.mean, 6),
                "area": round(region.area, 1),
                "box": region.box,
                "peak": [round(side, 1) for side in region.peak],
                "polygon": [np.round(ring, 1).tolist() for ring in region.rings],
            }
            for region in self.regions
        ]
        about = {"path": self.name, "width": self.width, "height": self.height, "model": self.model}
        return about | {"regions": regions}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Located:
        """The regions that `record` gave. Raises LookupError, TypeError and ValueError for what is none."""
        regions = tuple(
            Region(
                found["class_idx"],
                found["wnid"],
                found["category"],
                float(found["probability"]),
                float(found["mean"]),
                float(found["area"]),
                tuple(map(int, found["box"])),  # type: ignore[arg-type]
                tuple(map(float, found["peak"])),  # type: ignore[arg-type]
                Polygon(found["polygon"][0], found["polygon"][1:]),
            )
            for found in record["regions"]
        )
        return cls(record["path"], int(record["width"]), int(record["height"]), record["model"], regions)


def areas_over(plane: FloatArray, place: Placement, level: float) -> list[Polygon]:
    """The connected areas where a plane is at least `level`, which is above 0, each with its holes.

    plane: float32 (rows, cols); NaN where nothing was looked at, and there are no areas. At its border the
    plane goes on to the outer edges of its cells, and to the image's border where less than a cell is left.
    """
    known = ~np.isnan(plane)
    if not (plane[known] >= level).any():
        return []
    x, y = place.centres(*plane.shape)
    filled = plane if known.all() else _filled_beside(plane, known)
    width, height = place.image_size
    x = np.concatenate([[_edge(x[0], -place.cell_width, 0)], x, [_edge(x[-1], place.cell_width, width)]])
    y = np.concatenate([[_edge(y[0], -place.cell_height, 0)], y, [_edge(y[-1], place.cell_height, height)]])
    contours = contourpy.contour_generator(
        x, y, np.pad(filled, 1, mode="edge"), fill_type=contourpy.FillType.OuterOffset
    )
    rings, offsets = cast("tuple[list[Points], list[Points]]", contours.filled(level, np.inf))
    found = []
    for ring, ends in zip(rings, offsets, strict=True):
        outer, *holes = (ring[a:b] for a, b in pairwise(ends.tolist()))
        found.append(Polygon(outer, holes))
    inside = shapely.box(0, 0, width, height)
    if not known.all():
        inside = inside.intersection(_squares(known, place))
    clipped = (shapely.make_valid(polygon).intersection(inside) for polygon in found)
    parts = (part for each in clipped for part in shapely.get_parts(each))
    # contour lines have a point at every line between cells: those on a straight line go
    straight = 1e-3 * min(place.cell_width, place.cell_height)
    return [part.simplify(straight) for part in parts if isinstance(part, Polygon) and part.area]


def _edge(centre: float, cell: float, border: float) -> float:
    """Where the plane ends beyond the centre of its last cell. cell: with the sign of the direction."""
    edge = centre + cell / 2
    return border if 0 < (border - edge) / cell < 1 else edge


def _filled_beside(plane: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    """The plane with the highest known value of the four cells around in place of each NaN, or else of the
    four at its corners, or 0; so that the surface goes on level to the edge of what is known.
    """
    rows, cols = plane.shape
    padded = np.pad(np.where(known, plane, np.nan), 1, constant_values=np.nan)
    around = {
        (i, j): padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3) if (i, j) != (1, 1)
    }
    beside = np.fmax.reduce([cells for (i, j), cells in around.items() if 1 in (i, j)])
    corners = np.fmax.reduce([cells for (i, j), cells in around.items() if 1 not in (i, j)])
    filled: FloatArray = np.where(known, plane, np.where(np.isnan(beside), corners, beside))
    return np.nan_to_num(filled, nan=0.0)


def _squares(known: npt.NDArray[np.bool_], place: Placement) -> Polygon:
    """The union of the squares of some cells."""
    rows, cols = known.shape
    x = place.x0 + place.cell_width * np.arange(cols + 1)
    y = place.y0 + place.cell_height * np.arange(rows + 1)
    steps = np.diff(
        np.pad(known, ((0, 0), (1, 1))).astype(np.int8), axis=1
    )  # (rows, cols + 1): 1 begins, -1 ends
    (row, first), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return shapely.union_all(shapely.box(x[first], y[row], x[end], y[row + 1]))


def find_regions(
    plane: FloatArray, place: Placement, selection: Selection, options: MapOptions = PLAIN_MAP
) -> list[Region]:
    """The regions of a class, the most probable first.

    plane: float32 (rows, cols), 0 to 1: the class's map; NaN where nothing was looked at.
    selection: the category or concept.
    options: of which these count.
        at_least: the highest value that a region must have; by default `AT_LEAST`, and `BESIDE` of the
            highest value of the plane.
        threshold: the value at its outline, as a share of the highest value in the connected area whose
            values reach the lowest outline that can be.
        min_area, max_regions: as in `MapOptions`.
    """
    if options.at_least is None:
        at_least = max(AT_LEAST, BESIDE * float(np.nan_to_num(plane).max()))
    else:
        at_least = max(options.at_least, LEAST)
    threshold = THRESHOLD if options.threshold is None else options.threshold
    min_area = options.min_area.pixels(place.image_size) if options.min_area else 0.0
    regions = []
    for area in areas_over(plane, place, threshold * at_least):
        part, place_of_part = _around(area, plane, place)
        highest = _inside(area, part, place_of_part).max()
        if highest < at_least:
            continue
        for polygon in areas_over(part, place_of_part, float(threshold * highest)):
            if area.intersects(polygon.representative_point()):
                regions.append(_region(polygon, part, place_of_part, selection))
    kept = (region for region in regions if region.probability >= at_least and region.area >= min_area)
    return by_probability(kept)[: options.max_regions]


def regions_of_each(
    planes: FloatArray, place: Placement, selections: Sequence[Selection], options: MapOptions = PLAIN_MAP
) -> list[list[Region]]:
    """The regions of each of several classes, of which together at most ``options.max_regions`` are kept: the
    most probable.

    planes: float32 (rows, cols, len(selections)), as for `find_regions`.
    """
    found = [
        find_regions(planes[:, :, k], place, selection, options) for k, selection in enumerate(selections)
    ]
    kept = most_probable((region for each in found for region in each), options.max_regions)
    return [[region for region in each if id(region) in kept] for each in found]


def most_probable(regions: Iterable[Region], count: int | None) -> set[int]:
    """The ids of the `count` most probable regions; None are all."""
    return set(map(id, by_probability(regions)[:count]))


def by_probability(regions: Iterable[Region]) -> list[Region]:
    """The regions, the most probable first."""
    return sorted(regions, key=lambda region: -region.probability)


def _around(area: Polygon, plane: FloatArray, place: Placement) -> tuple[FloatArray, Placement]:
    """The cells around an area, one more on each side, and their place."""
    x0, y0, x1, y1 = area.bounds
    rows, cols = plane.shape
    top, bottom = _cells(y0, y1, place.y0, place.cell_height, rows)
    left, right = _cells(x0, x1, place.x0, place.cell_width, cols)
    x, y = place.x0 + left * place.cell_width, place.y0 + top * place.cell_height
    return plane[top:bottom, left:right], replace(place, x0=x, y0=y)


def _cells(start: float, end: float, origin: float, cell: float, count: int) -> tuple[int, int]:
    """The cells along an axis that an extent touches, one more on each side: the first, and the one after."""
    first = math.floor((start - origin) / cell) - 1
    return min(max(first, 0), count - 1), min(max(math.ceil((end - origin) / cell) + 1, 1), count)


def _inside(area: Polygon, plane: FloatArray, place: Placement) -> FloatArray:
    """float32 (rows, cols): the plane; 0 for cells outside of an area, and for those not looked at."""
    x, y = np.meshgrid(*place.centres(*plane.shape))
    inside = shapely.intersects_xy(area, x, y) & ~np.isnan(plane)
    result: FloatArray = np.where(inside, plane, np.float32(0))
    return result


def _region(polygon: Polygon, plane: FloatArray, place: Placement, selection: Selection) -> Region:
    inside = _inside(polygon, plane, place)
    row, col = np.unravel_index(inside.argmax(), inside.shape)
    x, y = place.centres(*plane.shape)
    width, height = place.image_size
    x0, y0, x1, y1 = polygon.bounds
    return Region(
        selection.class_idx,
        selection.wnid,
        selection.name,
        float(inside.max()),
        float(inside[inside > 0].mean()) if inside.any() else 0.0,
        polygon.area,
        (math.floor(x0), math.floor(y0), min(math.ceil(x1), width), min(math.ceil(y1), height)),
        (float(x[col]), float(y[row])),
        polygon,
    )
