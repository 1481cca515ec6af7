"""Formats that hold the cells as polygons in image or map coordinates: GeoJSON, for QuPath and GIS, and
GeoPackage.
"""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError, OutputError, UsageError, first_line
from fcnconv.grid import Grid
from fcnconv.images.georeference import IN_PIXELS, LONGITUDES, GeoReference, transformed
from fcnconv.scores import MapInfo, ScoreStream
from fcnconv.system.progress import written
from fcnconv.writers.output_spec import Kept, OutputSpec, keep, place_of, provenance

log = logging.getLogger("fcnconv")

ALL_CLASSES = 64
"""Largest number of classes for which every cell lists all of them. With more classes, a cell lists its best
ones, unless some are selected.
"""

_DIGITS = 8
"""Decimal places of longitudes and latitudes: about a millimetre."""

Corners = npt.NDArray[np.float64]
"""(n, 5, 2): closed rings of n squares, x and y."""


def write_geojson(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes one feature per cell inside the region of interest: the square around the centre of its window,
    classified as its top class, with class probabilities as measurements.

    The measurements are the selected classes, or all classes if the network has at most `ALL_CLASSES`, or
    else the best classes. Cells whose best class is below ``options.at_least`` are omitted.

    The layout is QuPath's object format, which its extension WSInfer also writes. Coordinates are pixels of
    the image. For a georeferenced image they are longitudes and latitudes, as RFC 7946 requires, or with
    ``options.projected`` coordinates in the image's own system, which the member ``crs`` of GeoJSON 2008
    names.
    """
    with path.open("w", encoding="utf-8") as file:
        _write_features(file, stream, output)


def write_packed_geojson(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes the same as `write_geojson`, compressed with gzip."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        TextIOWrapper(packed, "utf-8") as text,
    ):
        _write_features(text, stream, output)


def _write_features(file: TextIO, stream: ScoreStream, output: OutputSpec) -> None:
    place, head = _placed(stream.info, projected=output.options.projected)
    wraps = place_of(stream.info) is not None and "crs" not in head  # in longitudes
    cells = CellPolygons.of(stream, output)
    head = {"type": "FeatureCollection", **head, "provenance": provenance(stream)}
    file.write(json.dumps(head)[:-1] + ', "features": [')
    comma = "\n"
    for row, cols in cells.rows():
        rings = place(squares(stream.info.grid, row, cols))
        for col, ring in zip(cols.tolist(), rings.tolist(), strict=True):
            rings_of_it = _cut(ring) if wraps else [ring]
            file.write(comma + json.dumps(_feature(cells, row, col, rings_of_it)))
            comma = ",\n"
    file.write("\n]}\n")


def _cut(ring: list[list[float]]) -> list[list[list[float]]]:
    """Splits a ring in longitudes where it crosses 180°, as section 3.1.9 of RFC 7946 requires. Returns one
    or two rings.

    Args:
        ring: A ring from `_to_lonlat`, with longitudes beyond 180 where it crosses.
    """
    if max(x for x, _ in ring) <= 180:
        return [ring]
    points = ring[:-1]
    halves = []
    for sign, shift in ((1, 0), (-1, 360)):
        half = []
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            before, after = sign * (180 - x0), sign * (180 - x1)
            if before >= 0:
                half.append([round(x0 - shift, _DIGITS), y0])
            if before * after < 0:
                there = before / (before - after)
                half.append([180.0 - shift, round(y0 + there * (y1 - y0), _DIGITS)])
        if len(half) >= 3:
            halves.append([*half, half[0]])
    return halves


def _feature(cells: CellPolygons, row: int, col: int, rings: list[list[list[float]]]) -> dict[str, object]:
    ranking = cells.ranking(row, col)
    name, probability = max(ranking, key=lambda entry: entry[1])
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings}
        if len(rings) == 1
        else {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]},
        "properties": {
            "objectType": "tile",
            "classification": {"name": name},
            "measurements": dict(ranking),
            "category": name,
            "probability": probability,
            "row": row,
            "col": col,
            "exact": bool(cells.kept.exact[row, col]),
            "window": cells.kept.info.grid.box(row, col),
        },
    }


def write_gpkg(path: Path, stream: ScoreStream, output: OutputSpec) -> None:
    """Writes a GeoPackage with one layer, ``cells``: the cells and squares of `write_geojson`.

    The columns are one ``prob_NAME`` per class, or ``category_2``, ``probability_2`` and so on for the best
    of many classes. Coordinates are in the image's own system. For an image that is not georeferenced they
    are pixels, x to the right and y downwards (negative), as in a ``.tif``.
    """
    from pyogrio.errors import DataSourceError
    from pyogrio.raw import write

    info = stream.info
    place = place_of(info)
    cells = CellPolygons.of(stream, output)
    found = [(row, cols) for row, cols in cells.rows()]
    rings = [(place or IN_PIXELS).place_all(squares(info.grid, row, cols)) for row, cols in found]
    geometry = _well_known(np.concatenate(rings) if rings else np.empty((0, 5, 2)))
    at = [np.full(len(cols), row) for row, cols in found], [cols for _, cols in found]
    rows, cols = (np.concatenate([np.empty(0, np.intp), *each]) for each in at)
    columns = cells.columns(rows, cols)
    record = {f"fcnconv_{name}": str(value) for name, value in provenance(stream).items()}
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder, without_a_map():
        made = Path(folder, "cells.gpkg")  # GDAL complains about a file without this suffix
        try:
            write(
                made,
                geometry,
                list(columns.values()),
                list(columns),
                layer="cells",
                driver="GPKG",
                geometry_type="Polygon",
                crs=place.system if place is not None else None,
                layer_metadata=record,
            )
        except DataSourceError as error:
            raise OutputError(f"GDAL cannot write the GeoPackage ({first_line(error)})") from error
        made.replace(path)


@contextmanager
def without_a_map() -> Iterator[None]:
    """Suppresses the warning about a missing coordinate system, for images that are not georeferenced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        yield


def _well_known(rings: Corners) -> npt.NDArray[np.object_]:
    """Returns the polygons as OGC's well-known binary, little-endian: one ring of five points each."""
    row = np.dtype(
        [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))]
    )
    packed = np.empty(len(rings), row)
    packed["order"], packed["kind"], packed["rings"], packed["points"] = 1, 3, 1, 5
    packed["ring"] = rings
    return np.array([*(entry.tobytes() for entry in packed), None], object)[:-1]


