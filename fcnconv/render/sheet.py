"""A picture to show: the map over the photo with its legend, or a sheet of several, a panel a class."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from fcnconv.grid import Grid
from fcnconv.render.draw import SMOOTH, Style, draw_plane
from fcnconv.render.legend import (
    GROUND,
    LEAST_WIDTH,
    Key,
    key_band,
    note_band,
    scale_band,
    stacked,
    text_size,
)
from fcnconv.scores import FloatArray
from fcnconv.sources import Pixels


def class_sheet(
    photo: Pixels,
    planes: FloatArray,
    grid: Grid,
    names: Sequence[str],
    *,
    style: Style = SMOOTH,
    legend: bool = True,
    note: str = "",
) -> Image.Image:
    """The photo with one class's probability over it, on a scale from 0 to 1; of several classes, a panel
    each.

    photo: uint8 (H, W, 3), the image that was scanned, at any size, which each panel's photo has.
    planes: float32 (rows, cols, len(names)), 0 to 1: the probability of each class in each cell.
    legend: whether each class's name, its highest probability and the colours stand below the photo, and
        `note` below all.
    """
    panels = []
    for index, name in enumerate(names):
        picture = draw_plane(photo, planes[:, :, index], grid, style)
        if legend and picture.width >= LEAST_WIDTH:
            title = f"{name}, up to {planes[:, :, index].max():.2f}"
            picture = stacked(picture, scale_band(picture.width, text_size(picture.size), title))
        panels.append(picture)
    sheet = _side_by_side(panels)
    return _noted(sheet, photo, note) if legend else sheet


def winners_sheet(picture: Image.Image, key: Key, *, legend: bool = True, note: str = "") -> Image.Image:
    """A picture of winners with its key below it."""
    if not legend or picture.width < LEAST_WIDTH:
        return picture
    size = text_size(picture.size)
    bands = [key_band(picture.width, size, key)] if key else []
    return stacked(picture, *bands, *([note_band(picture.width, size, note)] if note else []))


def sheet_shape(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """(panels in a row, rows) of a sheet of `count` panels of this (width, height): up to three in a row,
    more as a sheet about as wide as high.
    """
    square = max(1, round((count * size[1] / size[0]) ** 0.5))
    across = count if count <= 3 else square
    return across, -(-count // across)


def _side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels of one size, a little apart."""
    width, height = panels[0].size
    across, down = sheet_shape(len(panels), (width, height))
    gap = max(4, min(width, height) // 60)
    size = across * (width + gap) - gap, down * (height + gap) - gap
    sheet = Image.new("RGB", size, GROUND)
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % across * (width + gap), number // across * (height + gap)))
    return sheet


def _noted(sheet: Image.Image, photo: Pixels, note: str) -> Image.Image:
    height, width, _ = photo.shape
    if not note or width < LEAST_WIDTH:
        return sheet
    return stacked(sheet, note_band(sheet.width, text_size((width, height)), note))
