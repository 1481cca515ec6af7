"""Regions: the connected areas of a class's map over a threshold, with outlines in pixels of the image.

A map is a grid of cells with a position over the image. It is interpolated bilinearly between the centres of
cells, and the outlines are its contour lines. So outlines run through cells, not along the borders of cells.
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

from fcnconv.grid import Box, Grid
from fcnconv.images.georeference import GeoReference
from fcnconv.labels import Selection
from fcnconv.options import AT_LEAST, BESIDE, PLAIN_OUTPUT, THRESHOLD, OutputOptions
from fcnconv.scores.activations import FloatArray

Points = npt.NDArray[np.float64]

LEAST = 1e-3
"""The lowest probability that can be required of a region. Values below it are noise."""


@dataclass(frozen=True)
class Placement:
    """The position of a map over an image. Lengths are in pixels of the original image.

    x0, y0: top left corner of the first cell.
    cell_width, cell_height: sides of a cell.
    image_size: (width, height) of the original image.
    """

    x0: float
    y0: float
    cell_width: float
    cell_height: float
    image_size: tuple[int, int]

    def centres(self, rows: int, cols: int) -> tuple[Points, Points]:
        """The centres of the cells of a map: x (cols,) and y (rows,), float64."""
        x = self.x0 + self.cell_width * (np.arange(cols, dtype=np.float64) + 0.5)
        y = self.y0 + self.cell_height * (np.arange(rows, dtype=np.float64) + 0.5)
        return x, y


def placement_of_windows(grid: Grid) -> Placement:
    """The position of a map of windows. Each window has the square of one stride around its centre."""
    x0, y0, x1, y1 = grid.square(0, 0)
    return Placement(x0, y0, x1 - x0, y1 - y0, grid.image_size)


@dataclass(frozen=True)
class Region:
    """A connected area of a class's map over a threshold. Lengths are in pixels of the original image.

    class_idx: the index of the class; None for a concept, whose name is in `category`.
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
        """The outline, followed by the holes: closed rings of x and y, float64 (n, 2)."""
        return [np.asarray(ring.coords) for ring in (self.polygon.exterior, *self.polygon.interiors)]


@dataclass(frozen=True)
class Located:
    """The regions in an image.

    name: the name of the image, usually its path.
    width, height: the size of the image, in pixels.
    model: the name of the model.
    regions: the regions. The first class comes first, and in each class the most probable region.
    georeference: the coordinate system and transform of the image; None if it is not georeferenced.
    """

    name: str
    width: int
    height: int
    model: str
    regions: tuple[Region, ...]
    georeference: GeoReference | None = None

    def record(self) -> dict[str, Any]:
        """The regions as a record for JSON. ``path`` is the image. Polygons are lists of closed rings."""
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
        """The regions from a record that `record` returned.

        Raises LookupError, TypeError or ValueError for anything else.
        """
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


def areas_over(class_map: FloatArray, placement: Placement, level: float) -> list[Polygon]:
    """Find the connected areas where the map of a class is at least `level`.

    The map extends to the outer edges of its cells, and to the border of the image if less than a cell is
    left.

    Args:
        class_map: float32 (rows, cols). Cells outside the region of interest are NaN and belong to no area.
        placement: the position of the map over the image.
        level: the threshold, above 0.

    Returns:
        The areas, each with its holes, in pixels of the original image.
    """
    known = ~np.isnan(class_map)
    if not (class_map[known] >= level).any():
        return []
    x, y = placement.centres(*class_map.shape)
    filled = class_map if known.all() else _filled_beside(class_map, known)
    width, height = placement.image_size
    x = np.concatenate(
        [[_edge(x[0], -placement.cell_width, 0)], x, [_edge(x[-1], placement.cell_width, width)]]
    )
    y = np.concatenate(
        [[_edge(y[0], -placement.cell_height, 0)], y, [_edge(y[-1], placement.cell_height, height)]]
    )
    contours = contourpy.contour_generator(
        x, y, np.pad(filled, 1, mode="edge"), fill_type=contourpy.FillType.OuterOffset
    )
    rings, offsets = cast("tuple[list[Points], list[Points]]", contours.filled(level, np.inf))
    polygons = []
    for ring, ends in zip(rings, offsets, strict=True):
        outer, *holes = (ring[a:b] for a, b in pairwise(ends.tolist()))
        polygons.append(Polygon(outer, holes))
    inside = shapely.box(0, 0, width, height)
    if not known.all():
        inside = inside.intersection(_squares(known, placement))
    clipped = (shapely.make_valid(polygon).intersection(inside) for polygon in polygons)
    parts = (part for each in clipped for part in shapely.get_parts(each))
    # contour lines have a point at every line between cells; points on a straight line are removed
    straight = 1e-3 * min(placement.cell_width, placement.cell_height)
    return [part.simplify(straight) for part in parts if isinstance(part, Polygon) and part.area]


def _edge(centre: float, cell: float, border: float) -> float:
    """The end of the map beyond the centre of its last cell. cell: its side, negative towards 0."""
    edge = centre + cell / 2
    return border if 0 < (border - edge) / cell < 1 else edge


