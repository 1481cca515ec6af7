"""Reads polygons that were drawn in other programs: GeoJSON; with pyogrio also GeoPackage, shapefiles and
others.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.errors import ImageError, first_line
from fcnconv.images.georeference import LONGITUDES, GeoReference, short_name, transformed
from fcnconv.images.pillow import silence
from fcnconv.scan.roi.areas import Points, Rings
from fcnconv.system.records import parse_json

MOST_BYTES = 1_000_000_000
"""The maximum size of a file after unpacking. It is read whole."""

_NO_GEOJSON = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError),
    *(EOFError, zlib.error, gzip.BadGzipFile),
)
"""The exceptions that reading raises if a file is not GeoJSON, or is damaged."""

_GEOJSON = (".geojson", ".json", ".geojson.gz", ".json.gz")
_BY_OGR = (".gpkg", ".shp", ".fgb", ".kml", ".gml", ".shz", ".sqlite", ".parquet")
"""Suffixes of the vector files that pyogrio reads."""

IGNORED = "Ignore*"
"""The classification of QuPath's annotations that are excluded from all others."""


@dataclass
class Drawn:
    """Polygons in the coordinates of their file.

    Attributes:
        shapes: the polygons to scan.
        ignored: the polygons to exclude.
        system: the coordinate system as the file names it; None if the file does not name one.
    """

    shapes: list[Rings] = field(default_factory=list)
    ignored: list[Rings] = field(default_factory=list)
    system: str | None = None


def is_vector(path: Path) -> bool:
    """Whether a file contains polygons, by its name or by its first bytes. Other files are images."""
    if path.name.lower().endswith((*_GEOJSON, *_BY_OGR)):
        return True
    try:
        with path.open("rb") as file:
            return file.read(16).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"{", b"[")
    except OSError:
        return False


def read_polygons(path: Path) -> Drawn:
    """Reads the polygons of a file.

    Raises:
        ImageError: if the file cannot be read as polygons, or has no polygon.
    """
    if path.suffix.lower() in _BY_OGR:
        drawn = _by_ogr(path)
    else:
        drawn = _by_json(path)
    if not (drawn.shapes or drawn.ignored):
        raise ImageError(f"{path}: has no polygon; points and lines do not enclose a region")
    return drawn


def _by_json(path: Path) -> Drawn:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ImageError(f"{path}: over {MOST_BYTES / 1e9:.0f} GB of GeoJSON; simplify the polygons")
        record = parse_json(content.decode("utf-8-sig"))
        drawn = Drawn(system=_named(record.get("crs") if isinstance(record, dict) else None, path))
        for polygon, ignored in _polygons(record, False):
            rings = _rings(polygon)
            if rings:
                (drawn.ignored if ignored else drawn.shapes).append(rings)
    except _NO_GEOJSON as error:
        raise ImageError(f"{path}: cannot be read as GeoJSON polygons: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened: {error.strerror or error}") from error
    return drawn


def _named(crs: Any, path: Path) -> str | None:
    """The coordinate system in the member ``crs`` of GeoJSON 2008, in any of the forms in use."""
    if crs is None:
        return None
    properties = crs.get("properties", {}) if isinstance(crs, dict) else {}
    name = crs if isinstance(crs, str) else properties.get("name", properties.get("code"))
    if isinstance(crs, dict) and name is None:
        name = json.dumps(crs) if str(crs.get("type")).endswith("CRS") else None  # PROJ's own JSON
    if isinstance(name, int) and not isinstance(name, bool):
        name = f"EPSG:{name}"
    if not isinstance(name, str) or not name.strip():
        raise ImageError(
            f"{path}: its crs member is not in a known form ({json.dumps(crs)[:80]}); write it as "
            '{"type": "name", "properties": {"name": "EPSG:25832"}}'
        )
    return f"EPSG:{name}" if name.strip().isdigit() else name.strip()


def _polygons(record: Any, ignored: bool) -> Iterator[tuple[Any, bool]]:
    """Yields the coordinates of each polygon, and whether to ignore it. QuPath also writes a bare list."""
    if isinstance(record, list):
        for part in record:
            yield from _polygons(part, ignored)
        return
    kind = record["type"]
    if kind in ("FeatureCollection", "GeometryCollection"):
        yield from _polygons(record["features" if kind == "FeatureCollection" else "geometries"], ignored)
    elif kind == "Feature":
        if record["geometry"] is not None:
            yield from _polygons(record["geometry"], _is_ignored(record.get("properties")))
    elif kind == "Polygon":
        yield record["coordinates"], ignored
    elif kind == "MultiPolygon":
        for polygon in record["coordinates"]:
            yield polygon, ignored


