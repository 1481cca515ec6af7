"""The physical size of an image's pixels according to its file: on a slide, or on the ground."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

PixelSize = tuple[float, float]
"""Metres across and down a pixel."""

_PREFIXES = "Y24 Z21 E18 P15 T12 G9 M6 k3 h2 da1 0 d-1 c-2 m-3 µ-6 μ-6 u-6 n-9 p-12 f-15 a-18 z-21 y-24"
"""SI's prefixes with their powers of ten."""

_IN_WORDS = "kilo3 hecto2 0 deci-1 centi-2 milli-3 micro-6 nano-9 pico-12 femto-15"

_OTHERS = {"Å": 1e-10, "\u212b": 1e-10, "angstrom": 1e-10, "micron": 1e-6, "microns": 1e-6} | {
    **{"thou": 2.54e-5, "mil": 2.54e-5, "li": 0.0254 / 12, "pt": 0.0254 / 72, "in": 0.0254, "inch": 0.0254},
    **{"ft": 0.3048, "foot": 0.3048, "yd": 0.9144, "yard": 0.9144, "mi": 1609.344, "mile": 1609.344},
    **{"ua": 149_597_870_700.0, "ly": 9_460_730_472_580_800.0, "pc": 3.0856775814913673e16},
}


def _metric(prefixes: str, *names: str) -> dict[str, float]:
    """Metres per unit, for each prefix with its power of ten, before each name of the metre."""
    pairs = (re.fullmatch(r"(\D*?)(-?\d+)", each) for each in prefixes.split())
    return {f"{pair[1]}{name}": float(f"1e{pair[2]}") for pair in pairs if pair for name in names}


UNITS = _metric(_PREFIXES, "m") | _metric(_IN_WORDS, "meter", "metre") | _OTHERS
"""Metres per unit of length, for the units of OME's schema, OME-Zarr and ImageJ. Units that are not lengths
(``pixel``, ``reference frame``) are not included, and leave the scale unknown.
"""


def mean_side(size: PixelSize | None) -> float | None:
    """Metres across a pixel, the geometric mean of both sides; None if they are unknown."""
    return None if size is None else math.sqrt(size[0] * size[1])


def of_slide(properties: Any) -> PixelSize | None:
    """The pixel size from the properties of OpenSlide."""
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    return sound(x, y, 1e-6)


def of_ome(text: str, image: int) -> PixelSize | None:
    """The pixel size of an image in OME's metadata, by its number from 0. The default unit is µm."""
    try:
        root = ElementTree.fromstring(text.encode() if text.lstrip().startswith("<?xml") else text)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    pixels = [node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"]
    if image >= len(pixels):
        return None
    sides = []
    for axis in "XY":
        unit = UNITS.get(pixels[image].get(f"PhysicalSize{axis}Unit", "µm"))
        size = _number(pixels[image].get(f"PhysicalSize{axis}"))
        sides.append(None if unit is None or size is None else size * unit)
    return sound(sides[0], sides[1])


def of_aperio(description: str) -> PixelSize | None:
    """The pixel size in the description of Aperio's scanners."""
    match = re.search(r"\bMPP *= *([0-9.]+)", description)
    size = _number(match[1]) if match else None
    return sound(size, size, 1e-6)


def of_imagej(metadata: Mapping[str, Any], page: Any) -> PixelSize | None:
    """The pixel size by ImageJ's calibration: pixels per unit, where its metadata name the unit."""
    text = str(metadata.get("unit", "")).replace("\\u00B5", "µ").strip()
    x, y = (page.tags.valueof(f"{axis}Resolution") for axis in "XY")
    if text not in UNITS or not x or not y or not all((*x, *y)):
        return None
    return sound(x[1] / x[0], y[1] / y[0], UNITS[text])


_INCH, _CENTIMETRE = 2, 3
_ARE_FOR_PRINT = 25e-6
"""Metres. A resolution with pixels at least this large, up to about 1000 dots per inch, is for print or a
screen.
"""


def of_resolution(x: float, y: float, unit: int) -> PixelSize | None:
    """The pixel size by a TIFF's resolution; None if the resolution is for print.

    Args:
        x, y: pixels per unit.
        unit: its number in TIFF.
    """
    metres = {_INCH: 0.0254, _CENTIMETRE: 0.01}.get(unit)
    if metres is None or not (0 < x < math.inf and 0 < y < math.inf):
        return None
    return (metres / x, metres / y) if metres / math.sqrt(x * y) < _ARE_FOR_PRINT else None


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def sound(x: float | None, y: float | None, unit: float = 1.0) -> PixelSize | None:
    return (x * unit, y * unit) if x and y and 0 < x < math.inf and 0 < y < math.inf else None
