"""Drawing a score map: the photo with a class's probability over it, where the windows are.

A cell is drawn at the centre of its window, and the colours run smoothly from one centre to the next. Each
cell owns the square of one stride around its centre; outside these squares no window was centred, and the
photo stays as it is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fcnconv.images import Pixels
from fcnconv.scores import FloatArray, Grid

_Floats = npt.NDArray[np.float64]

OPACITY = 0.65
"""Share of the colour in a covered pixel; the rest is the photo in grey, whose hues cannot mislead."""

_BAR_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@cache
def colour_map() -> Pixels:
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
    linear = np.clip(_linear_srgb(lightness, low * np.cos(hue), low * np.sin(hue)), 0, 1)
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


def overlay(photo: Pixels, plane: FloatArray, grid: Grid, name: str) -> Image.Image:
    """The photo with one class's probability over it, and a legend with the class's name; the photo's own
    size.

    photo: uint8 (H, W, 3), the image that was scanned, at its own size.
    plane: float32 (rows, cols), 0 to 1: the probability of the class in each cell.
    """
    height, width, _ = photo.shape
    row = _cell_coordinates(height, grid.scan_size[1], grid)
    col = _cell_coordinates(width, grid.scan_size[0], grid)
    rows, cols = _covered(row, grid.rows), _covered(col, grid.cols)
    picture = photo.copy()
    if rows.stop > rows.start and cols.stop > cols.start:
        inside = photo[rows, cols]
        values = _interpolate(_interpolate(plane, row[rows]).T, col[cols]).T
        colours = colour_map()[np.round(values * 255).astype(np.uint8)]
        grey = inside @ np.array([0.299, 0.587, 0.114], np.float32)
        picture[rows, cols] = np.round(OPACITY * colours + (1 - OPACITY) * grey[:, :, None]).astype(np.uint8)
    image = Image.fromarray(picture)
    _draw_legend(image, name)
    return image


def _cell_coordinates(length: int, scanned: int, grid: Grid) -> _Floats:
    """The place of each pixel's centre in cells along one axis: 0 at the first window's centre, 1 at the
    second's.
    """
    position = (np.arange(length) + 0.5) * (scanned / length)
    return (position - grid.window / 2) / grid.stride


def _covered(coordinates: _Floats, count: int) -> slice:
    """The pixels that lie in some cell's own square along one axis."""
    first, last = np.searchsorted(coordinates, (-0.5, count - 0.5))
    return slice(int(first), int(last))


def _interpolate(values: FloatArray, coordinates: _Floats) -> FloatArray:
    """Linear interpolation along the first axis, constant past its ends: (n, m) -> (len(coordinates), m)."""
    place = np.clip(coordinates, 0, len(values) - 1)
    before = np.minimum(place.astype(np.intp), max(len(values) - 2, 0))
    share = (place - before).astype(np.float32)[:, None]
    after = np.minimum(before + 1, len(values) - 1)
    result: FloatArray = values[before] * (1 - share) + values[after] * share
    return result


def _draw_legend(image: Image.Image, name: str) -> None:
    """A strip at the lower left: the class's name over a colour bar from 0 to 1. Left out where it would not
    fit.
    """
    size = max(11, min(image.size) // 32)
    font = ImageFont.load_default(size)
    margin, bar_height = size // 2, round(size * 0.7)
    width = min(size * 16, image.width - 2 * margin)
    height = round(size * 3.6) + bar_height
    if width < size * 6 or height > image.height // 2:
        return
    top = image.height - height
    strip = Image.new("RGB", (width + 2 * margin, height), (18, 18, 20))
    draw = ImageDraw.Draw(strip)
    draw.text((margin, margin // 2), shortened(name, font, width), font=font, fill="white")
    bar = Image.fromarray(colour_map()[None]).resize((width, bar_height), Image.Resampling.BILINEAR)
    bar_top = round(size * 1.75)
    strip.paste(bar, (margin, bar_top))
    small = ImageFont.load_default(max(10, round(size * 0.8)))
    for tick in _BAR_TICKS:
        anchor = "la" if tick == 0 else "ra" if tick == 1 else "ma"
        x = margin + round(tick * (width - 1))
        draw.text((x, bar_top + bar_height + size // 5), f"{tick:g}", font=small, fill="white", anchor=anchor)
    region = image.crop((0, top, strip.width, image.height))
    image.paste(Image.blend(region, strip, 0.85), (0, top))


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
