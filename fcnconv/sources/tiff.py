"""TIFF and BigTIFF files whose pixels lie in tiles or strips, each of which can be read by itself."""

from __future__ import annotations

import logging
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.errors import ImageError
from fcnconv.grid import Box
from fcnconv.sources.blocks import CACHE_PIXELS, Blocks
from fcnconv.sources.geo import TAGS, GeoReference, read_georeference
from fcnconv.sources.source import Pixels

SUFFIXES = (".tif", ".tiff", ".btf", ".svs")

_GREY, _RGB, _YCBCR = 1, 2, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2


class TiffSource:
    """A page of grey, RGB or YCbCr in 8 or 16 bits a channel, on white where it is see-through.

    page: of tifffile. file: what must stay open. smaller: pages of the same picture, the largest first.
    frames: how many pictures the file holds, of which this is one.
    """

    def __init__(self, page: Any, name: str, file: Any, smaller: tuple[Any, ...] = (), frames: int = 1):
        self.frames = frames
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
    def georeference(self) -> GeoReference | None:
        """Where the image lies on the map, if the file says it."""
        tags = {number: tag.value for number in TAGS if (tag := self.page.tags.get(number))}
        return read_georeference(tags)

    @cached_property
    def levels(self) -> tuple[TiffSource, ...]:
        """This page and the smaller ones."""
        return self, *(TiffSource(page, self.name, self.file) for page in self.smaller)

    @classmethod
    def open(cls, path: Path, name: str, frame: int = 1) -> TiffSource | None:
        """A picture of a file, or None if there is none, or its segments cannot be read by themselves.

        frame: the number of its page, from 1, the smaller copies and masks of others not counted.
        """
        import tifffile

        # It would tell the user whatever is odd about a file.
        tifffile.logger().addHandler(logging.NullHandler())
        try:
            file = _File(tifffile.TiffFile(path))
        except (OSError, ValueError, tifffile.TiffFileError):
            return None
        try:
            series = file.tiff.series[0]
            pages: list[Any] = [level.pages[0] for level in series.levels]
            frames = _frames(file.tiff)
            page = frames[frame - 1]
            if not _plain(page):
                return None
            smaller = tuple(filter(_plain, pages[1:])) if frame == 1 else ()
            source = cls(page, name, file, smaller, len(frames))
            source.read((0, 0, 1, 1))
        except (ImageError, ValueError, IndexError, KeyError, TypeError, AttributeError):
            return None  # a compression that needs a package, or damage: Pillow may know, or tells
        return source

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _block(self, row: int, col: int) -> Pixels:
        page, index = self.page, row * self.across + col
        planes = 1 if int(page.planarconfig) == 1 else page.samplesperpixel
        per_plane = self.across * -(-page.imagelength // self.blocks.block[1])
        decoded = [self._decode(index + plane * per_plane) for plane in range(planes)]
        found = [part for part in decoded if part is not None]
        if len(found) < planes:  # a sparse file leaves empty segments out
            wide, high = self.blocks.block
            return np.zeros((high, wide, 3), np.uint8)
        return _rgb(np.concatenate(found, axis=2), page)

    def _decode(self, index: int) -> npt.NDArray[Any] | None:
        page, file = self.page, self.page.parent.filehandle
        try:
            file.seek(page.dataoffsets[index])
            data = file.read(page.databytecounts[index]) or None
            decoded, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:  # decoders raise anything on damaged data
            raise ImageError(f"{self.name}: damaged or cut short: {error}") from error
        return None if decoded is None else decoded[0, : shape[1], : shape[2]]


class _File:
    """Keeps a TIFF open as long as a source of it is there."""

    def __init__(self, tiff: Any):
        self.tiff = tiff
        weakref.finalize(self, tiff.close)


def _frames(file: Any) -> list[Any]:
    """The pages of a file, without smaller copies and masks of others. A slide is one picture."""
    series = file.series[0]
    if len(file.pages) == 1 or file.is_svs:
        return [series.levels[0].pages[0]]
    copies = {page.index for level in series.levels[1:] for page in level.pages}
    pages = [page for page in file.pages if not (page.is_reduced or page.is_mask or page.index in copies)]
    return pages or [file.pages[0]]


def _segment(page: Any) -> tuple[int, int]:
    """(height, width) of a tile or a strip."""
    return (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)


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
    extra = [int(kind) for kind in page.extrasamples]
    colours = samples.shape[2] - len(extra)
    rgb: Pixels = samples[:, :, :colours]
    alpha = next((i for i, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    if alpha is not None:
        opacity = samples[:, :, colours + alpha, None].astype(np.uint16)
        parts = rgb * opacity if extra[alpha] == _UNASSOCIATED else rgb * np.uint16(255)
        rgb = np.minimum((parts + (255 - opacity) * 255 + 127) // 255, 255).astype(np.uint8)
    return np.repeat(rgb, 3, axis=2) if colours == 1 else rgb
