"""The interface of an image for everything that reads one: a size, and pixels by regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box
from fcnconv.images.georeference import GeoReference

Pixels = npt.NDArray[np.uint8]


@runtime_checkable
class ImageSource(Protocol):
    """An upright image in RGB, or of the channels that a network takes, that can be read region by region."""

    @property
    def name(self) -> str:
        """How messages name the image: usually a path."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""

    def read(self, box: Box) -> Pixels:
        """The pixels of `box` = (x0, y0, x1, y1) inside the image: uint8 (height, width, channels)."""


@runtime_checkable
class Pyramid(Protocol):
    """An image whose file also contains it at smaller sizes. levels: all sizes, the largest first."""

    @property
    def levels(self) -> Sequence[ImageSource]: ...


@runtime_checkable
class Placed(Protocol):
    """An image that may be georeferenced. georeference: None if its file does not contain one."""

    @property
    def georeference(self) -> GeoReference | None: ...


@runtime_checkable
class Partial(Protocol):
    """An image that may lack data in places. known: where it has data, as `known_of` returns it."""

    def known(self) -> npt.NDArray[np.bool_] | None: ...


def known_of(source: ImageSource) -> npt.NDArray[np.bool_] | None:
    """Where an image has data: bool (h, w) of an overview of any size; None if it has data everywhere."""
    return source.known() if isinstance(source, Partial) else None


@dataclass(frozen=True)
class MemorySource:
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
    def size(self) -> tuple[int, int]:
        height, width, _ = self.pixels.shape
        return width, height

    @property
    def channels(self) -> int:
        """The number of channels of its pixels."""
        return int(self.pixels.shape[2])

    def read(self, box: Box) -> Pixels:
        x0, y0, x1, y1 = box
        return self.pixels[y0:y1, x0:x1]

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where it is not transparent: bool (H, W)."""
        return self.mask


class TurnedSource:
    """An image that is stored turned or mirrored, presented upright.

    Args:
        source: the image as stored.
        orientation: as EXIF numbers it, 2 to 8.
    """

    def __init__(self, source: ImageSource, orientation: int):
        self.source, self.orientation, self.name = source, orientation, source.name
        self.swapped = orientation >= 5
        self.size = source.size[::-1] if self.swapped else source.size
        self.samples = getattr(source, "samples", None)
        self.frames = getattr(source, "frames", 1)

    @property
    def channels(self) -> int:
        """The number of channels of its pixels."""
        return channels_in(self.source)

    @cached_property
    def levels(self) -> tuple[ImageSource, ...]:
        """This image and its smaller copies."""
        levels = self.source.levels if isinstance(self.source, Pyramid) else (self.source,)
        return self, *(TurnedSource(level, self.orientation) for level in levels[1:])

    @property
    def georeference(self) -> GeoReference | None:
        """The georeference of the upright image."""
        place = self.source.georeference if isinstance(self.source, Placed) else None
        return place and place.turned(self.orientation, self.size)

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Metres across and down an upright pixel."""
        size = getattr(self.source, "pixel_size", None)
        return size[::-1] if size and self.swapped else size

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where it has data, as `known_of` returns it."""
        stored = known_of(self.source)
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


@dataclass(frozen=True)
class GreySource:
    """The brightness of a colour image, for a network of one channel."""

    source: ImageSource
    channels: int = 1

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    @property
    def georeference(self) -> GeoReference | None:
        """The georeference, if its file contains one."""
        return self.source.georeference if isinstance(self.source, Placed) else None

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where it has data."""
        return known_of(self.source)

    def read(self, box: Box) -> Pixels:
        return grey(self.source.read(box))


def grey(pixels: Pixels) -> Pixels:
    """The brightness of red, green and blue by ITU-R BT.601: uint8 (H, W, 1). Grey is unchanged."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536, as in Pillow
    return ((pixels[..., :3] @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def channels_in(source: ImageSource) -> int:
    """How many channels the pixels of an image have."""
    channels = getattr(source, "channels", 3)
    return channels if isinstance(channels, int) else 3


def seen(source: ImageSource) -> ImageSource:
    """The image in RGB for display: from other channels the first three, or the first in grey."""
    return source if channels_in(source) == 3 else _Seen(source)


@dataclass(frozen=True)
class _Seen:
    """An image of any channels in RGB."""

    source: ImageSource

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    @property
    def levels(self) -> tuple[ImageSource, ...]:
        levels = self.source.levels if isinstance(self.source, Pyramid) else ()
        return tuple(map(_Seen, levels)) or (self,)

    def read(self, box: Box) -> Pixels:
        pixels = self.source.read(box)
        if pixels.shape[2] < 3:
            return np.repeat(pixels[:, :, :1], 3, axis=2)
        return np.ascontiguousarray(pixels[:, :, :3])


def area(size: tuple[int, int]) -> int:
    """The number of pixels of a (width, height)."""
    return size[0] * size[1]
