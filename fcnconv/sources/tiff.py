"""TIFF and BigTIFF files whose pixels lie in tiles or strips, each of which can be read by itself."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.parsing import Rescale
from fcnconv.sources.blocks import CACHE_PIXELS, Blocks
from fcnconv.sources.geo import TAGS, GeoReference, named_by_gdal, read_georeference, read_world_file
from fcnconv.sources.pixel_size import of_tiff
from fcnconv.sources.samples import NEARLY_BLACK, WHITE, Samples, choose_samples
from fcnconv.sources.source import ENOUGH_SAMPLES, ENOUGH_SIDE, Pixels

log = logging.getLogger("fcnconv")

SUFFIXES = (".tif", ".tiff", ".btf", ".svs")

_SILENT = logging.NullHandler()
"""For tifffile, which would tell the user whatever is odd about a file. One for all, as handlers add up."""

_DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError)
"""What comes of tags that hold something else than they should."""

_GREY, _RGB, _YCBCR = 1, 2, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2


class TiffSource:
    """A page of grey, RGB or YCbCr in 8 or 16 bits a channel, on white where it is see-through; or of samples
    of any kind.

    page: of tifffile. file: what must stay open. smaller: pages of the same picture, the largest first.
    planes: the pages of its bands, in an OME-TIFF that has one for each; smaller_planes: those of `smaller`.
    frames: how many pictures the file holds, of which this is one. samples: how those that are no plain
        colours are seen. mask: the page that tells where it has data.
    """

    def __init__(
        self,
        page: Any,
        name: str,
        file: Any,
        smaller: tuple[Any, ...] = (),
        frames: int = 1,
        samples: Samples | None = None,
        mask: Any = None,
        planes: tuple[Any, ...] = (),
        smaller_planes: tuple[tuple[Any, ...], ...] = (),
    ):
        self.frames = frames
        self.planes = planes
        self.smaller_planes = smaller_planes
        self.mask = mask
        self.samples = samples
        self.page = page
        self.name = name
        self.file = file
        self.smaller = smaller
        high, wide = _segment(page)
        self.across = -(-page.imagewidth // wide)
        self.blocks = Blocks(self.size, (wide, high), self._block)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.page.imagewidth, self.page.imagelength

    @property
    def channels(self) -> int:
        """Of its pixels."""
        return 3 if self.samples is None else self.samples.channels

    @cached_property
    def georeference(self) -> GeoReference | None:
        """Where the image lies on the map, if the file says it. Damaged tags say nothing."""
        tags = {number: tag.value for number in TAGS if (tag := self.page.tags.get(number))}
        place = None
        with suppress(*_DAMAGE):
            place = read_georeference(tags)
        if place is None:
            return read_world_file(self._path)
        return place if place.system or not place.tags else named_by_gdal(place, self._path)

    @property
    def _path(self) -> Path:
        return Path(self.page.parent.filehandle.path)

    @property
    def pixel_size(self) -> float | None:
        """Metres across a pixel, if the file says it. Damaged tags say nothing."""
        with suppress(*_DAMAGE):
            return of_tiff(self.page, self.georeference)
        return None

    @cached_property
    def levels(self) -> tuple[TiffSource, ...]:
        """This page and the smaller ones."""
        planes = self.smaller_planes or ((),) * len(self.smaller)
        return self, *(
            TiffSource(page, self.name, self.file, samples=self.samples, planes=own)
            for page, own in zip(self.smaller, planes, strict=True)
        )

    @classmethod
    def open(
        cls,
        path: Path,
        name: str,
        frame: int = 1,
        bands: tuple[int, ...] | None = None,
        rescale: Rescale | None = None,
        channels: int = 3,
    ) -> TiffSource | None:
        """A picture of a file, or None if there is none, or its segments cannot be read by themselves and
        Pillow can read it.

        frame: the number of its page, from 1, the smaller copies and masks of others not counted.
        bands, rescale: how its samples are seen. channels: that the network takes. Raises ImageError for
            samples that need to be told how.
        """
        import tifffile

        tifffile.logger().addHandler(_SILENT)
        try:
            file = _File(tifffile.TiffFile(path))
        except (OSError, ValueError, tifffile.TiffFileError):
            return None
        try:
            series = file.tiff.series[0]
            pages: list[Any] = [level.pages[0] for level in series.levels]
            planes = _planes(file.tiff)
            frames = [pages[0]] if planes else _frames(file.tiff)
            page = frames[frame - 1]
            samples = bool(bands or rescale or planes) or channels != 3 or _is_samples(page)
            if not (samples or _plain(page)):
                return None
            _require_whole(page)
            fits = _is_upright if samples else _plain
            smaller = tuple(filter(fits, pages[1:])) if frame == 1 else ()
            mask = _mask_of(page) if frame == 1 else None
            for other in (
                *smaller,
                *([] if mask is None else [mask]),
                *(p for level in planes for p in level),
            ):
                _require_whole(other)
            source = cls(
                page, name, file, smaller, len(frames), None, mask, planes[0] if planes else (), planes[1:]
            )
            source._decode(0)
        except (ImageError, *_DAMAGE):
            return None  # a compression that needs a package, or damage: Pillow may know, or tells
        if samples:
            source.samples = source._seen(bands, rescale, channels)
        if rescale is None and str(page.dtype) == "uint16":
            source._tell_if_dark()
        return source

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where it has data: by the value that GDAL marks, by NaN, by opacity or by a mask of its own.

        What is marked in the smallest level that tells enough; each pixel of the overview stands for a square
        of that, and has data where any pixel of it has.
        """
        if self.mask is not None:
            return TiffSource(self.mask, self.name, self.file)._overview(
                lambda samples: samples[:, :, 0] != 0
            )
        level = next((level for level in self.levels[::-1] if min(level.size) >= ENOUGH_SIDE), self)
        page = level.page
        if (alpha := _alpha(page)) is not None:
            return level._overview(lambda samples: samples[:, :, alpha] != 0)
        seen, nodata = self.samples, _nodata(self.page)
        if seen is not None and (nodata is not None or page.dtype.kind == "f"):
            return level._overview(lambda samples: ~seen.unknown(seen.chosen(samples)))
        if nodata is not None:
            return level._overview(lambda samples: (samples != nodata).any(-1))
        return None

    def _overview(self, known: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """bool (h, w): of squares of pixels, whether any of them is known.

        known: samples (H, W, bands) of a segment -> bool (H, W).
        """
        (width, height), (wide, high) = self.size, self.blocks.block
        factor = -(-max(self.size) // KNOWN_SIDE)
        found = np.zeros((-(-height // factor), -(-width // factor)), np.bool_)
        for row in range(-(-height // high)):
            for col in range(self.across):
                segment = self._segments(row, col)
                if segment is None:
                    continue
                y, x = np.nonzero(known(segment[: height - row * high, : width - col * wide]))
                found[(y + row * high) // factor, (x + col * wide) // factor] = True
        return found

    def _seen(self, bands: tuple[int, ...] | None, rescale: Rescale | None, channels: int) -> Samples:
        page, name = self.page, self.name
        if not _is_upright(page):
            raise ImageError(
                f"{name}: its samples lie turned, or are colours of a palette; convert the file first"
            )
        chosen = choose_samples(
            name,
            len(self.planes) or page.samplesperpixel,
            None if self.planes else _colours(page),
            WHITE.get(str(page.dtype)),
            bands,
            rescale,
            _nodata(page),
            channels,
        )
        if rescale is not None and rescale.percentiles:
            chosen = chosen.fitted(self._some(), rescale.percentiles, name)
            log.info("%s: bands %s, black to white %s", name, *chosen.record().values())
        return chosen

    def _some(self) -> list[npt.NDArray[Any]]:
        """Samples from all over the image, (H, W, bands) each: of a small level, or of some segments."""
        level = next((level for level in self.levels[::-1] if min(level.size) >= ENOUGH_SIDE), self)
        wide, high = level.blocks.block
        down = -(-level.size[1] // high)
        count = down * level.across
        width, height = level.size
        parts = []
        for number in range(0, count, max(count * wide * high // ENOUGH_SAMPLES, 1)):
            row, col = divmod(number, level.across)
            part = level._segments(row, col)
            if part is not None:  # tiles go on beyond the image
                parts.append(part[: height - row * high, : width - col * wide])
        return parts

    def _tell_if_dark(self) -> None:
        highest = max((int(part.max()) for part in self._some()), default=0)
        if 0 < highest < NEARLY_BLACK * 65535:
            log.warning(
                "%s: its 16 bits reach %d of 65535, so that it is nearly black; --rescale 0,%d lightens it",
                *(self.name, highest, (1 << highest.bit_length()) - 1),
            )

    def _block(self, row: int, col: int) -> Pixels:
        found = self._segments(row, col)
        if found is None:  # a sparse file leaves empty segments out
            wide, high = self.blocks.block
            return np.full((high, wide, self.channels), 0 if self.samples is None else 255, np.uint8)
        return _rgb(found, self.page) if self.samples is None else self.samples.pixels(found)

    def _segments(self, row: int, col: int) -> npt.NDArray[Any] | None:
        """(H, W, samples): a tile or a strip with all of its planes; None where the file has none."""
        page, index = self.page, row * self.across + col
        if self.planes:
            each = [self._decode(index, plane) for plane in self.planes]
            known = [part for part in each if part is not None]
            return np.concatenate(known, axis=2) if len(known) == len(each) else None
        planes = 1 if int(page.planarconfig) == 1 else page.samplesperpixel
        per_plane = self.across * -(-page.imagelength // self.blocks.block[1])
        decoded = [self._decode(index + plane * per_plane) for plane in range(planes)]
        found = [part for part in decoded if part is not None]
        return np.concatenate(found, axis=2) if len(found) == planes else None

    def _decode(self, index: int, page: Any = None) -> npt.NDArray[Any] | None:
        page, file = page or self.page, self.page.parent.filehandle
        try:
            file.seek(page.dataoffsets[index])
            data = file.read(page.databytecounts[index]) or None
            decoded, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:  # decoders raise anything on damaged data
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        return None if decoded is None else decoded[0, : shape[1], : shape[2]]


class _File:
    """Keeps a TIFF open as long as a source of it is there."""

    def __init__(self, tiff: Any):
        self.tiff = tiff
        weakref.finalize(self, tiff.close)


def _planes(file: Any) -> tuple[tuple[Any, ...], ...]:
    """The pages of each level of an OME-TIFF whose channels have one each; none of other files."""
    series = file.series[0]
    if not file.is_ome or series.axes != "CYX":
        return ()
    levels = tuple(tuple(page.aspage() for page in level.pages) for level in series.levels)
    return levels if all(len(pages) == series.shape[0] for pages in levels) else ()


def _frames(file: Any) -> list[Any]:
    """The pages of a file, without smaller copies and masks of others. A slide is one picture."""
    series = file.series[0]
    if len(file.pages) == 1 or file.is_svs:
        return [series.levels[0].pages[0]]
    copies = {page.index for level in series.levels[1:] for page in level.pages}
    pages = [page for page in file.pages if not (page.is_reduced or page.is_mask or page.index in copies)]
    return pages or [file.pages[0]]


def _require_whole(page: Any) -> None:
    """Raises ValueError for a page whose tags are not what they must be, of no size, or of more segments than
    the file tells the places of.
    """
    high, wide = _segment(page)
    sides = (page.imagewidth, page.imagelength, wide, high, page.samplesperpixel)
    if not all(isinstance(side, int) and side > 0 for side in sides) or page.planarconfig not in (1, 2):
        raise ValueError("no size")
    if len(page.extrasamples) >= page.samplesperpixel:
        raise ValueError("no colours")
    planes = 1 if page.planarconfig == 1 else page.samplesperpixel
    count = -(-page.imagewidth // wide) * -(-page.imagelength // high) * planes
    if count > min(len(page.dataoffsets), len(page.databytecounts)):
        raise ValueError("fewer segments than it has places for")


def _segment(page: Any) -> tuple[int, int]:
    """(height, width) of a tile or a strip."""
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


KNOWN_SIDE = 4096
"""Pixels of the longest side of what tells where an image has data."""

_NODATA = 42113
"""GDAL's tag for the value of pixels without data."""


def _is_samples(page: Any) -> bool:
    """Whether a page holds measured samples rather than a picture: of other types than a picture's, or of
    more bands than colours, none of which is opacity.
    """
    extra = {int(kind) for kind in page.extrasamples} - {_ASSOCIATED, _UNASSOCIATED}
    many = int(page.photometric) == _GREY and (len(extra) > 0 or page.samplesperpixel > 2)
    return _is_upright(page) and (many or str(page.dtype) not in ("uint8", "uint16", "bool"))


def _is_upright(page: Any) -> bool:
    orientation = page.tags.get("Orientation")
    kinds = (_GREY, _RGB, _YCBCR) if str(page.dtype) == "uint8" else (_GREY, _RGB)
    return int(page.photometric) in kinds and (orientation is None or orientation.value == 1)


def _colours(page: Any) -> tuple[int, ...] | None:
    """The bands that a page says are its colours, from 1."""
    if int(page.photometric) in (_RGB, _YCBCR) and page.samplesperpixel >= 3:
        return 1, 2, 3
    return (1,) if page.samplesperpixel - len(page.extrasamples) == 1 == page.samplesperpixel else None


def _nodata(page: Any) -> float | None:
    tag = page.tags.get(_NODATA)
    try:
        return None if tag is None else float(tag.value)
    except (TypeError, ValueError):
        return None


def _alpha(page: Any) -> int | None:
    """The channel of a page that is its opacity, from 0."""
    extra = [int(kind) for kind in page.extrasamples]
    colours = page.samplesperpixel - len(extra)
    return next((colours + i for i, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)


def _mask_of(page: Any) -> Any:
    """The page of a file that is another page's mask, as GDAL writes one; None if it has none."""
    # what tifffile takes for one more of the same, a frame, says nothing of itself
    others = (other for other in page.parent.pages if getattr(other, "is_mask", False))
    masks = (other for other in others if other.shape[:2] == page.shape[:2])
    return next(masks, None)


def _plain(page: Any) -> bool:
    """Whether a page is an upright picture of segments that are small, and not all of it, or that Pillow
    cannot read at all: colours in 16 bits.
    """
    orientation = page.tags.get("Orientation")
    high, wide = _segment(page)
    kind, deep = int(page.photometric), str(page.dtype) == "uint16"
    colours = page.samplesperpixel - len(page.extrasamples)
    return (
        (deep or str(page.dtype) == "uint8")
        and ((kind == _GREY and colours == 1) or (kind in (_RGB, _YCBCR) and colours == 3))
        and (orientation is None or orientation.value == 1)
        and high * wide <= CACHE_PIXELS
        and (page.is_tiled or high < page.imagelength or (deep and colours == 3))
    )


def _rgb(samples: npt.NDArray[Any], page: Any) -> Pixels:
    """uint8 (H, W, 3), from all channels of a segment (H, W, C)."""
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colours = samples.shape[2] - len(page.extrasamples)
    rgb: Pixels = samples[:, :, :colours]
    alpha = _alpha(page)
    if alpha is not None:
        opacity = samples[:, :, alpha, None].astype(np.uint16)
        straight = int(page.extrasamples[alpha - colours]) == _UNASSOCIATED
        parts = rgb * opacity if straight else rgb * np.uint16(255)
        rgb = np.minimum((parts + (255 - opacity) * 255 + 127) // 255, 255).astype(np.uint8)
    return np.repeat(rgb, 3, axis=2) if colours == 1 else rgb
