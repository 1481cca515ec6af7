"""The interface of an image for everything that reads one: a size, and pixels by regions.

`Blocks` keeps the last blocks of an image that is decoded or computed block by block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box
from fcnconv.images.georeference import GeoReference

Pixels = npt.NDArray[np.uint8]


Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ImageInfo:
    """The facts about an image in its file.

    Attributes:
        size: (width, height) in pixels.
        channels: number of channels of its pixels.
        frames: number of frames or pages in the file.
        georeference: the transform and coordinate system; None if the file has no georeference.
        pixel_size: metres across and down a pixel; None if it is unknown.
        bands: the bands and ranges that the user chose, as named texts; empty for own colours.
    """

    size: tuple[int, int]
    channels: int = 3
    frames: int = 1
    georeference: GeoReference | None = None
    pixel_size: tuple[float, float] | None = None
    bands: Mapping[str, str] = field(default_factory=dict)


class ImageSource(ABC):
    """An upright image in RGB, or of the channels that a network takes, that can be read region by region.

    Attributes:
        name: how messages name the image: usually a path.
    """

    name: str

    @property
    @abstractmethod
    def info(self) -> ImageInfo:
        """The facts about the image in its file."""

    @abstractmethod
    def read(self, box: Box) -> Pixels:
        """The pixels of `box` = (x0, y0, x1, y1) inside the image: uint8 (height, width, channels)."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.info.size

    @property
    def levels(self) -> Sequence[ImageSource]:
        """The image at all sizes that its file contains, the largest first."""
        return (self,)

    def valid_mask(self) -> Mask | None:
        """Where the image has data: bool (h, w) of an overview of any size; None if everywhere."""
        return None


