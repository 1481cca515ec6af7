"""A picture to show: the map over the photo with its legend, or a sheet of several, a panel a class.

The legend is laid out first, then the photo is drawn in the room that is left, so that a picture has the size
that was asked for and its text the size that can be read.
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
"""Pixels of the longer side that a smaller photo is enlarged to, where a legend stands below it."""

NARROWEST = 320
"""Pixels that a picture with a legend is at least wide, where its size allows it: room for words."""

FEWEST = 48
"""Pixels of a photo's longer side under which a legend would take too much of the picture."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """What surrounds the photo of a picture.

    legend: whether a legend stands below it. note: a line below everything, with the legend only.
    side: pixels that no side of the whole picture is longer than.
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
    """The photo with one class's probability over it; of several classes, a panel each.

    photo: uint8 (H, W, 3), the image that was scanned, at any size. It is enlarged to `LEGIBLE` where it is
        smaller and has a legend, and made smaller where the picture would be longer than `frame.side`.
    planes: float32 (rows, cols, len(titles)), 0 to 1: the probability of each class in each cell.
    titles: what the legend says of each class.
    stretch: the colours of each panel end at its highest probability instead of at 1, and the legend says so.
    outlines: of each class the rings of its regions, see `draw_outlines`; none for no outlines.
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
    """A picture of the top classes with its key below it.

    photo: as for `class_sheet`. draw: draws the classes over a photo. key: see `draw_winners`.
    """

    def legends(width: int, size: int) -> list[list[Image.Image]]:
        return [[key_band(width, size, key)] if key else []]

    return _sheet(photo, 1, lambda photo, _: draw(photo), legends, frame)


def _highest(plane: FloatArray) -> float:
    """The end of a stretched scale: the highest value that is shown, or 1 where that is 0."""
    return float(np.nanmax(plane, initial=0)) or 1.0


def sheet_shape(count: int, size: Size) -> Size:
    """(panels in a row, rows) of a sheet of `count` panels of this (width, height): up to three in a row,
    more as a sheet about as wide as high.
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
    """`count` panels, each drawn over the photo, with what `legends` makes for a width and a text size."""
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
    """A photo's size, enlarged where it is too small for a legible picture."""
    return _smaller(size, max(1.0, LEGIBLE / max(size)))


def _within(size: Size, panels: Size, side: int) -> Size:
    """The size of the photo in each panel where no side of all panels may be longer than `side`."""
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
    """Where everything stands. size: of the whole. panel: (width, height) of a panel, its bands included.

    bands: of each panel, what stands below its photo. foot: what stands below all panels.
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
        """The picture. photo: in the size that the layout was made for."""
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