@dataclass(frozen=True)
class CellPolygons:
    """The cells that a file lists.

    Attributes:
        names: The names of the classes that each cell lists, or else the names that `Kept.class_idx` indexes.
        at_least: The lowest probability of the best class of a listed cell.
    """

    kept: Kept
    names: tuple[str, ...]
    at_least: float

    @classmethod
    def of(cls, stream: ScoreStream, output: OutputSpec) -> CellPolygons:
        """Reads a map and returns its cells."""
        selections, labels = output.selections, stream.info.labels
        if not selections and len(labels) <= ALL_CLASSES:
            selections = labels.all_categories()
        kept = keep(stream, selections, output.options.top_k)
        names = _distinct([selection.name for selection in selections] or labels.categories)
        return cls(kept, names, output.options.at_least or 0.0)

    def rows(self) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yields each row with the columns of its listed cells. Cells outside the region of interest are NaN
        and are not listed.
        """
        for row, probability in enumerate(self.kept.probability):
            yield row, np.flatnonzero(probability.max(-1) >= self.at_least)
            written(row + 1, of=len(self.kept.probability))

    def ranking(self, row: int, col: int) -> list[tuple[str, float]]:
        """Returns the names and probabilities of a cell's classes."""
        probabilities = self.kept.probability[row, col]
        chosen = range(len(self.names)) if self.kept.class_idx is None else self.kept.class_idx[row, col]
        return [(self.names[i], round(float(p), 6)) for i, p in zip(chosen, probabilities, strict=True)]

    def columns(self, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """Returns the listed cells as a table: a name and an array (n,) for each column."""
        kept, names = self.kept, np.array(self.names, object)
        probability = kept.probability[rows, cols]
        each = np.arange(len(rows))
        best = probability.argmax(-1) if len(rows) else each
        class_idx = None if kept.class_idx is None else kept.class_idx[rows, cols]
        table: dict[str, npt.NDArray[Any]] = {
            "category": names[best if class_idx is None else class_idx[each, best]],
            "probability": probability[each, best],
            "row": rows.astype(np.int32),
            "col": cols.astype(np.int32),
            "exact": kept.exact[rows, cols],
        }
        for rank in range(probability.shape[1]):
            if class_idx is None:
                table[f"prob_{self.names[rank]}"] = probability[:, rank]
            elif rank:
                table[f"category_{rank + 1}"] = names[class_idx[:, rank]]
                table[f"probability_{rank + 1}"] = probability[:, rank]
        return table


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, with a number appended to repeated ones. They serve as keys, and as column names,
    which ignore case.
    """
    times = Counter(name.casefold() for name in names)
    return tuple(f"{name} {i}" if times[name.casefold()] > 1 else name for i, name in enumerate(names))


def squares(grid: Grid, row: int, cols: npt.NDArray[np.intp]) -> Corners:
    """Returns the squares around the centres of some windows of a row, in pixels of the image: (n, 5, 2),
    from the top left corner to the top right corner.
    """
    edges = np.array([grid.square(row, col) for col in cols.tolist()], np.float64).reshape(-1, 4)
    return edges[:, [[0, 1], [2, 1], [2, 3], [0, 3], [0, 1]]]


def _placed(info: MapInfo, *, projected: bool) -> tuple[Callable[[Corners], Corners], dict[str, object]]:
    """Returns a function that converts squares from pixels to the coordinates of a GeoJSON, and the members
    that name these coordinates.

    Raises:
        UsageError: ``projected`` is requested and the image is not georeferenced.
        OutputError: A package is missing.
    """
    place = place_of(info)
    if place is None:
        if projected:
            raise UsageError(
                "--projected writes map coordinates, and the image is not georeferenced; leave it "
                "out: they are pixels"
            )
        return lambda corners: np.round(corners, 3), {}
    if place.system is None:
        log.warning("the image's file does not name its coordinate system: name it where you open the map")
    if projected or place.system is None:
        crs = {"type": "name", "properties": {"name": crs_name(place)}}
        return lambda corners: _risen(place.place_all(corners)), {"crs": crs} if place.system else {}
    try:
        return _to_lonlat(place), {}
    except ImageError as error:
        log.warning("%s; the map is in the image's own coordinates, named in its crs member", error)
        crs = {"type": "name", "properties": {"name": crs_name(place)}}
        return lambda corners: _risen(place.place_all(corners)), {"crs": crs}


def _to_lonlat(place: GeoReference) -> Callable[[Corners], Corners]:
    """Returns a function that converts squares from pixels to longitudes and latitudes."""

    def lonlat(corners: Corners) -> Corners:
        points = place.place_all(corners).reshape(-1, 2)
        there = transformed(points, str(place.system), LONGITUDES)
        rings = there.reshape(corners.shape)
        across = np.ptp(rings[:, :, 0], axis=1) > 180
        rings[across, :, 0] %= 360
        return _risen(np.round(rings, _DIGITS))

    lonlat(np.zeros((1, 5, 2)))  # reports a missing package before anything is computed
    return lonlat


def _risen(rings: Corners) -> Corners:
    """Returns the rings counterclockwise, for y upwards, as RFC 7946 requires."""
    (x, y), (after_x, after_y) = rings[:, :-1].transpose(2, 0, 1), rings[:, 1:].transpose(2, 0, 1)
    turned = (x * after_y - after_x * y).sum(-1) < 0
    return np.where(turned[:, None, None], rings[:, ::-1], rings)


def crs_name(place: GeoReference) -> str | None:
    """Returns the name of a coordinate system. Of the two axis orders of WGS 84, GeoJSON uses longitude
    first.
    """
    if place.epsg is None:
        return place.system
    if place.system == LONGITUDES:
        return "urn:ogc:def:crs:OGC:1.3:CRS84"
    return f"urn:ogc:def:crs:EPSG::{place.epsg}"
