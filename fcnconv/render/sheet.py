"""A picture for display: the map over the photo with its legend, or a sheet of several panels, one per class.

The legend is laid out first, and the photo is drawn in the remaining room. So the picture has the requested
size, and its text is large enough to read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.images import Pixels
from fcnconv.render.draw import SMOOTH, Style, draw_outlines, draw_plane
from fcnconv.render.legend import GROUND, Key, key_band, note_band, scale_band, stacked, text_size
from fcnconv.scores import FloatArray

LEGIBLE = 640
"""Longest side, in pixels, that a smaller photo is enlarged to if a legend stands below it."""

NARROWEST = 320
"""Least width of a picture with a legend, in pixels, if its size allows it: room for words."""

FEWEST = 48
"""Longest side of a photo, in pixels, below which a legend would take too much of the picture."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """The surroundings of the photo in a picture.

    Attributes:
        legend: Whether a legend stands below the photo.
        note: A line below everything, shown only with the legend.
        side: The longest side of the whole picture, in pixels.
    """

    legend: bool = True
    note: str = ""
    side: int = 8192


WITH_LEGEND = Frame()


def class_sheet(
    photo: Pixels,
    planes: FloatArray,
    grid: Grid,
    titles: Sequence[str],
    *,
    style: Style = SMOOTH,
    stretch: bool = False,
    outlines: Sequence[Sequence[npt.NDArray[np.float64]]] = (),
    frame: Frame = WITH_LEGEND,
) -> Image.Image:
    """Returns the photo with one class's probability over it; for several classes, one panel each.

    Args:
        photo: uint8 (H, W, 3), the scanned image at any size. It is enlarged to `LEGIBLE` if it is smaller
            and has a legend, and reduced if the picture would be longer than `frame.side`.
        planes: float32 (rows, cols, len(titles)), 0 to 1: the probability of each class in each cell.
        grid: The grid of the map.
        titles: The legend's text for each class.
        style: How the map is drawn.
        stretch: The colours of each panel end at its highest probability instead of at 1, and the legend says
            so.
        outlines: The rings of the regions of each class, see `draw_outlines`; empty for no outlines.
        frame: What surrounds the photo.
    """
    tops = [_highest(planes[:, :, k]) if stretch else style.top for k in range(len(titles))]

    def legends(width: int, size: int) -> list[list[Image.Image]]:
        said = (
            f"{title}; colours end at {top:.2g}" if stretch else title
            for title, top in zip(titles, tops, strict=True)
        )
        return [
            [scale_band(width, size, text, style.colormap, top)] for text, top in zip(said, tops, strict=True)
        ]

    def draw(photo: Pixels, k: int) -> Image.Image:
        picture = draw_plane(photo, planes[:, :, k], grid, replace(style, top=tops[k]))
        return draw_outlines(picture, outlines[k], grid.image_size) if outlines else picture

    return _sheet(photo, len(titles), draw, legends, frame)


def winners_sheet(
    photo: Pixels, draw: Callable[[Pixels], Image.Image], key: Key, *, frame: Frame = WITH_LEGEND
) -> Image.Image:
    """Returns a picture of the top classes with its key below it.

    Args:
        photo: As for `class_sheet`.
        draw: Draws the classes over a photo.
        key: The colours of the classes, see `draw.Winners`.
        frame: What surrounds the photo.
    """

    def legends(width: int, size: int) -> list[list[Image.Image]]:
        return [[key_band(width, size, key)] if key else []]

    return _sheet(photo, 1, lambda photo, _: draw(photo), legends, frame)


def _highest(plane: FloatArray) -> float:
    """Returns the end of a stretched scale: the highest value that is shown, or 1 if that is 0."""
    return float(np.nanmax(plane, initial=0)) or 1.0


def sheet_shape(count: int, size: Size) -> Size:
    """Returns (panels per row, rows) of a sheet of `count` panels of this (width, height): one row for up to
    three panels, and more panels in a sheet that is about square.
    """
    square = max(1, round((count * size[1] / size[0]) ** 0.5))
    across = count if count <= 3 else min(square, count)
    return across, -(-count // across)


def _sheet(
    photo: Pixels,
    count: int,
    draw: Callable[[Pixels, int], Image.Image],
    legends: Callable[[int, int], list[list[Image.Image]]],
    frame: Frame,
) -> Image.Image:
    """Returns `count` panels, each drawn over the photo, with the bands that `legends` makes for a width and
    a text size.
    """
    height, width, _ = photo.shape
    panels = sheet_shape(count, (width, height))
    size = _within((width, height), panels, frame.side)
    if frame.legend:
        size = _within(_enlarged((width, height)), panels, frame.side)
        while max(size) >= min(FEWEST, frame.side // 2):
            layout = _Layout.of(size, panels, legends, frame)
            if max(layout.size) <= frame.side:
                return layout.drawn(_resized(photo, size), draw)
            size = _smaller(size, min(0.97, frame.side / max(layout.size)))
        size = _within((width, height), panels, frame.side)
    return _Layout.of(size, panels, lambda *_: [[]] * count, Frame(legend=False)).drawn(
        _resized(photo, size), draw
    )


def _enlarged(size: Size) -> Size:
    """Returns a photo's size, enlarged if it is too small for a legible picture."""
    return _smaller(size, max(1.0, LEGIBLE / max(size)))


