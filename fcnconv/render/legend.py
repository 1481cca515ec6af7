"""The legend below a picture: the class and its probability, a colour bar, a key of classes, and a line on
how the map was made. Each is a band as wide as the picture and as high as its text needs.

The package contains DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew and thousands of signs). For other
scripts, a system font is used if one is installed. A character that no font has is written as its code point,
``U+732B``, instead of an empty square. Lines are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from math import sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnconv.options import ColourMap
from fcnconv.render.colours import Colours, colour_map, opacity_map

Font = ImageFont.FreeTypeFont
Colour = tuple[int, int, int]

SMALLEST = 9
"""Height of the smallest text in pixels."""

SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",  # Linux: Chinese, Japanese, Korean
    "wqy-zenhei.ttc",
    "msyh.ttc",  # Windows
    "YuGothM.ttc",
    "malgun.ttf",
    "Nirmala.ttf",  # Windows: the scripts of India
    "PingFang.ttc",  # macOS
    "Arial Unicode.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSansBengali-Regular.ttf",
)
"""System fonts that are tried for characters that the package's own font lacks."""

_NOWHERE = "\U0010fffe"
"""A character that no font has."""


@cache
def _own(size: int) -> Font:
    with as_file(files("fcnconv").joinpath("data", "fonts", "DejaVuSans.ttf")) as path:
        return ImageFont.truetype(str(path), size)


@cache
def _of_system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not installed
        return None


@cache
def _has(font: Font, character: str) -> bool:
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_NOWHERE))


def _lacking(font: Font, text: str) -> int:
    return sum(not _has(font, character) for character in set(text))


def legible(text: str, size: int) -> tuple[str, Font]:
    """Returns the text and a font that can draw it. size: of the text, in pixels.

    Characters that the font lacks are replaced by code points, control characters and line breaks by spaces.
    """
    size = max(SMALLEST, size)
    text = "".join(character if character.isprintable() else " " for character in text)
    best = _own(size)
    lacking = _lacking(best, text)
    for name in SYSTEM_FONTS if lacking else ():
        font = _of_system(name, size)
        if font is not None and (fewer := _lacking(font, text)) < lacking:
            best, lacking = font, fewer
    if lacking:
        text = "".join(c if _has(best, c) else f"U+{ord(c):04X}" for c in text)
    return text, best


def wrapped(text: str, size: int, width: float) -> list[str]:
    """Returns the text in lines of at most `width` pixels, broken between words. A word that is wider is
    broken too.

    Only the spaces at a break are dropped. A line has at least one character, whatever the width.
    """
    text, font = legible(text, size)
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") <= width:
            line = f"{line} {word}"
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width and len(word) > 1:
            fits = next((n for n in range(len(word) - 1, 1, -1) if font.getlength(word[:n]) <= width), 1)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return [*lines, line] if line else lines or [""]


def width_of(text: str, size: int) -> float:
    """Returns the width of the text on one line, in pixels."""
    text, font = legible(text, size)
    return font.getlength(text)


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: Colour, anchor: str
) -> None:
    """Draws one line. anchor: the point of the line that is at `place`, in Pillow's notation."""
    text, font = legible(text, size)
    draw.text(place, text, font=font, fill=colour, anchor=anchor)


def text_band(width: int, lines: list[str], size: int, colour: Colour) -> Image.Image:
    """Returns a band of the requested width with lines of text, with a margin of one `size`."""
    height = line_height(size)
    band = Image.new("RGB", (width, round(len(lines) * height + size * 0.5)), GROUND)
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        draw_text(draw, (size, size * 0.25 + (number + 0.5) * height), line, size, colour, "lm")
    return band


def line_height(size: int) -> int:
    """Returns the distance from one line of text to the next, in pixels."""
    return round(size * 1.45)


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
        heading = text_band(width, wrapped(title, size, width - 2 * size), size, _INK)
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
    return text_band(width, wrapped(note, small, width - 2 * small), small, _SOFT)


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
