"""What stands below a picture to read it by: the class and how probable it is, a colour bar, a key of
classes, and a line on how the map was made. Each is a band as wide as the picture.
"""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnconv.render.colours import Colours, colour_map, opacity_map

GROUND = (18, 18, 20)
_INK, _SOFT, _LINE = (240, 240, 240), (160, 164, 170), (70, 72, 76)
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

LEAST_WIDTH = 96
"""Pixels under which a picture has no room for a legend."""

Key = list[tuple[str, tuple[int, ...]]]
"""What colours stand for: a class's name and its colour (R, G, B) as it is seen, the most frequent first."""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def text_size(picture: tuple[int, int]) -> int:
    """The height of the text, in pixels, for a picture of this (width, height)."""
    return max(11, round(sqrt(picture[0] * picture[1]) / 40))


def scale_band(width: int, size: int, title: str) -> Image.Image:
    """A title, and the colours from 0 to 1 with their ticks, beside it or below. size: of the text."""
    font, small = _font(size), _font(size * 4 // 5)
    bar, beside = min(size * 13, width - 2 * size), width >= size * 30
    band = _band(width, size * (3 if beside else 4.7))
    draw = ImageDraw.Draw(band)
    room = width - 2 * size - (bar + 2 * size if beside else 0)
    middle = band.height // 2 if beside else round(size * 1.4)
    draw.text((size, middle), shortened(title, font, room), font=font, fill=_INK, anchor="lm")
    left, top = (width - size - bar if beside else size), round(size * (0.8 if beside else 2.5))
    strip = Image.fromarray(_seen()[None]).resize((bar, round(size * 0.7)), Image.Resampling.BILINEAR)
    draw.rectangle((left - 1, top - 1, left + bar, top + strip.height), outline=_LINE)
    band.paste(strip, (left, top))
    for tick in _TICKS:
        anchor = "la" if tick == 0 else "ra" if tick == 1 else "ma"
        place = left + round(tick * (bar - 1)), top + strip.height + size // 5
        draw.text(place, f"{tick:g}", font=small, fill=_SOFT, anchor=anchor)
    return band


@cache
def _seen() -> Colours:
    """uint8 (256, 3): the colours of probabilities 0 to 1 as they are seen on the legend's ground."""
    share = opacity_map()[:, None]
    seen: Colours = np.round(share * colour_map() + (1 - share) * np.array(GROUND)).astype(np.uint8)
    return seen


def key_band(width: int, size: int, key: Key) -> Image.Image:
    """Coloured squares with the names of their classes, in columns."""
    font, line = _font(size), round(size * 1.6)
    widest = max(font.getlength(name) for name, _ in key) + 3.2 * size
    columns = max(1, min(int((width - size) / widest), len(key), 4))
    rows, wide = -(-len(key) // columns), (width - size) // columns
    band = _band(width, rows * line + size)
    draw = ImageDraw.Draw(band)
    for number, (name, colour) in enumerate(key):
        x, middle = size + number // rows * wide, size // 2 + number % rows * line + line // 2
        draw.rectangle((x, middle - size // 2, x + size, middle + size // 2), fill=colour)
        text = shortened(name, font, wide - round(2.4 * size))
        draw.text((x + round(size * 1.6), middle), text, font=font, fill=_INK, anchor="lm")
    return band


def note_band(width: int, size: int, note: str) -> Image.Image:
    """A line of smaller text."""
    font = _font(size * 4 // 5)
    band = _band(width, size * 1.7)
    text = shortened(note, font, width - 2 * size)
    ImageDraw.Draw(band).text((size, size * 0.7), text, font=font, fill=_SOFT, anchor="lm")
    return band


def stacked(*images: Image.Image) -> Image.Image:
    """Images of one width, one below the other."""
    stack = Image.new("RGB", (images[0].width, sum(image.height for image in images)), GROUND)
    top = 0
    for image in images:
        stack.paste(image, (0, top))
        top += image.height
    return stack


def shortened(text: str, font: _Font, width: float) -> str:
    """The text, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(max(9, size))


def _band(width: int, height: float) -> Image.Image:
    return Image.new("RGB", (width, round(height)), GROUND)
