"""Regions as polygons in image or map coordinates: GeoJSON, for QuPath and GIS, and GeoPackage."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely import Polygon
from shapely.geometry import mapping, polygon

from fcnconv.errors import OutputError, UsageError, first_line
from fcnconv.images.georeference import IN_PIXELS, LONGITUDES, GeoReference, transformed
from fcnconv.labels import Labels
from fcnconv.scores.regions import Located
from fcnconv.writers.output_spec import OutputSpec
from fcnconv.writers.polygons import crs_name, without_a_map

Points = npt.NDArray[np.float64]

_PIXEL_DIGITS, _DEGREE_DIGITS = 2, 8
"""Decimal places of coordinates: a hundredth of a pixel, and about a millimetre in degrees."""


def write_region_geojson(path: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes one feature per region: its outline with holes, and class, probability, mean, area, box and
    image as properties. It is also a QuPath annotation, with ``classification`` and ``measurements``.

    Coordinates are pixels of the image. For a georeferenced image they are longitudes and latitudes, as RFC
    7946 requires, or with ``options.projected`` coordinates in the image's own system, which the member
    ``crs`` of GeoJSON 2008 names.

    Raises:
        UsageError: The images have no common coordinate system.
    """
    placed = _InOneSystem(projected=output.options.projected)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        comma = "\n"
        for located in found:
            place = placed.coordinates(located)
            for region in located.record()["regions"]:
                outline = place(Polygon(region["polygon"][0], region["polygon"][1:]))
                file.write(comma + json.dumps(_feature(located, region, outline)))
                comma = ",\n"
        crs = f', "crs": {json.dumps(placed.crs)}' if placed.crs else ""
        file.write(f"\n]{crs}}}\n")


def _feature(located: Located, region: dict[str, Any], outline: Polygon) -> dict[str, Any]:
    measured = {name: region[name] for name in ("probability", "mean", "area")}
    named = {name: region[name] for name in ("category", "class_idx", "wnid")}
    return {
        "type": "Feature",
        "geometry": mapping(outline),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": region["category"]},
            "measurements": measured,
            **named,
            **measured,
            "box": region["box"],
            "peak": region["peak"],
            "image": located.name,
        },
    }


class _InOneSystem:
    """Converts the outlines of several images to the coordinates of one file.

    Attributes:
        crs: The member that names the coordinate system, once an image has provided it.
    """

    def __init__(self, *, projected: bool):
        self.projected = projected
        self.crs: dict[str, Any] | None = None
        self._first: tuple[str, object] | None = None

    def coordinates(self, located: Located) -> Callable[[Polygon], Polygon]:
        """Returns a function that converts outlines from pixels of an image to the file's coordinates."""
        place = located.georeference
        if place is None:
            if self.projected:
                raise UsageError(
                    f"{located.name}: --projected writes map coordinates, and this image is not "
                    "georeferenced; leave it out to write pixels"
                )
            self._agree(located, located.name)  # pixel coordinates of two images have no common system
            return lambda outline: shapely.transform(outline, _rounded_pixels)
        if self.projected or place.system is None:
            self._agree(located, place.system or located.name)
            if place.system:
                self.crs = {"type": "name", "properties": {"name": crs_name(place)}}
            return lambda outline: polygon.orient(shapely.transform(outline, place.place_all), 1.0)
        self._agree(located, LONGITUDES)
        return lambda outline: polygon.orient(shapely.transform(outline, _to_degrees(place)), 1.0)

    def _agree(self, located: Located, system: object) -> None:
        if self._first is None:
            self._first = (located.name, system)
        elif self._first[1] != system:
            raise UsageError(
                f"{self._first[0]} and {located.name} have no common coordinates, so that one file cannot "
                "hold the regions of both; write a file for each, or -f coco"
            )


def _rounded_pixels(points: Points) -> Points:
    return np.round(points, _PIXEL_DIGITS)


def _to_degrees(place: GeoReference) -> Callable[[Points], Points]:
    """Returns a function that converts pixels to longitudes and latitudes. Raises ImageError if a package is
    missing.
    """

    def degrees(points: Points) -> Points:
        there = transformed(place.place_all(points), str(place.system), LONGITUDES)
        return np.round(there, _DEGREE_DIGITS)

    return degrees


def write_region_gpkg(path: Path, found: Iterable[Located], labels: Labels, output: OutputSpec) -> None:
    """Writes a GeoPackage with one layer, ``regions``, in the image's own coordinate system.

    The layer contains the outlines with holes and the columns category, probability, mean, area_px (square
    pixels) and image. For an image that is not georeferenced, x runs to the right and y downwards (negative),
    as in a ``.gpkg`` of a heatmap.
    """
    from pyogrio.errors import DataSourceError
    from pyogrio.raw import write

    rows, outlines = [], []
    systems: dict[str, Located] = {}
    for located in found:
        place = located.georeference
        key = place.system if place is not None and place.system else located.name
        systems.setdefault(key, located)
        if len(systems) > 1:
            one, other = (each.name for each in systems.values())
            raise UsageError(
                f"{one} and {other} have no common coordinate system, so that one GeoPackage cannot hold the "
                "regions of both; write a file for each, or a .geojson"
            )
        for region in located.regions:
            outlines.append(shapely.transform(region.polygon, (place or IN_PIXELS).place_all))
            rows.append((region.category, region.probability, region.mean, region.area, located.name))
    system = next((located.georeference.system for located in systems.values() if located.georeference), None)
    columns = {
        name: np.array([row[i] for row in rows], object if name in ("category", "image") else np.float64)
        for i, name in enumerate(("category", "probability", "mean", "area_px", "image"))
    }
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder, without_a_map():
        made = Path(folder, "regions.gpkg")  # GDAL complains about other suffixes
        try:
            write(
                made,
                np.array([*shapely.to_wkb(outlines), None], object)[:-1],
                list(columns.values()),
                list(columns),
                layer="regions",
                driver="GPKG",
                geometry_type="Polygon",
                crs=system,
            )
        except DataSourceError as error:
            raise OutputError(f"GDAL cannot write the GeoPackage ({first_line(error)})") from error
        made.replace(path)
