"""Text in pictures: fonts that have every character of a name, and lines that are never cut.

The package contains DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew and thousands of signs). For other
scripts, a system font is used if one is installed. A character that no font has is written as its code point,
``U+732B``, instead of an empty square.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

from PIL import Image, ImageDraw, ImageFont

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


def text_band(width: int, lines: list[str], size: int, colour: Colour, ground: Colour) -> Image.Image:
    """Returns lines of text on a uniform background of the requested width, with a margin of one `size`."""
    height = line_height(size)
    band = Image.new("RGB", (width, round(len(lines) * height + size * 0.5)), ground)
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        draw_text(draw, (size, size * 0.25 + (number + 0.5) * height), line, size, colour, "lm")
    return band


def line_height(size: int) -> int:
    """Returns the distance from one line of text to the next, in pixels."""
    return round(size * 1.45)
