"""A score map on a terminal: the photo and the map side by side, in half-blocks, two pixels to a character.

Colours follow the terminal: 24 bits, 256 or 16. Without colours (a dumb terminal, or NO_COLOR set) the pixels
are letters, the denser the brighter.
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

from fcnconv.labels import Selection
from fcnconv.maps import ScoreMap
from fcnconv.render.draw import FLOOR, Winners, draw_plane
from fcnconv.render.legend import Key
from fcnconv.sources import Pixels

MAX_COLUMNS = 64
"""Characters across one picture; more show no more of a map of a few dozen cells."""

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
    """Prints the photo and the map of each selection, two pictures in a row; without selections the winner of
    each window, and the colours' names.

    photo: uint8 (H, W, 3), the image that was scanned. share: of the console's width that a row may take.
    at_least: probability under which the winner of a window is not coloured.
    """
    columns = min(int((console.width - len(_GAP)) / 2 * share), MAX_COLUMNS)
    if columns < 4:
        return
    width, height = score_map.grid.image_size
    size = columns, max(2 * round(columns * height / width / 2), 2)
    small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    grid = replace(score_map.grid, image_size=size)
    colour = console.color_system is not None and not console.no_color
    ground = small if colour else np.zeros_like(small)  # letters cannot show photo and map at once
    pictures, key = [_picture("photo", small, colour)], Key()
    for selection in selections:
        plane = score_map.plane(selection)
        title = f"{selection.name}, up to {plane.max():.2f}"
        pictures.append(_picture(title, np.asarray(draw_plane(ground, plane, grid)), colour))
    if not selections:
        names = score_map.labels.categories
        winners = Winners.of(*score_map.top_k(5), grid, names, at_least)
        pictures.append(
            _picture("most probable class of each window", np.asarray(winners.draw(ground)), colour)
        )
        key = winners.key
    rows = Table.grid(padding=(0, len(_GAP), 1, 0))
    for first in range(0, len(pictures), 2):
        rows.add_row(*pictures[first : first + 2])
    console.print(rows)
    if key and colour:
        swatches = (Text.assemble(("██", Style(color=Color.from_rgb(*rgb))), f" {name}") for name, rgb in key)
        console.print(Text("  ").join(swatches))


def _picture(title: str, pixels: Pixels, colour: bool) -> RenderableType:
    heading = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    lines = (
        map(_half_blocks, pixels[::2], pixels[1::2]) if colour else map(_letters, pixels[::2], pixels[1::2])
    )
    return Group(heading, *lines)


def _half_blocks(upper: Pixels, lower: Pixels) -> Text:
    line = Text(no_wrap=True)
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        line.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
    return line


def _letters(upper: Pixels, lower: Pixels) -> Text:
    light = (upper.astype(float) + lower) @ [0.299, 0.587, 0.114] / 512
    return Text("".join(_RAMP[int(level * len(_RAMP))] for level in light), no_wrap=True)
