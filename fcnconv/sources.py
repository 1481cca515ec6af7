"""Images too large for memory, read region by region: tiled or striped TIFF, slides, and what libvips knows.

Each kind is a class with a `size` and a `read`, as `images.ImageSource` asks. `open_regions` picks the one
that a file allows, or none; then the image is decoded into memory.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcnconv.errors import ImageError
from fcnconv.images import ImageSource, Pixels
from fcnconv.scores import Box

log = logging.getLogger("fcnconv")

REGION_PIXELS = 64 * 1024**2
"""Images of more pixels are read region by region where their file allows it."""

BLOCK = 1024
"""Side of the blocks in which an image is resized, in pixels of the result."""

CACHE_PIXELS = 16 * 1024**2
"""Pixels of decoded tiles, and of resized blocks, that are kept for the next region."""

PIXEL_SCALE, TIE_POINTS, TRANSFORMATION = 33550, 33922, 34264
"""GeoTIFF's tags for the place of pixels."""

GEO_KEYS = (34735, 34736, 34737)
"""GeoTIFF's tags that name the coordinate system."""


@dataclass(frozen=True)
class GeoReference:
    """Where an image lies on the map, as GeoTIFF says it.

    transform: (a, b, c, d, e, f): a pixel corner (x, y) lies at (a·x + b·y + c, d·x + e·y + f).
    keys: the tags that name the coordinate system, number -> value, to be written to another file as they
        are.
    """

    transform: tuple[float, float, float, float, float, float]
    keys: dict[int, Any]


def open_regions(path: Path, name: str, width: int, height: int) -> ImageSource | None:
    """The file as a source that reads regions, or None if it must be decoded whole. Raises ImageError."""
    if path.suffix.lower() in (".tif", ".tiff", ".btf") and find_spec("tifffile"):
        source = TiffSource.open(path, name)
        if source is not None:
            return source
    if width * height > REGION_PIXELS:
        if find_spec("pyvips"):
            return VipsSource.open(path, name)
        log.info(
            "%s: decoded whole, %.1f GB in memory: %s",
            name,
            width * height * 3 / 1e9,
            "its rows are one strip"
            if find_spec("tifffile")
            else "pip install 'fcnconv[large]' reads regions",
        )
    return None


