"""The colours of maps: one scale for probabilities, and distinct ones for classes side by side.

Both are made in OKLab (Ottosson, "A perceptual color space for image processing", 2020), where equal steps
look equal.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
Colours = npt.NDArray[np.uint8]

_GOLDEN_ANGLE = 137.508


@cache
def colour_map() -> Colours:
    """uint8 (256, 3): dark blue over green to light yellow, for probabilities 0 to 1.

    Lightness rises evenly in OKLab (Ottosson, 2020), so that equal steps look equal, also in grey and to
    people who see no difference of red and green; hue only helps.
    """
    t = np.linspace(0, 1, 256)
    lightness = 0.22 + 0.74 * t
    hue = np.deg2rad(285 - 180 * t)
    chroma = 0.05 + 0.13 * np.sin(np.pi * (0.1 + 0.72 * t))
    low, high = np.zeros(256), chroma
    for _ in range(30):  # paler where sRGB has no such colour: clipping would bend the lightness
        linear = _linear_srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        outside = (linear < 0).any(0) | (linear > 1).any(0)
        low, high = np.where(outside, low, chroma), np.where(outside, chroma, high)
        chroma = (low + high) / 2
    return _srgb(lightness, low, hue)


@cache
def opacity_map() -> npt.NDArray[np.float32]:
    """float32 (256,), 0 to 1: the share of the colour in a pixel, for probabilities 0 to 1; the rest is the
    photo.

    Zero is clear, so that only findings are coloured. It rises with the square root: a class that is one of
    three candidates in a window shows at more than half of what is sure.
    """
    return (0.8 * np.sqrt(np.linspace(0, 1, 256))).astype(np.float32)


def distinct_colours(count: int) -> Colours:
    """uint8 (count, 3): colours to tell classes apart, the first ones furthest from each other.

    Hues follow the golden angle, so that each falls into the widest gap left; lightness alternates in three
    steps, which also tells neighbours apart for people who see fewer hues.
    """
    i = np.arange(count)
    return _srgb(
        np.array([0.72, 0.58, 0.84])[i % 3], np.full(count, 0.11), np.deg2rad(40 + _GOLDEN_ANGLE * i)
    )


def _srgb(lightness: _Floats, chroma: _Floats, hue: _Floats) -> Colours:
    """uint8 (n, 3): sRGB of OKLab colours in polar form, hue in radians."""
    linear = np.clip(_linear_srgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue)), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb.T).astype(np.uint8)


def _linear_srgb(lightness: _Floats, a: _Floats, b: _Floats) -> _Floats:
    """(3, n): linear sRGB of OKLab colours, by the two matrices of its definition."""
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    matrix = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear: _Floats = matrix @ cones**3
    return linear
