"""Regions that were drawn in other programs, as GeoJSON has them: polygons, of features or alone."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.errors import ImageError
from fcnconv.sources.georeference import LONGITUDES, GeoReference, transformed
from fcnconv.system.records import parse_json
from fcnconv.where.areas import Points, Rings

MOST_BYTES = 1_000_000_000
"""Of a file, unpacked. It is read whole."""

_NO_GEOJSON = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError),
    *(EOFError, zlib.error, gzip.BadGzipFile),
)
"""What reading one raises where it is none, or damaged."""


def read_polygons(path: Path) -> tuple[list[Rings], str | None]:
    """The polygons of a file, in its own coordinates, and the name of these where it tells one.

    Raises ImageError for what is no GeoJSON, or has no polygon.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ImageError(f"{path}: over {MOST_BYTES / 1e9:.0f} GB of GeoJSON; simplify the polygons")
        record = parse_json(content.decode("utf-8-sig"))
        found = [_rings(polygon) for polygon in _polygons(record)]
        crs = record.get("crs", {}) if isinstance(record, dict) else {}
        name = crs.get("properties", {}).get("name") if isinstance(crs, dict) else None
    except _NO_GEOJSON as error:
        raise ImageError(f"{path}: no GeoJSON of polygons: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened: {error.strerror or error}") from error
    if not found:
        raise ImageError(f"{path}: has no polygon; points and lines are no regions")
    return found, name if isinstance(name, str) else None


def _polygons(record: Any) -> Iterator[Any]:
    """The coordinates of each polygon. QuPath writes a plain list of features too."""
    if isinstance(record, list):
        for part in record:
            yield from _polygons(part)
        return
    kind = record["type"]
    if kind in ("FeatureCollection", "GeometryCollection"):
        yield from _polygons(record["features" if kind == "FeatureCollection" else "geometries"])
    elif kind == "Feature":
        if record["geometry"] is not None:
            yield from _polygons(record["geometry"])
    elif kind == "Polygon":
        yield record["coordinates"]
    elif kind == "MultiPolygon":
        yield from record["coordinates"]


def _rings(polygon: Any) -> Rings:
    rings = [np.array([point[:2] for point in ring], np.float64) for ring in polygon]
    if not rings or any(ring.ndim != 2 or len(ring) < 3 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError("a ring of fewer than three points")
    return rings


def to_pixels(ring: Points, place: GeoReference, system: str | None) -> Points:
    """Points of a map, float64 (n, 2), in pixels of an image that lies at `place`.

    system: the name of their coordinates' system; None are longitudes and latitudes, or of an image whose
        own system is not told, that. Raises ImageError where rasterio is needed and is not there.
    """
    if place.system is not None:
        number = re.search(r"EPSG:.*?(\d+)$", system or "")
        ring = transformed(ring, f"EPSG:{number[1]}" if number else LONGITUDES, place.system)
    return place.pixels_of(ring)