@dataclass(frozen=True)
class MemorySource(ImageSource):
    """An image that is held in memory.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, or of other channels; upright.
        georeference: the georeference of the image.
        mask: bool (H, W), where it is not transparent; None means everywhere.
        reduced: for a JPEG, decodes it again for a short side in pixels, as for a scan at that size.
    """

    pixels: Pixels
    name: str = "image"
    georeference: GeoReference | None = None
    mask: npt.NDArray[np.bool_] | None = None
    reduced: Callable[[int], ImageSource] | None = None

    @property
    def info(self) -> ImageInfo:
        height, width, channels = self.pixels.shape
        return ImageInfo((width, height), channels, georeference=self.georeference)

    def read(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        return self.pixels[y0:y1, x0:x1]

    def valid_mask(self) -> Mask | None:
        return self.mask


class TurnedSource(ImageSource):
    """An image that is stored turned or mirrored, presented upright.

    Args:
        source: the image as stored.
        orientation: as EXIF numbers it, 2 to 8.
    """

    def __init__(self, source: ImageSource, orientation: int):
        self.source, self.orientation, self.name = source, orientation, source.name
        self.swapped = orientation >= 5

    @cached_property
    def info(self) -> ImageInfo:
        stored = self.source.info
        size, pixel_size, place = stored.size, stored.pixel_size, stored.georeference
        if self.swapped:
            size, pixel_size = size[::-1], pixel_size and pixel_size[::-1]
        return replace(
            stored,
            size=size,
            pixel_size=pixel_size,
            georeference=place and place.turned(self.orientation, size),
        )

    @cached_property
    def levels(self) -> tuple[ImageSource, ...]:
        return self, *(TurnedSource(level, self.orientation) for level in self.source.levels[1:])

    def valid_mask(self) -> Mask | None:
        stored = self.source.valid_mask()
        return None if stored is None else np.ascontiguousarray(upright(stored, self.orientation))

    def read(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        width, height = self.size
        if self.orientation in (2, 3, 6, 7):
            x0, x1 = width - x1, width - x0
        if self.orientation in (3, 4, 7, 8):
            y0, y1 = height - y1, height - y0
        stored = (y0, x0, y1, x1) if self.swapped else (x0, y0, x1, y1)
        return np.ascontiguousarray(upright(self.source.read(stored), self.orientation))


def upright(stored: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turns and mirrors an array (H, W, …) so that it is upright. orientation: as EXIF numbers it."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned


class GreySource(ImageSource):
    """The brightness of a colour image, for a network of one channel."""

    def __init__(self, source: ImageSource):
        self.source, self.name = source, source.name

    @property
    def info(self) -> ImageInfo:
        return replace(self.source.info, channels=1)

    @property
    def levels(self) -> tuple[ImageSource, ...]:
        return self, *map(GreySource, self.source.levels[1:])

    def valid_mask(self) -> Mask | None:
        return self.source.valid_mask()

    def read(self, box: Box) -> Pixels:
        return grey(self.source.read(box))


def grey(pixels: Pixels) -> Pixels:
    """The brightness of red, green and blue by ITU-R BT.601: uint8 (H, W, 1). Grey is unchanged."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536, as in Pillow
    return ((pixels[..., :3] @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def seen(source: ImageSource) -> ImageSource:
    """The image in RGB for display: from other channels the first three, or the first in grey."""
    return source if source.info.channels == 3 else _Seen(source)


class _Seen(ImageSource):
    """An image of any channels in RGB."""

    def __init__(self, source: ImageSource):
        self.source, self.name = source, source.name

    @property
    def info(self) -> ImageInfo:
        return replace(self.source.info, channels=3)

    @property
    def levels(self) -> tuple[ImageSource, ...]:
        return self, *map(_Seen, self.source.levels[1:])

    def valid_mask(self) -> Mask | None:
        return self.source.valid_mask()

    def read(self, box: Box) -> Pixels:
        pixels = self.source.read(box)
        if pixels.shape[2] < 3:
            return np.repeat(pixels[:, :, :1], 3, axis=2)
        return np.ascontiguousarray(pixels[:, :, :3])


def area(size: tuple[int, int]) -> int:
    """The number of pixels of a (width, height)."""
    return size[0] * size[1]


BLOCK = 1024
"""Side of the blocks of an image that has no blocks of its own, in pixels."""

CACHE_PIXELS = 16 * 1024**2
"""Pixels of the blocks that are kept. Two rows of blocks are kept in any case, up to three times as many
pixels, because a scan goes along rows, and a row of its tiles begins inside a block of the previous row.
"""


class Blocks:
    """Reads regions from blocks.

    Args:
        size: (width, height) of the image.
        block: (width, height) of a block; blocks start at the image's corner.
        make: (row, col) of a block -> uint8 (H, W, channels), at least the part that lies inside the image.
    """

    def __init__(self, size: tuple[int, int], block: tuple[int, int], make: Callable[[int, int], Pixels]):
        self.block = block
        self.make = make
        two_rows = -(-size[0] // block[0]) * 2
        self.most = max(CACHE_PIXELS // area(block), min(two_rows, 3 * CACHE_PIXELS // area(block)), 1)
        self.kept: OrderedDict[tuple[int, int], Pixels] = OrderedDict()

    def read(self, box: Box) -> Pixels:
        """The pixels of a box inside the image: uint8 (y1 - y0, x1 - x0, channels)."""
        x0, y0, x1, y1 = box
        wide, high = self.block
        out: Pixels | None = None
        for row in range(y0 // high, -(-y1 // high)):
            for col in range(x0 // wide, -(-x1 // wide)):
                block = self._block(row, col)
                if out is None:
                    out = np.empty((y1 - y0, x1 - x0, block.shape[2]), np.uint8)
                top, left = row * high, col * wide
                a, b = max(y0, top), min(y1, top + high)
                c, d = max(x0, left), min(x1, left + wide)
                out[a - y0 : b - y0, c - x0 : d - x0] = block[a - top : b - top, c - left : d - left]
        assert out is not None  # no box is empty
        return out

    def _block(self, row: int, col: int) -> Pixels:
        if (row, col) in self.kept:
            self.kept.move_to_end((row, col))
        else:
            self.kept[row, col] = self.make(row, col)
            while len(self.kept) > self.most:
                self.kept.popitem(last=False)
        return self.kept[row, col]
