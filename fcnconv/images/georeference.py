"""The georeference of an image: an affine transform and a coordinate system."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError

log = logging.getLogger("fcnconv")

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the corner (x, y) of pixels lies at (a·x + b·y + c, d·x + e·y + f)."""

LONGITUDES = "EPSG:4326"
"""Longitudes and latitudes in degrees on WGS 84, longitude first, the only coordinates of RFC 7946."""


@dataclass(frozen=True)
class GeoReference:
    """The georeference of an image.

    Attributes:
        transform: from the image's pixels to map coordinates.
        system: the coordinate system as PROJ reads it, ``EPSG:…`` or well-known text; None if the file does
            not name it.
    """

    transform: Affine
    system: str | None = None

    @property
    def epsg(self) -> int | None:
        """The coordinate system's number in the EPSG registry, if it has one."""
        number = re.fullmatch(r"EPSG:(\d+)", self.system or "")
        return int(number[1]) if number else None

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The map coordinates of a point of the image, given in pixels."""
        a, b, c, d, e, f = self.transform
        return a * x + b * y + c, d * x + e * y + f

    def place_all(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The map coordinates of many points: (…, 2), x and y."""
        a, b, c, d, e, f = self.transform
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def pixels_of(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The inverse of `place_all`: converts map coordinates to pixels of the image."""
        a, b, c, d, e, f = self.transform
        x, y = points[..., 0] - c, points[..., 1] - f
        determinant = a * e - b * d
        return np.stack([e * x - b * y, a * y - d * x], axis=-1) / determinant

    def of_part(self, x: float, y: float, wide: float, high: float) -> GeoReference:
        """The georeference of a raster whose first pixel covers `wide` × `high` of this one's pixels, from
        (x, y) on.
        """
        a, b, _, d, e, _ = self.transform
        c, f = self.place(x, y)
        return replace(self, transform=(a * wide, b * high, c, d * wide, e * high, f))

    def turned(self, orientation: int, size: tuple[int, int]) -> GeoReference:
        """The georeference of the upright image.

        Args:
            orientation: as EXIF numbers it.
            size: (width, height) upright.
        """
        width, height = size
        # the stored pixel (x, y) for an upright pixel: TIFF 6.0, Orientation
        xx, xy, x0, yx, yy, y0 = {
            2: (-1, 0, width, 0, 1, 0),
            3: (-1, 0, width, 0, -1, height),
            4: (1, 0, 0, 0, -1, height),
            5: (0, 1, 0, 1, 0, 0),
            6: (0, 1, 0, -1, 0, width),
            7: (0, -1, height, -1, 0, width),
            8: (0, -1, height, 1, 0, 0),
        }.get(orientation, (1, 0, 0, 0, 1, 0))
        a, b, c, d, e, f = self.transform
        return replace(
            self,
            transform=(
                *(a * xx + b * yx, a * xy + b * yy, a * x0 + b * y0 + c),
                *(d * xx + e * yx, d * xy + e * yy, d * x0 + e * y0 + f),
            ),
        )


IN_PIXELS = GeoReference((1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
"""The georeference used for an image that has none. On a map, y grows upwards."""


def transformed(points: npt.NDArray[np.float64], theirs: str, own: str) -> npt.NDArray[np.float64]:
    """Converts points (n, 2) from one coordinate system to another.

    Args:
        points: the points; x goes before y.
        theirs: their coordinate system, as PROJ reads it.
        own: the coordinate system of the result.

    Raises:
        ImageError: if rasterio is needed and not installed, or if PROJ cannot convert between the systems.
    """
    if theirs == own:
        return points
    try:
        from rasterio.errors import RasterioError
        from rasterio.warp import transform
    except ImportError as error:
        raise ImageError(
            f"converting coordinates from {short_name(theirs)} to {short_name(own)} needs rasterio: "
            "pip install 'fcnconv[geo]'"
        ) from error
    from rasterio._err import CPLE_BaseError

    try:
        found = np.stack(transform(theirs, own, points[:, 0], points[:, 1]), axis=1)
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        raise ImageError(
            f"PROJ cannot convert coordinates from {short_name(theirs)} to {short_name(own)}"
        ) from error
    return found


def short_name(system: str) -> str:
    """The name of a coordinate system that is given as a long text."""
    named = re.match(r'\w+\["([^"]+)"', system)
    return named[1] if named else system


EQUATOR, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""WGS 84: metres of the semi-major axis, and the flattening."""

NEARLY_TRUE = 0.02
"""How far, as a share, the scale of a map may differ from the scale on the ground before the ground is
measured. UTM differs by 0.04 %, and a file's own 0.25 m should stay 0.25 m; Web Mercator at 60° N differs by
100 %.
"""


def ground_size(place: GeoReference, size: tuple[int, int]) -> tuple[float, float] | None:
    """Metres across and down a pixel on the ground; None if the coordinate system does not define it.

    For a projected system these are its units. For degrees, and where the projection stretches by more than
    `NEARLY_TRUE`, they are the distances on the ellipsoid at the centre of the image.
    """
    if place.system is None:
        return None
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        crs = CRS.from_user_input(place.system)
        unit = crs.linear_units_factor[1] if crs.is_projected else None
    except CRSError:
        return None
    a, b, _, d, e, _ = place.transform
    nominal = None if unit is None else (math.hypot(a, d) * unit, math.hypot(b, e) * unit)
    true = _on_ellipsoid(place, size)
    if nominal and true:
        stretched = max(abs(t / n - 1) if n else math.inf for t, n in zip(true, nominal, strict=True))
        return true if stretched > NEARLY_TRUE else nominal
    return nominal or true


def _on_ellipsoid(place: GeoReference, size: tuple[int, int]) -> tuple[float, float] | None:
    """Metres across and down a pixel at the centre of an image, by the radii of curvature there."""
    x, y = size[0] / 2, size[1] / 2
    points = place.place_all(np.array([(x, y), (x + 1, y), (x, y + 1)]))
    try:
        degrees = transformed(points, str(place.system), LONGITUDES)
    except ImageError:
        return None
    if not np.isfinite(degrees).all() or abs(degrees[0, 1]) > 90:
        return None
    (lon, lat) = np.radians(degrees[1:] - degrees[0]).T
    lon = (lon + math.pi) % (2 * math.pi) - math.pi
    squared = FLATTENING * (2 - FLATTENING)
    sine, cosine = math.sin(math.radians(degrees[0, 1])), math.cos(math.radians(degrees[0, 1]))
    prime = EQUATOR / math.sqrt(1 - squared * sine**2)
    meridian = EQUATOR * (1 - squared) / (1 - squared * sine**2) ** 1.5
    across, down = np.hypot(lon * prime * cosine, lat * meridian)
    return (float(across), float(down)) if across > 0 and down > 0 else None


CLOSE = 1.0
"""The maximum distance, in pixels, of control points from the best affine transform, for it to be used."""


def georeference_of(dataset: Any, name: str) -> GeoReference | None:
    """The georeference of a dataset; None if it has none. Warns of a georeference that cannot be used."""
    from rasterio.transform import from_gcps

    transform, system = dataset.transform, system_of(dataset.crs) or _beside(dataset.name)
    points, points_crs = dataset.gcps
    if transform.is_identity and points:
        found = from_gcps(points)
        off = math.inf
        if found.determinant:
            fitted = GeoReference(tuple(map(float, found[:6])))  # type: ignore[arg-type]
            back = fitted.pixels_of(np.array([(p.x, p.y) for p in points]))
            off = float(np.hypot(*(back - [(p.col, p.row) for p in points]).T).max())
        if off > CLOSE:
            log.warning(
                "%s: its %d control points are up to %.3g px off an affine transform and are ignored; "
                "coordinates are in pixels. To use them, warp the image with gdalwarp",
                *(name, len(points), off),
            )
            return None
        transform, system = found, system_of(points_crs)
    elif transform.is_identity:
        if dataset.rpcs is not None:
            log.warning(
                "%s: its rational polynomials (RPC) are not used; coordinates are in pixels. To use them, "
                "warp the image with gdalwarp -rpc",
                name,
            )
        elif system is not None:
            log.warning("%s: has a coordinate system, but no transform; coordinates are in pixels", name)
        elif world := world_file(Path(dataset.name)):
            log.warning(
                "%s: GDAL cannot read its world file %s, which needs six numbers; coordinates are in pixels",
                *(name, world),
            )
        return None
    values = tuple(map(float, transform[:6]))
    if not all(map(math.isfinite, values)) or not transform.determinant:
        log.warning("%s: its georeference is not valid (pixels of no size); coordinates are in pixels", name)
        return None
    return GeoReference(values, system)  # type: ignore[arg-type]


def world_file(path: Path) -> Path | None:
    """The world file of an image, such as ``.tfw``, ``.jgw`` or ``.wld``; None if there is no such file."""
    suffix = path.suffix
    ends = [f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"] if suffix else [".wld"]
    names = [path.with_suffix(case(end)) for end in ends for case in (str.lower, str.upper)]
    try:
        return next((name for name in names if name.is_file()), None)
    except (OSError, ValueError):  # a name that is too long
        return None


def _beside(name: str) -> str | None:
    """The coordinate system in the ``.prj`` file of an image. GDAL reads it for some formats only."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    path = Path(name).with_suffix(".prj") if Path(name).suffix else Path(f"{name}.prj")
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
        return system_of(CRS.from_user_input(text)) if text else None
    except (OSError, ValueError, CRSError):
        return None


def system_of(crs: Any) -> str | None:
    """The coordinate system of a rasterio object as a text for PROJ: its EPSG number if that is the same."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if not crs:
        return None
    try:
        number = crs.to_epsg()
        if number is not None and CRS.from_epsg(number) == crs:
            return f"EPSG:{number}"
    except CRSError:
        pass
    return str(crs.to_wkt())
