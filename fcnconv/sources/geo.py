"""Where an image lies on the map, as GeoTIFF says it (OGC GeoTIFF Standard 1.1, 2019)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError

PIXEL_SCALE, TIE_POINTS, TRANSFORMATION = 33550, 33922, 34264
"""The tags for the place of pixels."""

KEYS, NUMBERS, TEXTS = 34735, 34736, 34737
"""The tags that name the coordinate system: the directory of its keys, and their numbers and texts."""

TAGS = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, KEYS, NUMBERS, TEXTS)

_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_AREA, _POINT, _USER_DEFINED = 1, 2, 32767

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the corner (x, y) of pixels lies at (a·x + b·y + c, d·x + e·y + f)."""


@dataclass(frozen=True)
class GeoReference:
    """Where an image lies on the map.

    transform: from the image's pixels to the map. tags: those that name the coordinate system, number ->
    value, as they are written. text: the system in words, as well-known text, where it has no number.
    """

    transform: Affine
    tags: Mapping[int, Any]
    text: str = ""

    @property
    def keys(self) -> dict[int, int]:
        """The keys of GeoTIFF that name the coordinate system: number -> value."""
        return _directory(self.tags.get(KEYS, ()))

    @property
    def epsg(self) -> int | None:
        """The coordinate system's number in EPSG's list, if it is in it."""
        keys = self.keys
        code = keys.get(_PROJECTED) or keys.get(_GEOGRAPHIC)
        return None if code in (None, _USER_DEFINED) else code

    @property
    def system(self) -> str | None:
        """The coordinate system as PROJ reads it; None if it is not known."""
        return (f"EPSG:{self.epsg}" if self.epsg else self.text) or None

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The map's coordinates of a point of the image, in pixels."""
        a, b, c, d, e, f = self.transform
        return a * x + b * y + c, d * x + e * y + f

    def place_all(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The same of many: (…, 2), x and y."""
        a, b, c, d, e, f = self.transform
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def of_part(self, x: float, y: float, wide: float, high: float) -> GeoReference:
        """The place of a raster whose first pixel covers `wide` × `high` of this one's from (x, y) on."""
        a, b, _, d, e, _ = self.transform
        c, f = self.place(x, y)
        return replace(self, transform=(a * wide, b * high, c, d * wide, e * high, f))


IN_PIXELS = GeoReference((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), {})
"""The place of an image that has none. On a map y grows upwards."""

LONGITUDES = "EPSG:4326"
"""Longitudes and latitudes, as GPS tells them. RFC 7946 knows no other coordinates."""


def transformed(points: npt.NDArray[np.float64], theirs: str, own: str) -> npt.NDArray[np.float64]:
    """Points (n, 2) of one coordinate system in another. theirs, own: as PROJ reads them; x goes before y.

    Raises ImageError where rasterio is needed and is not there.
    """
    if theirs == own:
        return points
    try:
        from rasterio.warp import transform
    except ImportError as error:
        raise ImageError(
            f"from the coordinates of {_short(theirs)} to those of {_short(own)} goes rasterio: "
            "pip install 'fcnconv[geo]'"
        ) from error
    return np.stack(transform(theirs, own, points[:, 0], points[:, 1]), axis=1)


def _short(system: str) -> str:
    """The name of a coordinate system, where it is a long text."""
    named = re.match(r'\w+\["([^"]+)"', system)
    return named[1] if named else system


def read_georeference(tags: Mapping[int, Any]) -> GeoReference | None:
    """The place that a TIFF's tags, number -> value, tell; None if they tell none, or only by points on the
    ground.
    """
    if TRANSFORMATION in tags:
        m = tags[TRANSFORMATION]
        a, b, c, d, e, f = m[0], m[1], m[3], m[4], m[5], m[7]
    elif PIXEL_SCALE in tags and len(tags.get(TIE_POINTS, ())) == 6:
        (a, down), (i, j, _, x, y) = tags[PIXEL_SCALE][:2], tags[TIE_POINTS][:5]
        b, d, e = 0.0, 0.0, -down
        c, f = x - i * a, y + j * down
    else:
        return None
    keys = list(tags.get(KEYS, ()))
    if _directory(keys).get(_RASTER_TYPE) == _POINT:  # what was told are the centres of pixels
        c, f = c - (a + b) / 2, f - (d + e) / 2
        keys = [_AREA if i % 4 == 3 and keys[i - 3] == _RASTER_TYPE else key for i, key in enumerate(keys)]
    named = {number: tags[number] for number in (NUMBERS, TEXTS) if number in tags}
    return GeoReference((a, b, c, d, e, f), {KEYS: tuple(keys), **named} if keys else {})


def named_by_gdal(place: GeoReference, path: Path) -> GeoReference:
    """The place with its coordinate system in words, for one without a number; unchanged without rasterio."""
    try:
        import rasterio
    except ImportError:
        return place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it lies nowhere
        try:
            with rasterio.open(path) as file:
                return replace(place, text=file.crs.to_wkt() if file.crs else "")
        except rasterio.errors.RasterioError:
            return place


def read_world_file(path: Path) -> GeoReference | None:
    """The place that a world file beside an image tells, six numbers in as many lines: ``.tfw``, ``.jgw``, …
    or ``.wld``. The coordinate system is that of a ``.prj`` beside them, if there is one.
    """
    suffix = path.suffix
    ends = (f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld") if suffix else (".wld",)
    names = [path.with_suffix(case(end)) for end in ends for case in (str.lower, str.upper)]
    found = next((name for name in names if name.is_file()), None)
    if found is None:
        return None
    try:
        a, d, b, e, x, y = map(float, found.read_text(encoding="ascii").split())
    except ValueError as error:
        raise ImageError(
            f"{found}: no world file, which has six numbers; move it away, or mend it"
        ) from error
    projection = path.with_suffix(".prj")
    text = projection.read_text(encoding="utf-8", errors="replace").strip() if projection.is_file() else ""
    return GeoReference((a, b, x - (a + b) / 2, d, e, y - (d + e) / 2), {}, text)


def tiff_tags(place: GeoReference) -> list[tuple[int, str, int, Any, bool]]:
    """The tags of a TIFF that lies at a place, as tifffile takes them: number, type, count, value, once."""
    a, b, c, d, e, f = place.transform
    if b == d == 0 and a > 0 > e:
        tags: list[tuple[int, str, int, Any, bool]] = [
            (PIXEL_SCALE, "d", 3, (a, -e, 0.0), True),
            (TIE_POINTS, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0), True),
        ]
    else:
        matrix = (a, b, 0.0, c, d, e, 0.0, f, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
        tags = [(TRANSFORMATION, "d", 16, matrix, True)]
    kinds = {KEYS: "H", NUMBERS: "d", TEXTS: "s"}
    for number, value in place.tags.items():
        values = (value,) if isinstance(value, float) else value
        tags.append((number, kinds[number], 0 if number == TEXTS else len(values), values, True))
    return tags


def _directory(keys: Any) -> dict[int, int]:
    """The keys whose values stand in the directory itself: number -> value. Each entry has four numbers."""
    entries = [keys[i : i + 4] for i in range(4, len(keys) - 3, 4)]
    return {number: value for number, tag, _, value in entries if tag == 0}