def _is_ignored(properties: Any) -> bool:
    classification = properties.get("classification") if isinstance(properties, dict) else None
    return (classification.get("name") if isinstance(classification, dict) else classification) == IGNORED


def _rings(polygon: Any) -> Rings:
    """The rings of a polygon; an empty list for an empty polygon.

    Raises:
        ValueError: for a ring of fewer than three points.
    """
    rings = [np.array([point[:2] for point in ring], np.float64) for ring in polygon if ring]
    if any(ring.ndim != 2 or len(ring) < 3 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError("a ring of fewer than three points")
    return rings if polygon and polygon[0] else []


def _by_ogr(path: Path) -> Drawn:
    """Reads the polygons of the first layer of a file with GDAL."""
    try:
        import shapely
        from pyogrio.raw import read
    except ImportError as error:
        raise ImageError(f"{path}: reading it needs pyogrio: pip install 'fcnconv[geo]'") from error
    try:
        with silence:
            meta, _, geometries, _ = read(path, columns=[])
        parts = shapely.get_parts(shapely.from_wkb([one for one in geometries if one is not None]))
    except Exception as error:  # the errors of pyogrio, GDAL and GEOS share no class
        raise ImageError(f"{path}: GDAL cannot read polygons from it: {first_line(error)}") from error
    drawn = Drawn(system=meta.get("crs"))
    for part in parts:
        for polygon in shapely.get_parts(part) if part.geom_type == "GeometryCollection" else [part]:
            if polygon.geom_type == "Polygon" and not polygon.is_empty:
                rings = [polygon.exterior, *polygon.interiors]
                drawn.shapes.append([np.asarray(ring.coords)[:, :2] for ring in rings])
    return drawn


def to_pixels(
    ring: Points, place: GeoReference, system: str | None, path: Path, size: tuple[int, int]
) -> Points:
    """Converts points from map coordinates to pixels of an image.

    Args:
        ring: float64 (n, 2), the points.
        place: the georeference of the image.
        system: the points' coordinate system. None means longitudes and latitudes, or the image's own system
            if that has no name.
        path: the file of the points, for messages.
        size: (width, height) of the image.

    Raises:
        ImageError: for coordinates that cannot be converted.
    """
    if place.system is None:
        return place.pixels_of(ring)
    outside = (np.abs(ring) > (_MOST_LONGITUDE, 90)).any(1)
    if system is None and outside.any():
        x, y = ring[outside][0]
        raise ImageError(
            f"{path}: {x:.6g},{y:.6g} is not longitude,latitude, and the file names no coordinate system; "
            f'add a "crs" member, as {{"type": "name", "properties": {{"name": "{_example(place)}"}}}}'
        )
    there = transformed(ring, _known(system or LONGITUDES, path), place.system)
    if not np.isfinite(there).all():
        raise ImageError(
            f"{path}: some coordinates cannot be converted to {short_name(place.system)}, the image's system"
        )
    if _is_geographic(place.system):  # an image across 180° goes on beyond it, and GeoJSON does not
        centre = place.place(size[0] / 2, size[1] / 2)[0]
        there = there + np.array([360 * round((centre - float(there[:, 0].mean())) / 360), 0])
    return place.pixels_of(there)


_MOST_LONGITUDE = 360
"""The largest longitude that is accepted, in degrees: some files continue beyond 180."""


def _example(place: GeoReference) -> str:
    return place.system if place.epsg and place.system else "EPSG:25832"


def _known(system: str, path: Path) -> str:
    """A coordinate system in a form that PROJ reads.

    Raises:
        ImageError: if PROJ does not know it.
    """
    if re.match(r"(?i)https?://(?!www\.opengis\.net/)", system):
        raise ImageError(
            f"{path}: its coordinate system is an address ({system}); write its name, such as EPSG:25832"
        )
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
    except ImportError:
        return system  # `transformed` says what is missing
    number = re.fullmatch(
        r"(?i)(?:urn:ogc:def:crs:|https?://www\.opengis\.net/def/crs/)EPSG[:/].*?[:/](\d+)", system
    )
    if number or re.search(r"(?i)\bCRS:?84\b", system):
        return f"EPSG:{number[1]}" if number else LONGITUDES
    try:
        CRS.from_user_input(system)
    except CRSError as error:
        raise ImageError(f"{path}: PROJ does not know its coordinate system {system[:80]!r}") from error
    return system


def _is_geographic(system: str) -> bool:
    from rasterio.crs import CRS

    return bool(CRS.from_user_input(system).is_geographic)
