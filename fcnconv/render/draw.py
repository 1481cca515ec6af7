"""Drawing score maps over the photo, where the windows are.

A cell is drawn at the centre of its window, and the colours run smoothly from one centre to the next. Beyond
the outermost centres the value is carried outward and fades to nothing at the image's border. Or each cell
fills its own square, of one stride around its centre, and nothing is drawn outside of these squares. Where a
class is improbable the photo is seen as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.grid import Grid
from fcnconv.render.colours import Colours, colour_map, distinct_colours, opacity_map
from fcnconv.render.legend import Key
from fcnconv.scores import FloatArray, shown
from fcnconv.sources import Pixels

FLOOR = 0.1
"""Probability under which the winner of a window is no finding, unless told."""

KEY_CLASSES, KEY_SHARE = 12, 0.01
"""A map of winners names so many classes, the most frequent, of those that win this share of the coloured
cells; the others share one grey.
"""

STRIP = 256
"""Rows of pixels that are coloured at once."""

_OTHERS = (128, 128, 128)
_MIDDLE_GREY = 118
_GREYED = 2.0
"""Under a share of the colour over half the photo is grey, below it has its own hues in proportion."""


@dataclass(frozen=True)
class Style:
    """How maps are drawn. cells: fill each cell's own square; False runs smoothly between the centres."""

    cells: bool = False


SMOOTH = Style()


def draw_plane(photo: Pixels, plane: FloatArray, grid: Grid, style: Style = SMOOTH) -> Image.Image:
    """The photo with one class's probability over it.

    photo: uint8 (H, W, 3), the image that was scanned, at any size, which the picture has.
    plane: float32 (rows, cols), 0 to 1: the probability of the class in each cell.
    """

    def coloured(planes: FloatArray) -> tuple[Colours, FloatArray]:
        level = np.round(planes[:, :, 0] * 255).astype(np.uint8)
        return colour_map()[level], opacity_map()[level]

    return _tinted(photo, grid, plane[:, :, None], coloured, style)


def draw_winners(
    photo: Pixels,
    class_idx: npt.NDArray[np.integer],
    probability: FloatArray,
    grid: Grid,
    names: Sequence[str],
    *,
    at_least: float = FLOOR,
    style: Style = SMOOTH,
) -> tuple[Image.Image, Key]:
    """The photo with the most probable class of each place over it, in a colour of its own that is paler
    where it is less sure, and the key of the classes that occur.

    class_idx, probability: (rows, cols, k): the k best classes of each cell, indices into `names`, and their
        probabilities, best first. With more than one the borders between classes run smoothly.
    at_least: probability under which nothing is coloured.
    """
    shown, others = _ranked(class_idx[:, :, 0], probability[:, :, 0] >= at_least)
    colours = np.array([*distinct_colours(len(shown)).tolist(), _OTHERS], np.uint8)
    planes = np.zeros((*class_idx.shape[:2], len(colours)), np.float32)
    for rank in range(class_idx.shape[2]):
        place = np.full(len(names), len(shown))
        place[shown] = np.arange(len(shown))
        which = place[class_idx[:, :, rank], None]
        highest = np.fmax(np.take_along_axis(planes, which, -1), probability[:, :, rank, None])
        np.put_along_axis(planes, which, highest, -1)

    def coloured(planes: FloatArray) -> tuple[Colours, FloatArray]:
        best = planes.argmax(-1)
        return colours[best], _opacity(planes.max(-1), at_least)

    picture = _tinted(photo, grid, planes, coloured, style)
    sure = [planes[:, :, i][planes.argmax(-1) == i].mean() for i in range(len(shown))]
    key: Key = [(names[i], _seen(colours[n], sure[n], at_least)) for n, i in enumerate(shown)]
    if others:
        key.append((f"{others} others", _OTHERS))
    return picture, key


def _ranked(winner: npt.NDArray[np.integer], counts: npt.NDArray[np.bool_]) -> tuple[list[int], int]:
    """The classes that are named, and the number of others that win somewhere. counts: where."""
    classes, times = np.unique(winner[counts], return_counts=True)
    ranked = classes[np.argsort(-times, kind="stable")].tolist()
    shown = ranked[: min(KEY_CLASSES, int((times >= KEY_SHARE * times.sum()).sum()))]
    return shown, len(ranked) - len(shown)


def _opacity(probability: FloatArray, at_least: float) -> FloatArray:
    """The share of the colour of winners: nothing at the floor, so that no edge is seen there."""
    above = np.clip((probability - at_least) / max(1 - at_least, 1e-6), 0, 1)
    share: FloatArray = opacity_map()[np.round(above * 255).astype(np.uint8)]
    return share


