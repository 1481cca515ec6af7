"""Reads microscopy TIFF files with tifffile: OME, ImageJ, QPTIFF and others whose pages form a series.

tifffile finds the series of pages, their axes and their pyramid; the channels become bands here. Without
rasterio, all TIFF files are read this way.
"""

from __future__ import annotations

import io
import logging
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.images.bands import BandSource, Values
from fcnconv.images.pixel_size import PixelSize, of_aperio, of_imagej, of_ome, of_resolution
from fcnconv.images.samples import PLAIN, WHITE, Asked, Declared, Samples, choose_samples
from fcnconv.images.source import CACHE_PIXELS

log = logging.getLogger("fcnconv")

_SILENT = logging.NullHandler()
"""For tifffile, which would otherwise log everything odd about a file. One handler for all files, because
handlers add up.
"""

_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)
"""The exceptions that tags with unexpected content cause."""

_GREY, _RGB, _YCBCR, _WHITE_IS_ZERO = 1, 2, 6, 0
_ASSOCIATED, _UNASSOCIATED = 1, 2


@dataclass(frozen=True)
class _Picture:
    """One plane of a series that is an image of its own.

    Attributes:
        series: its number.
        planes: for each level, the numbers of the pages that hold its channels.
    """

    series: int
    planes: tuple[tuple[int, ...], ...]