class TiffSource:
    """A tiled or striped TIFF or BigTIFF of 8-bit grey, RGB or RGBA, read segment by segment."""

    def __init__(self, page: Any, name: str, georeference: GeoReference | None):
        self.page = page
        self.name = name
        self.georeference = georeference
        self.tile = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        )
        self.across = -(-page.imagewidth // self.tile[1])
        self.kept: OrderedDict[int, Pixels] = OrderedDict()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.page.imagewidth, self.page.imagelength

    @classmethod
    def open(cls, path: Path, name: str) -> TiffSource | None:
        """The first page of a file, or None if it has no segments that can be read by themselves."""
        import tifffile

        try:
            file = tifffile.TiffFile(path)
        except (OSError, ValueError, tifffile.TiffFileError):
            return None
        try:
            page: Any = file.pages[0]
            source = cls(page, name, _georeference(page)) if _plain(page) else None
            if source is not None:
                source.read((0, 0, 1, 1))
        except (ImageError, ValueError, IndexError, KeyError, TypeError, AttributeError):
            source = None  # a compression that needs a package, or damage: Pillow may know, or tells
        if source is None:
            file.close()
        else:
            weakref.finalize(source, file.close)
        return source

    def read(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        high, wide = self.tile
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for row in range(y0 // high, -(-y1 // high)):
            for col in range(x0 // wide, -(-x1 // wide)):
                segment = self._segment(row * self.across + col)
                top, left = row * high, col * wide
                a, b = max(y0, top), min(y1, top + high)
                c, d = max(x0, left), min(x1, left + wide)
                out[a - y0 : b - y0, c - x0 : d - x0] = segment[a - top : b - top, c - left : d - left]
        return out

    def _segment(self, index: int) -> Pixels:
        if index in self.kept:
            self.kept.move_to_end(index)
            return self.kept[index]
        file = self.page.parent.filehandle
        try:
            file.seek(self.page.dataoffsets[index])
            data = file.read(self.page.databytecounts[index]) or None
            decoded, _, shape = self.page.decode(data, index, jpegtables=self.page.jpegtables)
        except Exception as error:  # decoders raise anything on damaged data
            raise ImageError(f"{self.name}: damaged or cut short: {error}") from error
        high, wide = self.tile
        segment = np.zeros((high, wide, 3), np.uint8)  # a sparse file leaves empty segments out
        if decoded is not None:
            segment[: shape[1], : shape[2]] = decoded[0, : shape[1], : shape[2]]
        self.kept[index] = segment
        while len(self.kept) > max(CACHE_PIXELS // (high * wide), 1):
            self.kept.popitem(last=False)
        return segment


def _plain(page: Any) -> bool:
    """Whether a page's segments are pieces of an upright picture of 8 bits, none of them all of it."""
    orientation = page.tags.get("Orientation")
    rows, cols = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    return (
        str(page.dtype) == "uint8"
        and int(page.photometric) in (1, 2, 6)  # grey from black, RGB, YCbCr
        and int(page.planarconfig) == 1  # channels side by side
        and page.samplesperpixel in (1, 3)
        and (orientation is None or orientation.value == 1)
        and rows * cols <= CACHE_PIXELS
        and (page.is_tiled or rows < page.imagelength)
    )


def _georeference(page: Any) -> GeoReference | None:
    wanted = (PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, *GEO_KEYS)
    tags: dict[int, Any] = {number: tag.value for number in wanted if (tag := page.tags.get(number))}
    keys = {number: tags[number] for number in GEO_KEYS if number in tags}
    if TRANSFORMATION in tags:
        m = tags[TRANSFORMATION]
        return GeoReference((m[0], m[1], m[3], m[4], m[5], m[7]), keys)
    if PIXEL_SCALE in tags and TIE_POINTS in tags:
        (across, down), (i, j, _, x, y) = tags[PIXEL_SCALE][:2], tags[TIE_POINTS][:5]
        return GeoReference((across, 0.0, x - i * across, 0.0, -down, y + j * down), keys)
    return None


class VipsSource:
    """Whatever libvips reads, upright and in sRGB, region by region."""

    def __init__(self, image: Any, name: str):
        self.image = image
        self.name = name

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.width, self.image.height

    @classmethod
    def open(cls, path: Path, name: str) -> VipsSource:
        """The file. libvips decodes what cannot be read out of order into a temporary file, once."""
        import pyvips

        try:
            image = pyvips.Image.new_from_file(str(path)).autorot().colourspace("srgb")
            if image.hasalpha():
                image = image.flatten(background=[255, 255, 255])
            return cls(image.cast("uchar"), name)
        except pyvips.Error as error:
            raise ImageError(f"{name}: libvips cannot read it: {str(error).splitlines()[0]}") from error

    def read(self, box: Box) -> Pixels:
        import pyvips

        x0, y0, x1, y1 = box
        try:
            pixels: Pixels = self.image.crop(x0, y0, x1 - x0, y1 - y0).numpy()
        except pyvips.Error as error:
            raise ImageError(f"{self.name}: damaged or cut short: {str(error).splitlines()[0]}") from error
        return pixels.reshape(y1 - y0, x1 - x0, 3)


class ResizedSource:
    """A source at another size, resized in fixed blocks, so that a pixel is the same whatever region is read.

    Pillow's ``resize`` takes its box in 32-bit floats, so that regions of one image, resized by themselves,
    differ in some pixels by a level; fixed blocks are always resized alike.
    """

    def __init__(self, source: ImageSource, size: tuple[int, int]):
        self.source = source
        self.size = size
        self.name = source.name
        self.kept: OrderedDict[tuple[int, int], Pixels] = OrderedDict()

    def read(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for top in range(y0 // BLOCK * BLOCK, y1, BLOCK):
            for left in range(x0 // BLOCK * BLOCK, x1, BLOCK):
                block = self._block(left, top)
                a, b = max(y0, top), min(y1, top + BLOCK)
                c, d = max(x0, left), min(x1, left + BLOCK)
                out[a - y0 : b - y0, c - x0 : d - x0] = block[a - top : b - top, c - left : d - left]
        return out

    def _block(self, left: int, top: int) -> Pixels:
        if (left, top) in self.kept:
            self.kept.move_to_end((left, top))
            return self.kept[left, top]
        right, bottom = min(left + BLOCK, self.size[0]), min(top + BLOCK, self.size[1])
        across, x = _axis(left, right, self.size[0], self.source.size[0])
        down, y = _axis(top, bottom, self.size[1], self.source.size[1])
        region = Image.fromarray(self.source.read((across[0], down[0], across[1], down[1])))
        box = (x[0] - across[0], y[0] - down[0], x[1] - across[0], y[1] - down[0])
        block = np.asarray(region.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box))
        self.kept[left, top] = block
        while len(self.kept) > max(CACHE_PIXELS // BLOCK**2, -(-self.size[0] // BLOCK) * 2):
            self.kept.popitem(last=False)
        return block


def _axis(first: int, last: int, size: int, source: int) -> tuple[tuple[int, int], tuple[float, float]]:
    """The source pixels to read for pixels first to last - 1 along an axis, and the exact part of them."""
    ratio = source / size
    support = 2 * max(ratio, 1.0) + 1  # bicubic reaches two pixels, of the coarser of the two grids
    start, stop = first * ratio, last * ratio
    return (max(int(start - support), 0), min(int(stop + support) + 1, source)), (start, min(stop, source))
