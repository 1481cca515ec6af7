"""The legend below a picture: the class and its probability, a colour bar, a key of classes, and a line on
how the map was made.

Each is a band as wide as the picture and as high as its text needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from PIL import Image, ImageDraw

from fcnconv.options import ColourMap
from fcnconv.render.colours import Colours, colour_map, opacity_map
from fcnconv.render.text import SMALLEST, draw_text, line_height, text_band, width_of, wrapped

GROUND = (18, 18, 20)
_INK, _SOFT, _LINE = (240, 240, 240), (160, 164, 170), (70, 72, 76)
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

Key = list[tuple[str, tuple[int, ...]]]
"""The key of a picture: the name and the displayed colour (R, G, B) of each class, the most frequent first.
"""

MOST_COLUMNS = 4


def text_size(picture: tuple[int, int]) -> int:
    """Returns the height of the text, in pixels, for a picture of this (width, height)."""
    return max(11, round(sqrt(picture[0] * picture[1]) / 42))


def scale_band(width: int, size: int, title: str, colormap: ColourMap, top: float = 1.0) -> Image.Image:
    """Returns a band with a title and the colour bar from 0 to `top` with its ticks, on one line if there is
    room, else below it. size: of the text.
    """
    small = max(SMALLEST, size * 4 // 5)
    ticks = [f"{tick * top:.2g}" for tick in _TICKS]
    bar = min(size * 13, width - 2 * size)
    beside = width_of(title, size) + bar + 4 * size <= width
    if beside:
        band = _band(width, size * 2.6)
        draw_text(ImageDraw.Draw(band), (size, band.height / 2), title, size, _INK, "lm")
    else:
        heading = text_band(width, wrapped(title, size, width - 2 * size), size, _INK, GROUND)
        band = _band(width, heading.height + size * 2.4)
        band.paste(heading, (0, round(size * 0.2)))
    draw = ImageDraw.Draw(band)
    left = width - size - bar if beside else size
    thick = round(size * 0.7)
    upper = band.height - round(size * 0.5) - line_height(small) - thick
    strip = Image.fromarray(_seen(colormap)[None]).resize((bar, thick), Image.Resampling.BILINEAR)
    draw.rectangle((left - 1, upper - 1, left + bar, upper + thick), outline=_LINE)
    band.paste(strip, (left, upper))
    free = float(left - size)  # the least x of the next tick
    final = left + bar - width_of(ticks[-1], small)
    for tick, text in zip(_TICKS, ticks, strict=True):
        x, half = left + tick * (bar - 1), width_of(text, small) / 2
        x = left if tick == 0 else final if tick == 1 else x - half
        if tick in (0, 1) or (x > free + small / 2 and x + 2 * half + small / 2 < final):
            draw_text(draw, (x, upper + thick + size // 5), text, small, _SOFT, "la")
            free = x + 2 * half
    return band


def _seen(colormap: ColourMap) -> Colours:
    """Returns uint8 (256, 3): the colours of probabilities 0 to 1 as displayed on the legend's background."""
    share = opacity_map()[:, None]
    share = share / share.max()
    seen: Colours = np.round(share * colour_map(colormap) + (1 - share) * np.array(GROUND)).astype(np.uint8)
    return seen


def key_band(width: int, size: int, key: Key) -> Image.Image:
    """Returns a band of coloured squares with the names of their classes, in columns that are wide enough for
    the names.
    """
    line = line_height(size)
    widest = max(width_of(name, size) for name, _ in key) + 3.2 * size
    columns = max(1, min(int((width - size) / widest), len(key), MOST_COLUMNS))
    rows, wide = -(-len(key) // columns), (width - size) // columns
    texts = [wrapped(name, size, wide - 2.6 * size) for name, _ in key]
    heights = [max(len(text) for text in texts[row::rows]) * line for row in range(rows)]
    band = _band(width, sum(heights) + size)
    draw = ImageDraw.Draw(band)
    for number, (lines, (_, colour)) in enumerate(zip(texts, key, strict=True)):
        column, row = divmod(number, rows)
        x, top = size + column * wide, size // 2 + sum(heights[:row])
        square = top + (line - size) // 2
        draw.rectangle((x, square, x + size, square + size), fill=colour)
        for offset, text in enumerate(lines):
            place = (x + round(size * 1.6), top + (offset + 0.5) * line)
            draw_text(draw, place, text, size, _INK, "lm")
    return band


def note_band(width: int, size: int, note: str) -> Image.Image:
    """Returns a band of smaller text, in as many lines as it needs."""
    small = max(SMALLEST, size * 4 // 5)
    return text_band(width, wrapped(note, small, width - 2 * small), small, _SOFT, GROUND)


def stacked(width: int, images: Sequence[Image.Image]) -> Image.Image:
    """Returns images stacked vertically, centred in this width."""
    stack = Image.new("RGB", (width, sum(image.height for image in images)), GROUND)
    top = 0
    for image in images:
        stack.paste(image, ((width - image.width) // 2, top))
        top += image.height
    return stack


def _band(width: int, height: float) -> Image.Image:
    return Image.new("RGB", (width, round(height)), GROUND)
