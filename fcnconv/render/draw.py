"""Drawing score maps over the photo, where the windows are.

A cell is drawn at the centre of its window, and the colours run smoothly from one centre to the next, or fill
each cell's own square: the square of one stride around its centre. Outside these squares no window was
centred, and the photo stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.render.colours import Colours, colour_map, distinct_colours
from fcnconv.render.legend import draw_key, draw_scale, draw_title
from fcnconv.scores import FloatArray
from fcnconv.sources import Pixels

OPACITY = 0.65
"""Share of the colour in a covered pixel; the rest is the photo in grey, whose hues cannot mislead."""

KEY_CLASSES, KEY_SHARE = 12, 0.01
"""A map of winners names so many classes, the most frequent, of those that win this share of the cells; the
others share one grey.
"""

STRIP = 256
"""Rows of pixels that are coloured at once."""

_OTHERS = (128, 128, 128)


@dataclass(frozen=True)
class Style:
    """How maps are drawn. cells: fill each cell's own square; False runs smoothly between the centres."""

    cells: bool = False


def draw_classes(
    photo: Pixels, planes: FloatArray, grid: Grid, names: Sequence[str], style: Style = Style()
) -> Image.Image:
    """The photo with one class's probability over it, on a scale from 0 to 1; of several classes, a panel
    each.

    photo: uint8 (H, W, 3), the image that was scanned, at any size, which each panel has.
    planes: float32 (rows, cols, len(names)), 0 to 1: the probability of each class in each cell.
    """
    panels = []
    for index, name in enumerate(names):
        panel = draw_plane(photo, planes[:, :, index], grid, style)
        draw_title(panel, name)
        panels.append(panel)
    draw_scale(panels[0])
    return _side_by_side(panels)


def draw_plane(photo: Pixels, plane: FloatArray, grid: Grid, style: Style = Style()) -> Image.Image:
    """The photo with one class's probability over it, and nothing else: arguments as for `draw_classes`."""

    def coloured(probability: FloatArray) -> tuple[Colours, float]:
        return colour_map()[np.round(probability * 255).astype(np.uint8)], OPACITY

    return _tinted(photo, grid, (plane,), coloured, style)


Key = list[tuple[str, tuple[int, ...]]]
"""What colours stand for: a class's name and its colour (R, G, B), the most frequent first."""


def draw_winners(
    photo: Pixels, winner: npt.NDArray[np.integer], sure: FloatArray, grid: Grid, names: Sequence[str]
) -> Image.Image:
    """The photo with the most probable class of each cell over it, with the key on it: see
    `colour_winners`.
    """
    picture, key = colour_winners(photo, winner, sure, grid, names)
    draw_key(picture, key)
    return picture


def colour_winners(
    photo: Pixels, winner: npt.NDArray[np.integer], sure: FloatArray, grid: Grid, names: Sequence[str]
) -> tuple[Image.Image, Key]:
    """The photo with the most probable class of each cell in a colour of its own, paler where it is less
    sure, and the key of the classes that occur.

    winner: (rows, cols), an index into `names`. sure: float32 (rows, cols), 0 to 1: its probability.
    """
    classes, counts = np.unique(winner, return_counts=True)
    ranked = classes[np.argsort(-counts, kind="stable")]
    shown = ranked[: min(KEY_CLASSES, int((counts >= KEY_SHARE * winner.size).sum()))]
    colours = np.full((len(names), 3), _OTHERS, np.uint8)
    colours[shown] = distinct_colours(len(shown))

    def coloured(best: npt.NDArray[np.integer], sure: FloatArray) -> tuple[Colours, FloatArray]:
        return colours[best], 0.15 + 0.75 * sure[:, :, None]

    picture = _tinted(photo, grid, (winner, sure), coloured, Style(cells=True))
    key: Key = [(names[i], tuple(colours[i].tolist())) for i in shown]
    if len(ranked) > len(shown):
        key.append((f"{len(ranked) - len(shown)} others", _OTHERS))
    return picture, key


def _tinted(
    photo: Pixels,
    grid: Grid,
    planes: Sequence[npt.NDArray[Any]],
    coloured: Callable[..., tuple[Colours, float | FloatArray]],
    style: Style,
) -> Image.Image:
    """The photo with colours over it, where cells are.

    planes: values (rows, cols) of the cells. coloured: makes the colours (h, w, 3) of pixels, and their
        opacity, of each plane's values there, (h, w).
    """
    height, width, _ = photo.shape
    row, col = (
        _cell_coordinates(length, scanned, grid)
        for length, scanned in zip((height, width), grid.scan_size[::-1], strict=True)
    )
    rows, cols = _covered(row, grid.rows), _covered(col, grid.cols)
    picture = photo.copy()
    for top in range(rows.start, rows.stop, STRIP):  # a large picture takes no more memory than a strip
        place = slice(top, min(top + STRIP, rows.stop)), cols
        colours, opacity = coloured(*(_spread(plane, row[place[0]], col[cols], style) for plane in planes))
        grey = photo[place] @ np.array([0.299, 0.587, 0.114], np.float32)
        picture[place] = np.round(opacity * colours + (1 - opacity) * grey[:, :, None])
    return Image.fromarray(picture)


def _spread(
    values: npt.NDArray[Any],
    row: npt.NDArray[np.float64],
    col: npt.NDArray[np.float64],
    style: Style,
) -> npt.NDArray[Any]:
    """Values (rows, cols) of the cells at pixels, whose places in cells are given along each axis."""
    if style.cells:
        nearest = [
            np.clip(np.floor(place + 0.5).astype(np.intp), 0, count - 1)
            for place, count in zip((row, col), values.shape, strict=True)
        ]
        return values[np.ix_(*nearest)]
    return _interpolate(_interpolate(values, row).T, col).T


def _side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels of one size: up to three in a row, more in a sheet about as wide as high."""
    width, height = panels[0].size
    square = max(1, round((len(panels) * height / width) ** 0.5))
    across = len(panels) if len(panels) <= 3 else square
    down = -(-len(panels) // across)
    sheet = Image.new("RGB", (across * width, down * height), (18, 18, 20))
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % across * width, number // across * height))
    return sheet


def _cell_coordinates(length: int, scanned: int, grid: Grid) -> npt.NDArray[np.float64]:
    """The place of each pixel's centre in cells along one axis: 0 at the first window's centre, 1 at the
    second's.
    """
    position = (np.arange(length) + 0.5) * (scanned / length)
    return (position - grid.window / 2) / grid.stride


def _covered(coordinates: npt.NDArray[np.float64], count: int) -> slice:
    """The pixels that lie in some cell's own square along one axis."""
    first, last = np.searchsorted(coordinates, (-0.5, count - 0.5))
    return slice(int(first), int(last))


def _interpolate(values: npt.NDArray[Any], coordinates: npt.NDArray[np.float64]) -> FloatArray:
    """Linear interpolation along the first axis, constant past its ends: (n, m) -> (len(coordinates), m)."""
    place = np.clip(coordinates, 0, len(values) - 1)
    before = np.minimum(place.astype(np.intp), max(len(values) - 2, 0))
    share = (place - before).astype(np.float32)[:, None]
    after = np.minimum(before + 1, len(values) - 1)
    result: FloatArray = values[before] * (1 - share) + values[after] * share
    return result