class TiffSource(BandSource):
    """A level of a picture in a TIFF, whose channels lie in one page or in one page each.

    Args:
        pages: of tifffile.
        frames: number of pictures in the file.
        pixel_size: metres across and down a pixel.
    """

    def __init__(
        self,
        pages: Sequence[Any],
        name: str,
        file: _File,
        samples: Samples,
        frames: int = 1,
        pixel_size: PixelSize | None = None,
    ):
        self.pages, self.page, self.file = tuple(pages), pages[0], file
        self.lock = threading.Lock()
        high, wide = _segment(self.page)
        self.across = -(-self.page.imagewidth // wide)
        size = self.page.imagewidth, self.page.imagelength
        super().__init__(name, size, (wide, high), samples, frames, pixel_size=pixel_size)

    @classmethod
    def open(
        cls, content: Path | bytes, name: str, asked: Asked = PLAIN, samples: Samples | None = None
    ) -> TiffSource | None:
        """Opens a picture of a file; None if tifffile cannot read its segments.

        Args:
            content: a path, or an encoded file.
            name: of the image, for messages.
            asked: the options. Its frame is the number of a picture; None is the first plane of the largest
                series.
            samples: the samples that another reader of the file has settled, if this one must read the bands
                in the same way; else None.

        Raises:
            ImageError: if the user has to choose the bands or their ranges.
        """
        import tifffile

        tifffile.logger().addHandler(_SILENT)
        try:
            file = _File(tifffile.TiffFile(content if isinstance(content, Path) else io.BytesIO(content)))
        except (OSError, ValueError, tifffile.TiffFileError):
            return None
        frame = asked.frame
        try:
            pictures = _pictures(file.tiff)
            chosen = pictures[frame - 1] if frame is not None else _largest(file.tiff, pictures)
            levels = [
                [_page(level, number, name) for number in numbers]
                for level, numbers in zip(file.tiff.series[chosen.series].levels, chosen.planes, strict=False)
            ]
            for pages in levels:
                for page in pages:
                    _require_whole(page)
            declared = _declared(levels[0])
        except IndexError as error:
            if frame is not None and frame > 1:
                raise ImageError(f"{name}: has no frame {frame}, only {len(pictures)}") from error
            return None
        except _DAMAGE:
            return None
        settled = samples is not None
        if samples is None:
            samples = choose_samples(name, declared, asked)
        elif samples.declared != declared:
            return None
        size = None
        with suppress(*_DAMAGE):
            size = _pixel_size(file.tiff, chosen.series, levels[0][0])
        source, *rest = (TiffSource(pages, name, file, samples, len(pictures), size) for pages in levels)
        try:
            source._values(source._box(0, 0))
        except ImageError:
            return None  # a compression that needs a package, or damage: another reader may read or report it
        source.levels = (source, *rest)
        if not settled:
            source.settle(asked.rescale)
        return source

    def _values(self, box: Box) -> Values:
        x0, y0, x1, y1 = box
        wide, high = self.blocks.block
        page, index = self.page, y0 // high * self.across + x0 // wide
        needed = [band - 1 for band in self.samples.needed]
        if len(self.pages) > 1:
            planes = [self._decode(index, self.pages[band]) for band in needed]
        elif int(page.planarconfig) == 1 or page.samplesperpixel == 1:
            found = self._decode(index, page)
            planes = [found if needed == list(range(found.shape[2])) else found[:, :, needed]]
        else:
            per_plane = self.across * -(-page.imagelength // high)
            planes = [self._decode(index + band * per_plane, page) for band in needed]
        if len({plane.shape[:2] for plane in planes}) > 1:
            raise ImageError(f"{self.name}: damaged or cut short: its channels differ in size")
        found = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return found[: y1 - y0, : x1 - x0], None

    def _decode(self, index: int, page: Any) -> npt.NDArray[Any]:
        wide, high = self.blocks.block
        try:
            with self.lock:
                file = page.parent.filehandle
                if file.closed:  # a series in several files
                    file.open()
                file.seek(page.dataoffsets[index])
                data = file.read(page.databytecounts[index]) or None
            decoded, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:  # decoders raise anything on damaged data
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        if decoded is None:  # a sparse file leaves empty segments out
            planes = 1 if int(page.planarconfig) != 1 else page.samplesperpixel
            return np.zeros((high, wide, planes), page.dtype)
        found: npt.NDArray[Any] = decoded[0, : shape[1], : shape[2]]
        return found


class _File:
    """Keeps a TIFF open as long as one of its sources exists."""

    def __init__(self, tiff: Any):
        self.tiff = tiff
        weakref.finalize(self, tiff.close)


def _pictures(file: Any) -> list[_Picture]:
    """The pictures of a file, series by series: each plane of depth and time with all of its channels."""
    pictures = []
    for number, series in enumerate(file.series):
        keyframe, axes = series.keyframe, series.axes
        if not {"X", "Y"} <= set(keyframe.axes):
            continue
        leading = axes[: len(axes) - len(keyframe.axes)] if axes.endswith(keyframe.axes) else ""
        if not leading and len(series.shape) != len(keyframe.shape):
            continue  # in another order of axes, the meaning of a page is unknown
        shape = series.shape[: len(leading)]
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        for place, axis in enumerate(leading):  # (…, C, …) -> (…, C)
            if axis == "C":
                numbers = np.moveaxis(numbers, place, -1)
        stacks = numbers.reshape(-1, shape[leading.index("C")] if "C" in leading else 1)
        for stack in stacks:
            planes = tuple(map(int, stack))
            pictures.append(_Picture(number, (planes,) * len(series.levels)))
    return pictures or [_Picture(0, ((0,),))]


def _largest(file: Any, pictures: Sequence[_Picture]) -> _Picture:
    """The first picture of the series with the most pixels: a slide's file also contains labels and macro
    images.
    """
    pages = (file.series[picture.series].keyframe for picture in pictures)
    areas = [page.imagewidth * page.imagelength for page in pages]
    return pictures[areas.index(max(areas))]


def _page(level: Any, number: int, name: str) -> Any:
    """A page of a level. A contiguous series, as ImageJ writes it, has only the first page."""
    page = level.pages[number]
    if page is None:
        if level.dataoffset is None:
            raise ImageError(f"{name}: one of its channels lies in another file, which is missing")
        first = level.pages[0].aspage()
        bytes_each = first.nbytes
        return _Shifted(first, level.dataoffset + number * bytes_each)
    return page.aspage() if hasattr(page, "aspage") else page


class _Shifted:
    """A page of a contiguous series: like the first, at a later place in the file."""

    def __init__(self, first: Any, start: int):
        self._first, self._start = first, start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

    @property
    def dataoffsets(self) -> tuple[int, ...]:
        shift = self._start - self._first.dataoffsets[0]
        return tuple(offset + shift for offset in self._first.dataoffsets)


def _require_whole(page: Any) -> None:
    """Checks the tags of a page.

    Raises:
        ValueError: if tags have the wrong type, if the page has no size, or if it has more segments than the
            file has places for.
    """
    high, wide = _segment(page)
    sides = (page.imagewidth, page.imagelength, wide, high, page.samplesperpixel)
    if not all(isinstance(side, int) and side > 0 for side in sides) or page.planarconfig not in (1, 2):
        raise ValueError("no size")
    if len(page.extrasamples) >= page.samplesperpixel:
        raise ValueError("no colours")
    if page.samplesperpixel * high * wide > 4 * CACHE_PIXELS:
        raise ValueError("one segment")
    planes = 1 if page.planarconfig == 1 else page.samplesperpixel
    count = -(-page.imagewidth // wide) * -(-page.imagelength // high) * planes
    if count > min(len(page.dataoffsets), len(page.databytecounts)):
        raise ValueError("fewer segments than it has places for")


def _segment(page: Any) -> tuple[int, int]:
    """(height, width) of a tile or a strip."""
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


def _declared(pages: Sequence[Any]) -> Declared:
    """The declarations of a picture's pages about their bands."""
    page, kind = pages[0], int(pages[0].photometric)
    dtype = np.dtype(page.dtype)
    white = WHITE.get(str(dtype))
    if len(pages) > 1:
        return Declared(len(pages), dtype, None, white)  # channels never declare colours
    if kind not in (_WHITE_IS_ZERO, _GREY, _RGB, _YCBCR):
        raise ValueError("colours of another kind")
    extra = [int(sample) for sample in page.extrasamples]
    count = page.samplesperpixel - len(extra)
    alpha = next(
        (count + i + 1 for i, sample in enumerate(extra) if sample in (_ASSOCIATED, _UNASSOCIATED)), None
    )
    colours: tuple[int, ...] | None = (1, 2, 3) if kind in (_RGB, _YCBCR) and count == 3 else None
    if kind in (_WHITE_IS_ZERO, _GREY) and count == 1 and len(extra) == (alpha is not None):
        colours = (1,)
    bits = page.bitspersample
    if white is not None and isinstance(bits, int) and dtype.kind == "u" and bits < 8 * dtype.itemsize:
        white = (0.0, float((1 << bits) - 1))
    if white is not None and kind == _WHITE_IS_ZERO:
        white = white[::-1]
    premultiplied = alpha is not None and extra[alpha - count - 1] == _ASSOCIATED
    return Declared(page.samplesperpixel, dtype, colours, white, alpha, premultiplied)


def _pixel_size(file: Any, series: int, page: Any) -> PixelSize | None:
    """Metres across and down a pixel: by OME's metadata, ImageJ's, Aperio's, or the resolution."""
    if file.is_ome:
        return of_ome(str(file.ome_metadata or ""), series)
    if file.is_imagej:
        return of_imagej(file.imagej_metadata or {}, page)
    if size := of_aperio(str(page.description)):
        return size
    x, y = (page.tags.valueof(f"{axis}Resolution") for axis in "XY")
    if not x or not y or not all((*x, *y)):
        return None
    return of_resolution(x[0] / x[1], y[0] / y[1], int(page.tags.valueof("ResolutionUnit", default=1)))