def _within(size: Size, panels: Size, side: int) -> Size:
    """Returns the size of the photo in each panel if no side of all panels together may be longer than
    `side`.
    """
    share = min(1.0, *(side / (count * length) for count, length in zip(panels, size, strict=True)))
    gap = _gap(_smaller(size, share))
    room = [side - (count - 1) * gap for count in panels]
    share = min(1.0, *(r / (count * length) for r, count, length in zip(room, panels, size, strict=True)))
    return _smaller(size, share)


def _smaller(size: Size, share: float) -> Size:
    if share == 1:
        return size
    return max(1, int(size[0] * share)), max(1, int(size[1] * share))


def _resized(photo: Pixels, size: Size) -> Pixels:
    if photo.shape[1::-1] == size:
        return photo
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def _gap(size: Size) -> int:
    return max(4, min(size) // 60)


@dataclass(frozen=True)
class _Layout:
    """The position of everything in a picture.

    Attributes:
        size: The size of the whole picture.
        panel: (width, height) of a panel, including its bands.
        bands: The bands below the photo of each panel.
        foot: The bands below all panels.
    """

    size: Size
    panel: Size
    gap: int
    across: int
    bands: list[list[Image.Image]]
    foot: list[Image.Image]

    @classmethod
    def of(
        cls,
        photo: Size,
        panels: Size,
        legends: Callable[[int, int], list[list[Image.Image]]],
        frame: Frame,
    ) -> _Layout:
        text, gap = text_size(photo), _gap(photo)
        across, down = panels
        width = (
            max(photo[0], min(NARROWEST, (frame.side + gap) // across - gap)) if frame.legend else photo[0]
        )
        bands = legends(width, text)
        height = photo[1] + max(sum(band.height for band in some) for some in bands)
        whole = across * (width + gap) - gap
        foot = [note_band(whole, text, frame.note)] if frame.note and frame.legend else []
        total = down * (height + gap) - gap + sum(band.height for band in foot)
        return cls((whole, total), (width, height), gap, across, bands, foot)

    def drawn(self, photo: Pixels, draw: Callable[[Pixels, int], Image.Image]) -> Image.Image:
        """Returns the picture. photo: in the size that the layout was made for."""
        sheet = Image.new("RGB", self.size, GROUND)
        width, height = self.panel
        for number, bands in enumerate(self.bands):
            panel = stacked(width, [draw(photo, number), *bands])
            row, column = divmod(number, self.across)
            sheet.paste(panel, (column * (width + self.gap), row * (height + self.gap)))
        top = self.size[1] - sum(band.height for band in self.foot)
        for band in self.foot:
            sheet.paste(band, (0, top))
            top += band.height
        return sheet
