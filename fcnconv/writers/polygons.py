"""Formats that hold the cells as polygons on the image or on the map: GeoJSON, for QuPath and GIS, and
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
from fcnconv.writers.output_spec import Choice, Kept, keep, place_of, provenance

log = logging.getLogger("fcnconv")

ALL_CLASSES = 64
"""Classes of a network up to which each is told of every cell; of more the best, unless some are chosen."""

_DIGITS = 8
"""Of longitudes and latitudes: a millimetre."""

Corners = npt.NDArray[np.float64]
"""(n, 5, 2): closed rings of n squares, x and y."""


def write_geojson(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """A feature for each cell that was looked at: the square around its window's centre, classified by its
    most probable class, with the probability of each class as a measurement: of the chosen ones, of all of a
    network of few (`ALL_CLASSES`), or of the best. ``options.at_least`` leaves out cells whose best class is
    below it.

    The layout is that of QuPath's objects, which its extension WSInfer makes too. In pixels of the image; of
    one that lies on the map in longitudes and latitudes, as RFC 7946 asks, or with ``options.projected`` in
    the image's own system, named in the member ``crs`` of GeoJSON 2008.
    """
    with path.open("w", encoding="utf-8") as file:
        _write_features(file, stream, choice)


def write_packed_geojson(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """The same, compressed by gzip."""
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        TextIOWrapper(packed, "utf-8") as text,
    ):
        _write_features(text, stream, choice)


def _write_features(file: TextIO, stream: ScoreStream, choice: Choice) -> None:
    place, head = _placed(stream.about, projected=choice.options.projected)
    wraps = place_of(stream.about) is not None and "crs" not in head  # in longitudes
    cells = CellPolygons.of(stream, choice)
    head = {"type": "FeatureCollection", **head, "provenance": provenance(stream)}
    file.write(json.dumps(head)[:-1] + ', "features": [')
    comma = "\n"
    for row, cols in cells.rows():
        rings = place(squares(stream.about.grid, row, cols))
        for col, ring in zip(cols.tolist(), rings.tolist(), strict=True):
            rings_of_it = _cut(ring) if wraps else [ring]
            file.write(comma + json.dumps(_feature(cells, row, col, rings_of_it)))
            comma = ",\n"
    file.write("\n]}\n")


def _cut(ring: list[list[float]]) -> list[list[list[float]]]:
    """A ring in longitudes as one or two, none of which crosses 180°, as section 3.1.9 of RFC 7946 asks.

    ring: as `_to_lonlat` makes it, beyond 180 where it crosses.
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
            "window": cells.kept.about.grid.box(row, col),
        },
    }


def write_gpkg(path: Path, stream: ScoreStream, choice: Choice) -> None:
    """A GeoPackage of one layer, ``cells``: the same cells and squares with a column ``prob_NAME`` for each
    class, or ``category_2``, ``probability_2`` and so on for the best of many; in the image's own system on
    the map. Of an image that has none in its pixels, x to the right and y downwards (negative), as in a
    ``.tif``.
    """
    from pyogrio.errors import DataSourceError
    from pyogrio.raw import write

    about = stream.about
    place = place_of(about)
    cells = CellPolygons.of(stream, choice)
    found = [(row, cols) for row, cols in cells.rows()]
    rings = [(place or IN_PIXELS).place_all(squares(about.grid, row, cols)) for row, cols in found]
    geometry = _well_known(np.concatenate(rings) if rings else np.empty((0, 5, 2)))
    at = [np.full(len(cols), row) for row, cols in found], [cols for _, cols in found]
    rows, cols = (np.concatenate([np.empty(0, np.intp), *each]) for each in at)
    columns = cells.columns(rows, cols)
    record = {f"fcnconv_{name}": str(value) for name, value in provenance(stream).items()}
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder, without_a_map():
        made = Path(folder, "cells.gpkg")  # without its suffix GDAL complains
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
    """Keeps quiet about cells without a coordinate system, which are told of where that is unexpected."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        yield


def _well_known(rings: Corners) -> npt.NDArray[np.object_]:
    """The polygons as OGC's well-known binary, little-endian: one ring of five points each."""
    row = np.dtype(
        [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))]
    )
    packed = np.empty(len(rings), row)
    packed["order"], packed["kind"], packed["rings"], packed["points"] = 1, 3, 1, 5
    packed["ring"] = rings
    return np.array([*(entry.tobytes() for entry in packed), None], object)[:-1]


