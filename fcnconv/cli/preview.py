"""A score map on a terminal: the photo and the map side by side, in half-blocks, two pixels per character.

Colours follow the terminal: 24 bits, 256 or 16. For 256 colours the picture is dithered with the terminal's
fixed palette, because the nearest colour of each pixel alone would turn a photo into patches. Without colours
(a dumb terminal, or NO_COLOR set) the pixels are characters, denser for brighter pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from fcnconv.api.maps import ScoreMap
from fcnconv.images import Pixels
from fcnconv.labels import Selection
from fcnconv.render.draw import FLOOR, Winners, draw_plane
from fcnconv.render.draw import Style as MapStyle
from fcnconv.render.legend import Key

MAX_COLUMNS = 64
"""Width of one picture in characters. A wider picture shows no more of a map of a few dozen cells."""

_RAMP = " .:-=+*#%@"
_GAP = "  "


def draw_map(
    console: Console,
    photo: Pixels,
    score_map: ScoreMap,
    selections: Sequence[Selection],
    *,
    share: float = 1,
    at_least: float = FLOOR,
) -> None:
    """Prints the photo and the map of each selection, two pictures per row. Without selections, prints the
    top class of each window, and a key of the colours.

    Args:
        console: The terminal.
        photo: uint8 (H, W, 3), the scanned image.
        score_map: The map.
        selections: The selected classes.
        share: The fraction of the console's width that a row may take.
        at_least: The probability below which the top class of a window is not coloured.
    """
    columns = min(int((console.width - len(_GAP)) / 2 * share), MAX_COLUMNS)
    if columns < 4:
        return
    width, height = score_map.grid.image_size
    size = columns, max(2 * round(columns * height / width / 2), 2)
    small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    grid = replace(score_map.grid, image_size=size)
    colour = console.color_system is not None and not console.no_color
    ground = small if colour else np.zeros_like(small)  # characters cannot show photo and map at once
    system = console.color_system if colour else None
    style = MapStyle() if colour else MapStyle(colormap="viridis")  # its lightness can be shown by characters
    pictures, key = [_picture("photo", small, system)], Key()
    for selection in selections:
        plane = score_map.class_map(selection)
        title = f"{selection.name}, up to {plane.max():.2f}"
        pictures.append(_picture(title, np.asarray(draw_plane(ground, plane, grid, style)), system))
    if not selections:
        names = score_map.labels.categories
        winners = Winners.of(*score_map.top_k(5), grid, names, at_least)
        pictures.append(
            _picture("most probable class of each window", np.asarray(winners.draw(ground)), system)
        )
        key = winners.key
    rows = Table.grid(padding=(0, len(_GAP), 1, 0))
    for first in range(0, len(pictures), 2):
        rows.add_row(*pictures[first : first + 2])
    console.print(rows)
    if key and colour:
        swatches = (Text.assemble(("██", Style(color=Color.from_rgb(*rgb))), f" {name}") for name, rgb in key)
        console.print(Text("  ").join(swatches))


def _picture(title: str, pixels: Pixels, system: str | None) -> RenderableType:
    """Returns the heading and the lines of a picture. system: the colours of the terminal, in rich's
    notation.
    """
    heading = Text(title, style="bold", overflow="fold")
    if system is None:
        return Group(heading, *map(_letters, pixels[::2], pixels[1::2]))
    colours = _of_palette(pixels) if system == "256" else _of_pixels(pixels)
    return Group(heading, *map(_half_blocks, colours[::2], colours[1::2]))


def _of_pixels(pixels: Pixels) -> list[list[Color]]:
    return [[Color.from_rgb(*rgb) for rgb in row] for row in pixels.tolist()]


FIRST_FIXED = 16
"""The first of a terminal's 256 colours that is the same on all terminals. Users can change the ones before.
"""


def _of_palette(pixels: Pixels) -> list[list[Color]]:
    """Returns the pixels in the 240 fixed colours of a terminal: a cube of 6 × 6 × 6 and 24 greys."""
    levels = (0, 95, 135, 175, 215, 255)
    cube = [(r, g, b) for r in levels for g in levels for b in levels]
    fixed = cube + [(8 + 10 * i,) * 3 for i in range(24)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in fixed for channel in colour])
    dithered = Image.fromarray(pixels).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    most = len(fixed) - 1
    return [
        [Color.from_ansi(FIRST_FIXED + min(index, most)) for index in row]
        for row in np.asarray(dithered).tolist()
    ]


def _half_blocks(upper: Sequence[Color], lower: Sequence[Color]) -> Text:
    line = Text(no_wrap=True)
    for above, below in zip(upper, lower, strict=True):
        line.append("▀", Style(color=above, bgcolor=below))
    return line


def _letters(upper: Pixels, lower: Pixels) -> Text:
    light = (upper.astype(float) + lower) @ [0.299, 0.587, 0.114] / 512
    return Text("".join(_RAMP[int(level * len(_RAMP))] for level in light), no_wrap=True)