def _filled_beside(class_map: FloatArray, known: npt.NDArray[np.bool_]) -> FloatArray:
    """The map with each NaN replaced, so that the surface stays level up to the edge of the known cells.

    The replacement is the highest known value of the four adjacent cells, or else of the four diagonal cells,
    or else 0.
    """
    rows, cols = class_map.shape
    padded = np.pad(np.where(known, class_map, np.nan), 1, constant_values=np.nan)
    around = {
        (i, j): padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3) if (i, j) != (1, 1)
    }
    beside = np.fmax.reduce([cells for (i, j), cells in around.items() if 1 in (i, j)])
    corners = np.fmax.reduce([cells for (i, j), cells in around.items() if 1 not in (i, j)])
    filled: FloatArray = np.where(known, class_map, np.where(np.isnan(beside), corners, beside))
    return np.nan_to_num(filled, nan=0.0)


def _squares(known: npt.NDArray[np.bool_], placement: Placement) -> Polygon:
    """The union of the squares of some cells."""
    rows, cols = known.shape
    x = placement.x0 + placement.cell_width * np.arange(cols + 1)
    y = placement.y0 + placement.cell_height * np.arange(rows + 1)
    steps = np.diff(
        np.pad(known, ((0, 0), (1, 1))).astype(np.int8), axis=1
    )  # (rows, cols + 1): 1 begins, -1 ends
    (row, first), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return shapely.union_all(shapely.box(x[first], y[row], x[end], y[row + 1]))


def find_regions(
    class_map: FloatArray, placement: Placement, selection: Selection, options: OutputOptions = PLAIN_OUTPUT
) -> list[Region]:
    """Find the regions of a class, the most probable first.

    Args:
        class_map: float32 (rows, cols), 0 to 1. Cells outside the region of interest are NaN.
        placement: the position of the map over the image.
        selection: the category or concept.
        options: `at_least`, the lowest peak of a region, is by default the larger of `AT_LEAST` and `BESIDE`
            times the highest value of the map. `threshold` gives the value at the outline, as a share of
            the highest value in the surrounding connected area over ``threshold · at_least``, the lowest
            possible outline. `min_area` and `max_regions` are as in `OutputOptions`. Other options do
            not count.
    """
    if options.at_least is None:
        at_least = max(AT_LEAST, BESIDE * float(np.nan_to_num(class_map).max()))
    else:
        at_least = max(options.at_least, LEAST)
    threshold = THRESHOLD if options.threshold is None else options.threshold
    min_area = options.min_area.pixels(placement.image_size) if options.min_area else 0.0
    regions = []
    for area in areas_over(class_map, placement, threshold * at_least):
        part, part_placement = _around(area, class_map, placement)
        highest = _inside(area, part, part_placement).max()
        if highest < at_least:
            continue
        for polygon in areas_over(part, part_placement, float(threshold * highest)):
            if area.intersects(polygon.representative_point()):
                regions.append(_region(polygon, part, part_placement, selection))
    kept = (region for region in regions if region.probability >= at_least and region.area >= min_area)
    return by_probability(kept)[: options.max_regions]


def regions_of_each(
    class_maps: FloatArray,
    placement: Placement,
    selections: Sequence[Selection],
    options: OutputOptions = PLAIN_OUTPUT,
) -> list[list[Region]]:
    """Find the regions of several classes, and keep the ``options.max_regions`` most probable of them all.

    Args:
        class_maps: the maps of the classes, float32 (rows, cols, len(selections)), as for `find_regions`.
        placement: the position of the map over the image.
        selections: the categories and concepts.
        options: as for `find_regions`.

    Returns:
        One list of regions per class.
    """
    each_class = [
        find_regions(class_maps[:, :, k], placement, selection, options)
        for k, selection in enumerate(selections)
    ]
    kept = most_probable((region for each in each_class for region in each), options.max_regions)
    return [[region for region in each if id(region) in kept] for each in each_class]


def most_probable(regions: Iterable[Region], count: int | None) -> set[int]:
    """The ids (`id`) of the `count` most probable regions, or of all regions by default (None)."""
    return set(map(id, by_probability(regions)[:count]))


def by_probability(regions: Iterable[Region]) -> list[Region]:
    """The regions, the most probable first."""
    return sorted(regions, key=lambda region: -region.probability)


def _around(area: Polygon, class_map: FloatArray, placement: Placement) -> tuple[FloatArray, Placement]:
    """The cells that an area touches, with one more on each side, and their position."""
    x0, y0, x1, y1 = area.bounds
    rows, cols = class_map.shape
    top, bottom = _cells(y0, y1, placement.y0, placement.cell_height, rows)
    left, right = _cells(x0, x1, placement.x0, placement.cell_width, cols)
    x, y = placement.x0 + left * placement.cell_width, placement.y0 + top * placement.cell_height
    return class_map[top:bottom, left:right], replace(placement, x0=x, y0=y)


def _cells(start: float, end: float, origin: float, cell: float, count: int) -> tuple[int, int]:
    """The range of cells along an axis that an extent touches, with one more on each side: start and stop."""
    first = math.floor((start - origin) / cell) - 1
    return min(max(first, 0), count - 1), min(max(math.ceil((end - origin) / cell) + 1, 1), count)


def _inside(area: Polygon, class_map: FloatArray, placement: Placement) -> FloatArray:
    """The map with 0 for cells outside of an area and for NaN: float32 (rows, cols)."""
    x, y = np.meshgrid(*placement.centres(*class_map.shape))
    inside = shapely.intersects_xy(area, x, y) & ~np.isnan(class_map)
    result: FloatArray = np.where(inside, class_map, np.float32(0))
    return result


def _region(polygon: Polygon, class_map: FloatArray, placement: Placement, selection: Selection) -> Region:
    inside = _inside(polygon, class_map, placement)
    row, col = np.unravel_index(inside.argmax(), inside.shape)
    x, y = placement.centres(*class_map.shape)
    width, height = placement.image_size
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
