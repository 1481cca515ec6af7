"""How large an image's pixels are, as its file tells it: on a slide, or on the ground."""

from __future__ import annotations

import math
import re
from typing import Any

from fcnconv.sources.geo import GeoReference

_PROJECTED, _LINEAR_UNITS = 3072, 3076
"""GeoTIFF's keys of a coordinate system on a plane, and of its unit."""

_METRES = {None: 1.0, 9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
"""Metres of these units, in EPSG's numbers: none told, metre, foot, US survey foot."""

_PREFIXES = {"": 1.0, "c": 1e-2, "m": 1e-3, "µ": 1e-6, "u": 1e-6, "n": 1e-9}
_INCH, _CENTIMETRE = 2, 3
_ARE_FOR_PRINT = 25e-6
"""Metres. A resolution that makes pixels as large, of up to 1000 dots an inch, is a print's or a screen's."""


def pixel_size_of(source: object) -> float | None:
    """Metres across a pixel of an image; None if its file does not say."""
    found = getattr(source, "pixel_size", None)
    return found if isinstance(found, float) else None


def of_slide(properties: Any) -> float | None:
    """The same from the properties of OpenSlide."""
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    return _mean(x, y, 1e-6)


def of_tiff(page: Any, place: GeoReference | None) -> float | None:
    """The same of a page of tifffile: from OME's XML, Aperio's description, GeoTIFF's map, or the resolution.

    place: where the image lies on the map.
    """
    text = str(page.parent.ome_metadata or "") if page.parent.is_ome else ""
    across, down = (_ome_length(text, axis) for axis in "XY")
    if across and down:
        return _mean(across, down, 1.0)
    if match := re.search(r"\bMPP *= *([0-9.]+)", str(page.description)):
        return _mean(_number(match[1]), _number(match[1]), 1e-6)
    if place is not None:
        keys = place.keys
        unit = _METRES.get(keys.get(_LINEAR_UNITS))
        a, b, _, d, e, _ = place.transform
        return None if _PROJECTED not in keys or unit is None else math.sqrt(abs(a * e - b * d)) * unit
    unit = {_INCH: 0.0254, _CENTIMETRE: 0.01}.get(int(page.tags.valueof("ResolutionUnit", default=1)))
    x, y = (page.tags.valueof(f"{axis}Resolution") for axis in "XY")
    if unit is None or not x or not y or not all((*x, *y)):
        return None
    size = _mean(x[1] / x[0], y[1] / y[0], unit)
    return size if size is not None and size < _ARE_FOR_PRINT else None


def _ome_length(text: str, axis: str) -> float | None:
    """Metres of OME's physical size of a pixel along an axis. Its unit is µm unless it is told."""
    size = re.search(rf'PhysicalSize{axis}="([^"]+)"', text)
    unit = re.search(rf'PhysicalSize{axis}Unit="([^"]*)m"', text)
    number = _number(size[1]) if size else None
    prefix = _PREFIXES.get(unit[1].replace("&#181;", "µ").replace("μ", "µ") if unit else "µ")
    return None if number is None or prefix is None else number * prefix


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _mean(x: float | None, y: float | None, unit: float) -> float | None:
    return math.sqrt(x * y) * unit if x and y and 0 < x * y < math.inf else None
