"""Images at another size than their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from PIL import Image

from fcnconv.grid import Box
from fcnconv.images.georeference import GeoReference
from fcnconv.images.source import BLOCK, Blocks, ImageInfo, ImageSource, MemorySource, Pixels, area, seen

REGION_PIXELS = 64 * 1024**2
"""Images of more pixels are read and resized region by region, if their reader can do so."""


GAP = 4
"""How many times larger than its final size an image stays after averaging, before it is resized."""

MOST_SIDE = 4096
"""Side of the area that is resized or averaged at once, in pixels of the source. So memory does not depend on
the size of the image.
"""


def resize(source: ImageSource, size: tuple[int, int]) -> ImageSource:
    """The source at `size` = (width, height), bicubic and antialiased; the source itself if that is its size.

    For a pyramid, the smallest level that is at least as large is resized.
    """
    larger = [level for level in source.levels if level.size[0] >= size[0] and level.size[1] >= size[1]]
    source = larger[-1] if larger else source
    if size == source.size:
        return source
    if isinstance(source, ReducedSource):
        source = source.at_least(size)
    if not isinstance(source, MemorySource) or max(area(size), area(source.size)) > REGION_PIXELS:
        return ResizedSource(source, size)
    return MemorySource(
        _each(source.pixels, lambda whole: whole.resize(size, Image.Resampling.BICUBIC)), source.name
    )


def _each(pixels: Pixels, make: Callable[[Image.Image], Image.Image]) -> Pixels:
    """Applies Pillow's `make` to pixels (H, W, channels): Pillow handles three channels at once, or one."""
    if pixels.shape[2] == 3:
        return np.asarray(make(Image.fromarray(pixels)))
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return np.stack([np.asarray(make(Image.fromarray(plane))) for plane in planes], axis=-1)


def read_within(source: ImageSource, max_side: int) -> Pixels:
    """The whole image in RGB, reduced if a side is longer than `max_side` pixels: uint8 (H, W, 3)."""
    source = seen(source)
    factor = max_side / max(source.size)
    if factor < 1:
        width, height = (max(round(side * factor), 1) for side in source.size)
        source = resize(source, (width, height))
    return source.read((0, 0, *source.size))


@dataclass(frozen=True)
class ReducedSource(ImageSource):
    """A large photo decoded at a fraction of its size, for a scan at an even smaller size.

    Attributes:
        pixels: uint8 (h, w, 3), RGB, upright.
        own_size: (width, height) of the photo itself.
        decode: gives all of its pixels, uint8 (height, width, 3), for a picture that shows more than was
            scanned.
        georeference: the georeference of the photo.
    """

    pixels: Pixels
    own_size: tuple[int, int]
    name: str
    decode: Callable[[], Pixels]
    georeference: GeoReference | None = None

    @property
    def info(self) -> ImageInfo:
        return ImageInfo(self.own_size, georeference=self.georeference)

    @cached_property
    def whole(self) -> MemorySource:
        """The photo at its own size, decoded on first use."""
        return MemorySource(self.decode(), self.name)

    def at_least(self, size: tuple[int, int]) -> MemorySource:
        """The decoded pixels if they have at least `size` = (width, height); else the whole photo."""
        reduced = MemorySource(self.pixels, self.name)
        fewer = reduced.size[0] < size[0] or reduced.size[1] < size[1]
        return self.whole if fewer else reduced

    def read(self, box: Box) -> Pixels:
        """The photo's own pixels in `box`: uint8 (height, width, 3)."""
        return self.whole.read(box)


class ResizedSource(ImageSource):
    """A source at another size, resized in fixed blocks, so that a pixel does not depend on the region that
    is read.

    Pillow's ``resize`` takes its box in 32-bit floats, so regions of one image that are resized separately
    differ in some pixels by a level. Fixed blocks are always resized in the same way. If a source is made
    much smaller, it is first averaged over whole squares, as Pillow's ``reducing_gap`` does.
    """

    def __init__(self, source: ImageSource, size: tuple[int, int]):
        self._info = ImageInfo(size, source.info.channels)
        self.name = source.name
        ratio = max(a / b for a, b in zip(source.size, size, strict=True))
        factor = max(int(ratio / GAP), 1)
        self.source = source if factor == 1 else AveragedSource(source, factor)
        self.length = source.size[0] / factor, source.size[1] / factor
        """(width, height) of the whole image in pixels of `self.source`; the last pixel may be partial."""
        edge = min(BLOCK, max(int(MOST_SIDE * factor / ratio), 1))
        self.blocks = Blocks(size, (edge, edge), self._block)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _block(self, row: int, col: int) -> Pixels:
        wide, high = self.blocks.block
        left, top = col * wide, row * high
        right, bottom = min(left + wide, self.size[0]), min(top + high, self.size[1])
        across, x = _axis(left, right, self.size[0], self.length[0])
        down, y = _axis(top, bottom, self.size[1], self.length[1])
        region = self.source.read((across[0], down[0], across[1], down[1]))
        box = (x[0] - across[0], y[0] - down[0], x[1] - across[0], y[1] - down[0])
        size = right - left, bottom - top
        return _each(region, lambda image: image.resize(size, Image.Resampling.BICUBIC, box=box))


class AveragedSource(ImageSource):
    """A source reduced by a whole factor: each pixel is the mean of a square of the source's pixels."""

    def __init__(self, source: ImageSource, factor: int):
        self.source = source
        self.factor = factor
        self.name = source.name
        width, height = (-(-side // factor) for side in source.size)
        self._info = ImageInfo((width, height), source.info.channels)
        edge = max(MOST_SIDE // factor, 1)
        self.blocks = Blocks(self.size, (edge, edge), self._block)

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _block(self, row: int, col: int) -> Pixels:
        wide, high = (side * self.factor for side in self.blocks.block)
        left, top = col * wide, row * high
        right, bottom = min(left + wide, self.source.size[0]), min(top + high, self.source.size[1])
        region = self.source.read((left, top, right, bottom))
        return _each(region, lambda image: image.reduce(self.factor))


def _axis(first: int, last: int, size: int, source: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """The source pixels to read for pixels `first` to `last` - 1 along an axis, and the exact span within
    them.
    """
    ratio = source / size
    support = 2 * max(ratio, 1.0) + 1  # bicubic reaches two pixels, of the coarser of the two grids
    start, stop = first * ratio, last * ratio
    end = min(int(stop + support) + 1, ceil(source))
    return (max(int(start - support), 0), end), (start, min(stop, source))