def _seen(colour: Colours, probability: float, at_least: float) -> tuple[int, ...]:
    """A colour as it is seen over a middle grey."""
    share = float(_opacity(np.array(probability, np.float32), at_least))
    return tuple(np.round(share * colour + (1 - share) * _MIDDLE_GREY).astype(int).tolist())


def _tinted(
    photo: Pixels,
    grid: Grid,
    planes: FloatArray,
    coloured: Callable[[FloatArray], tuple[Colours, FloatArray]],
    style: Style,
) -> Image.Image:
    """The photo with colours over it.

    planes: values (rows, cols, n) of the cells, NaN where they were not looked at.
    coloured: makes the colours (h, w, 3) of pixels, and their opacity (h, w), of the values there, (h, w, n).
    """
    picture = np.empty_like(photo)
    for rows, values, weight in _strips(planes, grid, photo.shape[:2], style):
        colours, opacity = coloured(values)
        share = (opacity * weight)[:, :, None].astype(np.float32)
        under = photo[rows].astype(np.float32)
        grey = (under @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
        under += np.minimum(_GREYED * share, 1) * (grey - under)  # whose hues cannot mislead
        picture[rows] = np.round(share * colours + (1 - share) * under)
    return Image.fromarray(picture)


def spread(
    plane: FloatArray, grid: Grid, size: tuple[int, int], style: Style = SMOOTH
) -> Iterator[tuple[slice, FloatArray]]:
    """The probability of one class in the pixels of a picture: some rows, and their values, float32 (h,
    width).

    plane: float32 (rows, cols), of the cells. size: (height, width) of the picture. Beyond the outermost
    windows' centres the value is carried outward; of single cells it is 0 there.
    """
    for rows, values, weight in _strips(plane[:, :, None], grid, size, style):
        yield rows, values[:, :, 0] * (weight if style.cells else np.float32(1))


def _strips(
    planes: FloatArray, grid: Grid, size: tuple[int, int], style: Style
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """The rows of a picture, a strip at a time, which is all the memory that a large one takes: which, the
    values there (h, width, n), and how much of the map is seen there, 0 to 1, (h, width).
    """
    down, across = (
        _Axis.of(length, scanned, grid, count, style)
        for length, scanned, count in zip(size, grid.scan_size[::-1], planes.shape[:2], strict=True)
    )
    planes = shown(planes)
    for top in range(0, size[0], STRIP):
        rows = slice(top, min(top + STRIP, size[0]))
        values = across.spread(down.spread(planes, rows).transpose(1, 0, 2)).transpose(1, 0, 2)
        yield rows, values, down.weight[rows, None] * across.weight


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of a picture lie among the cells, along one axis.

    before, after: int (length,), the cells whose values a pixel mixes. share: of the second, 0 to 1.
    weight: float32 (length,), 0 to 1: how much of the map is seen there.
    """

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    share: FloatArray
    weight: FloatArray

    @classmethod
    def of(cls, length: int, scanned: int, grid: Grid, count: int, style: Style) -> _Axis:
        """An axis of `length` pixels, of an image that was scanned at `scanned`, with `count` cells."""
        first = grid.window / 2
        pixel = (np.arange(length) + 0.5) * (scanned / length)
        place = (pixel - first) / grid.stride  # 0 at the first window's centre, 1 at the second's
        if style.cells:
            nearest = np.clip(np.floor(place + 0.5).astype(np.intp), 0, count - 1)
            inside = (place >= -0.5) & (place < count - 0.5)
            return cls(nearest, nearest, np.zeros(length, np.float32), inside.astype(np.float32))
        last = first + (count - 1) * grid.stride
        inwards = np.clip(np.minimum(pixel / first, (scanned - pixel) / (scanned - last)), 0, 1)
        weight = 1 - (1 - inwards) ** 2  # level where it joins the map; 0 at the border
        place = np.clip(place, 0, count - 1)
        before = np.minimum(place.astype(np.intp), max(count - 2, 0))
        after = np.minimum(before + 1, count - 1)
        return cls(before, after, (place - before).astype(np.float32), weight.astype(np.float32))

    def spread(self, values: FloatArray, pixels: slice = slice(None)) -> FloatArray:
        """The values of cells, along the first axis, at pixels: (count, …) -> (len(pixels), …)."""
        share = self.share[pixels, None, None]
        result: FloatArray = values[self.before[pixels]] * (1 - share) + values[self.after[pixels]] * share
        return result
