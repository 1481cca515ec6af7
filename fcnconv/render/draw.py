"""Drawing score maps over the photo.

A cell is drawn at the centre of its window, and values between the centres are interpolated (bicubic). Beyond
the outermost centres the value is extended, and where cells are windows it fades to nothing at the image's
border. Alternatively, each cell fills its own square, of one stride around its centre, and nothing is drawn
outside these squares. Where a class is improbable, the photo stays unchanged.

Values stay floating-point numbers until the colours are blended with the photo, so that no bands appear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fcnconv.grid import Grid
from fcnconv.images import Pixels
from fcnconv.options import DEFAULT_COLOUR_MAP, ColourMap
from fcnconv.render.colours import STEPS, distinct_colours, opacity_map, smooth_colours
from fcnconv.render.legend import Key
from fcnconv.scores import FloatArray, shown

FLOOR = 0.1
"""Default probability below which the top class of a window is not coloured."""

KEY_CLASSES, KEY_SHARE = 12, 0.01
"""Most classes that the key of a map of top classes names, the most frequent first, and the least share of
the coloured cells that such a class has. The other classes share one grey.
"""

STRIP = 64
"""Rows of pixels that are coloured at once, so that their arrays stay in the processor's caches: a picture of
640 × 428 px takes 12 ms, and 19 ms with 256 rows.
"""

_LINE_STRIP = 256
"""Rows of pixels on which lines are drawn at once."""

_OTHERS = (128, 128, 128)
_READABLE = 0.6
_MIDDLE_GREY = 118
_GREYED = 2.0
"""Factor of the colour's opacity that gives the photo's loss of hue: at an opacity of 1/2 and above the photo
is grey, below it keeps its hues in proportion.
"""


@dataclass(frozen=True)
class Style:
    """How maps are drawn.

    Attributes:
        cells: Fill each cell's own square; False interpolates between the centres.
        colormap: The colours of probabilities.
        top: The probability at the end of the scale, above 0.
    """

    cells: bool = False
    colormap: ColourMap = DEFAULT_COLOUR_MAP
    top: float = 1.0


SMOOTH = Style()


def draw_plane(photo: Pixels, plane: FloatArray, grid: Grid, style: Style = SMOOTH) -> Image.Image:
    """Returns the photo with one class's probability drawn over it.

    Args:
        photo: uint8 (H, W, 3), the scanned image at any size. The picture has the same size.
        plane: float32 (rows, cols), 0 to 1: the probability of the class in each cell.
        grid: The grid of the map.
        style: How the map is drawn.
    """

    def coloured(planes: FloatArray) -> tuple[FloatArray, FloatArray]:
        level = _level(planes[:, :, 0] / np.float32(style.top))
        return smooth_colours(style.colormap)[level], opacity_map(STEPS)[level]

    return _tinted(photo, grid, plane[:, :, None], coloured, style)


@dataclass(frozen=True)
class Winners:
    """The top class of each place, ready to be drawn over a photo, and the key of its colours.

    Attributes:
        planes: float32 (rows, cols, n), the probabilities of the named classes, and last the probability of
            the others.
        colours: float32 (n, 3).
        key: The classes that occur.
    """

    planes: FloatArray
    colours: FloatArray
    key: Key
    grid: Grid
    at_least: float

    @classmethod
    def of(
        cls,
        class_idx: npt.NDArray[np.integer],
        probability: FloatArray,
        grid: Grid,
        names: Sequence[str],
        at_least: float = FLOOR,
    ) -> Winners:
        """Returns the top classes of a map.

        Args:
            class_idx: (rows, cols, k): the k best classes of each cell, best first, as indices into `names`.
                With k above 1 the borders between classes are smooth.
            probability: (rows, cols, k): their probabilities.
            grid: The grid of the map.
            names: The names of the classes.
            at_least: The probability below which nothing is coloured.
        """
        named, others = _ranked(class_idx[:, :, 0], probability[:, :, 0] >= at_least)
        colours = np.array([*distinct_colours(len(named)).tolist(), _OTHERS], np.float32)
        planes = np.zeros((*class_idx.shape[:2], len(colours)), np.float32)
        for rank in range(class_idx.shape[2]):
            place = np.full(len(names), len(named))
            place[named] = np.arange(len(named))
            which = place[class_idx[:, :, rank], None]
            highest = np.fmax(np.take_along_axis(planes, which, -1), probability[:, :, rank, None])
            np.put_along_axis(planes, which, highest, -1)
        sure = [planes[:, :, i][planes.argmax(-1) == i].mean() for i in range(len(named))]
        key: Key = [(names[i], _seen(colours[n], sure[n], at_least)) for n, i in enumerate(named)]
        if others:
            key.append((f"{others} other{'s' if others > 1 else ''}", _OTHERS))
        return cls(planes, colours, key, grid, at_least)

    def draw(self, photo: Pixels, style: Style = SMOOTH) -> Image.Image:
        """Returns the photo with the top class of each place in the class's colour, which is paler where the
        class is less probable.
        """

        def coloured(planes: FloatArray) -> tuple[FloatArray, FloatArray]:
            return self.colours[planes.argmax(-1)], _opacity(planes.max(-1), self.at_least)

        return _tinted(photo, self.grid, self.planes, coloured, style)


def _ranked(winner: npt.NDArray[np.integer], counts: npt.NDArray[np.bool_]) -> tuple[list[int], int]:
    """Returns the classes that the key names, and the number of other top classes. counts: the cells that
    count.
    """
    classes, times = np.unique(winner[counts], return_counts=True)
    ranked = classes[np.argsort(-times, kind="stable")].tolist()
    shown = ranked[: min(KEY_CLASSES, int((times >= KEY_SHARE * times.sum()).sum()))]
    return shown, len(ranked) - len(shown)


def _level(share: FloatArray) -> npt.NDArray[np.intp]:
    """Returns the step of the colour scale for each value. Values outside 0 to 1 get its ends."""
    level: npt.NDArray[np.intp] = np.rint(np.clip(share, 0, 1) * (STEPS - 1)).astype(np.intp)
    return level


def _opacity(probability: FloatArray, at_least: float) -> FloatArray:
    """Returns the opacity of the top class's colour: 0 at the floor, so that no edge appears there. It rises
    with the square root, because the colours of classes do not show how probable they are.
    """
    above = np.clip((probability - at_least) / max(1 - at_least, 1e-6), 0, 1)
    share: FloatArray = np.float32(0.75) * np.sqrt(above)
    return share


def _seen(colour: FloatArray, probability: float, at_least: float) -> tuple[int, ...]:
    """Returns how a colour appears over a middle grey, but strong enough for the key to be readable."""
    share = max(float(_opacity(np.array(probability, np.float32), at_least)), _READABLE)
    return tuple(np.round(share * colour + (1 - share) * _MIDDLE_GREY).astype(int).tolist())


def _tinted(
    photo: Pixels,
    grid: Grid,
    planes: FloatArray,
    coloured: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    style: Style,
) -> Image.Image:
    """Returns the photo with colours blended over it.

    Args:
        photo: uint8 (H, W, 3).
        grid: The grid of the map.
        planes: Values (rows, cols, n) of the cells, NaN outside the region of interest.
        coloured: Maps the values of pixels, (h, w, n), to their colours (h, w, 3) and opacity (h, w).
        style: How the map is drawn.
    """
    picture = np.empty_like(photo)
    for rows, values, weight in _strips(planes, grid, photo.shape[:2], style):
        colours, opacity = coloured(values)
        share = (opacity * weight)[:, :, None].astype(np.float32)
        under = photo[rows].astype(np.float32)
        grey = (under @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
        under += np.minimum(_GREYED * share, 1) * (grey - under)  # grey hues cannot mislead
        picture[rows] = np.round(share * colours + (1 - share) * under)
    return Image.fromarray(picture)


_FINER = 4
"""Supersampling factor of lines: they are drawn larger by this factor and then reduced, so that they are
smooth.
"""


def draw_outlines(
    picture: Image.Image, rings: Sequence[npt.NDArray[np.float64]], image_size: tuple[int, int]
) -> Image.Image:
    """Returns the picture with closed lines over it, white with a dark rim, which are visible on every
    colour.

    Args:
        picture: The picture.
        rings: float64 (n, 2) each, x and y in pixels of the original image.
        image_size: The size of the original image.
    """
    width, height = picture.size
    thick = max(min(picture.size) / 300, 1.5)
    scaled = [ring * [width / image_size[0], height / image_size[1]] * _FINER for ring in rings]
    for top in range(0, height, _LINE_STRIP) if rings else ():
        bottom = min(top + _LINE_STRIP, height)
        strip = picture.crop((0, top, width, bottom))
        for colour, wide in ((0, 2.2 * thick), (255, thick)):
            mask = Image.new("L", (width * _FINER, (bottom - top) * _FINER))
            draw = ImageDraw.Draw(mask)
            for ring in scaled:
                points = [(x, y - top * _FINER) for x, y in [*ring.tolist(), ring[1].tolist()]]
                draw.line(points, 255, round(wide * _FINER), "curve")  # rounds the first corner as well
            strip.paste((colour, colour, colour), mask=mask.reduce(_FINER))
        picture.paste(strip, (0, top))
    return picture


def spread(
    plane: FloatArray, grid: Grid, size: tuple[int, int], style: Style = SMOOTH
) -> Iterator[tuple[slice, FloatArray]]:
    """Yields the probability of one class in the pixels of a picture: some rows, and their values, float32
    (h, width).

    Beyond the centres of the outermost windows the value is extended. With a style that draws single cells it
    is 0 there.

    Args:
        plane: float32 (rows, cols), of the cells.
        grid: The grid of the map.
        size: (height, width) of the picture.
        style: How the map is drawn.
    """
    linear = Image.Resampling.BILINEAR  # unlike bicubic, it never exceeds the values of the cells
    for rows, values, weight in _strips(plane[:, :, None], grid, size, style, linear):
        yield rows, values[:, :, 0] * (weight if style.cells else np.float32(1))


def _strips(
    planes: FloatArray,
    grid: Grid,
    size: tuple[int, int],
    style: Style,
    filter: Image.Resampling = Image.Resampling.BICUBIC,
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """Yields the rows of a picture strip by strip, which limits the memory for a large picture: the rows, the
    values there (h, width, n), and the visibility of the map there, 0 to 1, (h, width).
    """
    down, across = (
        _Axis.of(length, scanned, grid, count)
        for length, scanned, count in zip(size, grid.scan_size[::-1], planes.shape[:2], strict=True)
    )
    planes = shown(planes)
    edges = ((down.pad, down.pad), (across.pad, across.pad), (0, 0))
    padded = None if style.cells else _images(np.pad(planes, edges, "edge"))
    for top in range(0, size[0], STRIP):
        rows = slice(top, min(top + STRIP, size[0]))
        if padded is None:
            values = planes[down.cell[rows]][:, across.cell]
            weight = (down.inside[rows, None] & across.inside).astype(np.float32)
        else:
            box = (across.edge(0), down.edge(rows.start), across.edge(size[1]), down.edge(rows.stop))
            shape = size[1], rows.stop - rows.start
            spread = [image.resize(shape, filter, box) for image in padded]
            values = np.clip(np.stack([np.asarray(plane) for plane in spread], axis=-1), 0, 1)
            weight = down.fade[rows, None] * across.fade
        yield rows, values, weight


def _images(planes: FloatArray) -> list[Image.Image]:
    """Returns planes (h, w, n) as images of 32-bit floats, which Pillow can resize."""
    return [
        Image.fromarray(np.ascontiguousarray(planes[:, :, k], np.float32)) for k in range(planes.shape[2])
    ]


@dataclass(frozen=True)
class _Axis:
    """The position of a picture's pixels among the cells along one axis.

    Attributes:
        cell: int (length,), the nearest cell.
        inside: bool (length,), whether the pixel is in the square of that cell.
        fade: float32 (length,), 0 to 1: the visibility of the interpolated map.
        pad: The number of cells that are added at either end.
        first: The position of the picture's edge among the padded cells, in Pillow's units: cell k covers k
            to k + 1.
        step: Cells per pixel.
    """

    cell: npt.NDArray[np.intp]
    inside: npt.NDArray[np.bool_]
    fade: FloatArray
    pad: int
    first: float
    step: float

    @classmethod
    def of(cls, length: int, scanned: int, grid: Grid, count: int) -> _Axis:
        """Returns an axis of `length` pixels, for an image that was scanned at `scanned` pixels with `count`
        cells.
        """
        first, last = grid.centre(0.0), grid.centre(count - 1.0)
        pixel: npt.NDArray[np.float64] = (np.arange(length, dtype=np.float64) + 0.5) * (scanned / length)
        place = grid.cell_at(pixel)  # 0 at the first window's centre, 1 at the second's
        cell = np.clip(np.floor(place + 0.5).astype(np.intp), 0, count - 1)
        inside = (place >= -0.5) & (place < count - 0.5)
        inwards = np.clip(np.minimum(pixel / first, (scanned - pixel) / (scanned - last)), 0, 1)
        fade = 1 - (1 - inwards) ** 2  # flat where it joins the map; 0 at the border
        if grid.window <= grid.stride * grid.phases:  # single feature cells, which cover the whole image
            fade = np.ones_like(fade)
        pad = ceil(max(first, scanned - last) / grid.stride) + 1
        start = pad + 0.5 - first / grid.stride
        return cls(cell, inside, fade.astype(np.float32), pad, start, scanned / length / grid.stride)

    def edge(self, pixel: int) -> float:
        """Returns the position of a pixel's edge among the padded cells."""
        return self.first + pixel * self.step
