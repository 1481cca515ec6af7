"""The interface of an image for everything that reads one: a size, and pixels by regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