@dataclass(frozen=True)
class CellPolygons:
    """The cells that are listed.

    names: of the classes that are told of each, or else those that `Kept.class_idx` counts.
    at_least: the probability that the best of them has at least.
    """

    kept: Kept
    names: tuple[str, ...]
    at_least: float

    @classmethod
    def of(cls, stream: ScoreStream, choice: Choice) -> CellPolygons:
        """Those of a map. Reads it."""
        selections, labels = choice.selections, stream.about.labels
        if not selections and len(labels) <= ALL_CLASSES:
            selections = labels.all_categories()
        kept = keep(stream, selections, choice.options.top_k)
        names = _distinct([selection.name for selection in selections] or labels.categories)
        return cls(kept, names, choice.options.at_least or 0.0)

    def rows(self) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Each row with the columns of its listed cells; those that were not looked at are NaN."""
        for row, probability in enumerate(self.kept.probability):
            yield row, np.flatnonzero(probability.max(-1) >= self.at_least)
            written(row + 1, of=len(self.kept.probability))

    def ranking(self, row: int, col: int) -> list[tuple[str, float]]:
        """The names and probabilities of a cell's classes."""
        probabilities = self.kept.probability[row, col]
        chosen = range(len(self.names)) if self.kept.class_idx is None else self.kept.class_idx[row, col]
        return [(self.names[i], round(float(p), 6)) for i, p in zip(chosen, probabilities, strict=True)]

    def columns(self, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[Any]]:
        """The listed cells as a table: a name and an array (n,) for each column."""
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
    """The names, those that occur again with their number: they are keys, and columns, which know no case."""
    times = Counter(name.casefold() for name in names)
    return tuple(f"{name} {i}" if times[name.casefold()] > 1 else name for i, name in enumerate(names))


def squares(grid: Grid, row: int, cols: npt.NDArray[np.intp]) -> Corners:
    """The squares around the centres of some windows of a row, in pixels of the image: (n, 5, 2), from the
    left top corner to the right top one.
    """
    edges = np.array([grid.square(row, col) for col in cols.tolist()], np.float64).reshape(-1, 4)
    return edges[:, [[0, 1], [2, 1], [2, 3], [0, 3], [0, 1]]]


def _placed(about: MapInfo, *, projected: bool) -> tuple[Callable[[Corners], Corners], dict[str, object]]:
    """What brings squares from pixels to the coordinates of a GeoJSON, and the members that tell of these.

    Raises UsageError, and OutputError where a package is missing.
    """
    place = place_of(about)
    if place is None:
        if projected:
            raise UsageError(
                "--projected writes coordinates of the image's own map, and its file tells of none; leave it "
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
    """What brings squares from pixels to longitudes and latitudes."""

    def lonlat(corners: Corners) -> Corners:
        points = place.place_all(corners).reshape(-1, 2)
        there = transformed(points, str(place.system), LONGITUDES)
        rings = there.reshape(corners.shape)
        across = np.ptp(rings[:, :, 0], axis=1) > 180
        rings[across, :, 0] %= 360
        return _risen(np.round(rings, _DIGITS))

    lonlat(np.zeros((1, 5, 2)))  # tells of a missing package before anything is computed
    return lonlat


def _risen(rings: Corners) -> Corners:
    """The rings with their points counterclockwise where y grows upwards, as RFC 7946 asks."""
    (x, y), (after_x, after_y) = rings[:, :-1].transpose(2, 0, 1), rings[:, 1:].transpose(2, 0, 1)
    turned = (x * after_y - after_x * y).sum(-1) < 0
    return np.where(turned[:, None, None], rings[:, ::-1], rings)


def crs_name(place: GeoReference) -> str | None:
    """The name of a coordinate system. Of WGS 84's two orders of axes GeoJSON's is longitude first."""
    if place.epsg is None:
        return place.system
    if place.system == LONGITUDES:
        return "urn:ogc:def:crs:OGC:1.3:CRS84"
    return f"urn:ogc:def:crs:EPSG::{place.epsg}"
