"""The common base of all files with bands: which bands are used, block by block, and where they have data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Box
from fcnconv.images.georeference import GeoReference
from fcnconv.images.pixel_size import PixelSize
from fcnconv.images.resized import REGION_PIXELS
from fcnconv.images.samples import Samples, warn_if_dark
from fcnconv.images.source import Blocks, ImageInfo, ImageSource, Pixels, area
from fcnconv.rescale import Rescale

log = logging.getLogger("fcnconv")

KNOWN_SIDE = 4096
"""Pixels of the longest side of the overview that shows where an image has data."""

ENOUGH_SIDE = 512
"""Pixels of the shorter side of a level that is large enough to show where an image has data, and its values.
"""

ENOUGH_SAMPLES = 4_000_000
"""The number of pixels that is enough to show the values of an image."""

Values = tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]
"""Values (H, W, len(samples.needed)), and bool (H, W): where there are data; None means everywhere."""


class BandSource(ImageSource):
    """An image, or a level of its pyramid, whose values become pixels by `Samples`.

    A subclass implements `_values`, which reads one block.

    Args:
        name: of the image, for messages.
        size: (width, height) in pixels.
        block: (width, height) in pixels of the blocks that are read at once.
        samples: which bands are used, and how.
        frames: number of pictures in the file.
        georeference: the transform and coordinate system.
        pixel_size: metres across and down a pixel.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        block: tuple[int, int],
        samples: Samples,
        frames: int = 1,
        georeference: GeoReference | None = None,
        pixel_size: PixelSize | None = None,
    ):
        self.name, self._size, self.samples, self.frames = name, size, samples, frames
        self.georeference, self.pixel_size = georeference, pixel_size
        self.blocks = Blocks(size, block, self._block)
        self._levels: Sequence[BandSource] = (self,)

    @property
    def info(self) -> ImageInfo:
        return ImageInfo(
            self._size,
            self.samples.channels,
            self.frames,
            self.georeference,
            self.pixel_size,
            self.samples.record() if self.samples.chosen else {},
        )

    @property
    def size(self) -> tuple[int, int]:
        return self._size  # without the rest of `info`, which takes longer

    @property
    def levels(self) -> Sequence[BandSource]:
        return self._levels

    @levels.setter
    def levels(self, levels: Sequence[BandSource]) -> None:
        self._levels = levels

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _values(self, box: Box) -> Values:
        """The values of one block.

        Raises:
            ImageError: if the block is damaged.
        """
        raise NotImplementedError

    def _block(self, row: int, col: int) -> Pixels:
        return self.samples.pixels(*self._values(self._box(row, col)))

    def _box(self, row: int, col: int) -> Box:
        """A block in pixels of the image, cut where the image ends."""
        (wide, high), (width, height) = self.blocks.block, self.size
        x, y = col * wide, row * high
        return x, y, min(x + wide, width), min(y + high, height)

    def _boxes(self) -> list[Box]:
        (wide, high), (width, height) = self.blocks.block, self.size
        return [self._box(row, col) for row in range(-(-height // high)) for col in range(-(-width // wide))]

    @property
    def _small_level(self) -> BandSource:
        """The smallest level that still shows what is in the image."""
        return next((level for level in self.levels[::-1] if min(level.size) >= ENOUGH_SIDE), self)

    def valid_mask(self) -> npt.NDArray[np.bool_] | None:
        return self._known_overview

    @cached_property
    def _known_overview(self) -> npt.NDArray[np.bool_] | None:
        return self._small_level._overview() if self._is_partial else None

    @property
    def _is_partial(self) -> bool:
        """Whether some pixels may have no data, or be transparent."""
        declared = self.samples.declared
        return declared.alpha is not None or declared.dtype.kind == "f" or self.samples.has_clear_colours

    def _overview(self) -> npt.NDArray[np.bool_]:
        """Whether any pixel in each square of pixels has data: bool (h, w)."""
        factor = -(-max(self.size) // KNOWN_SIDE)
        overview = np.zeros((-(-self.size[1] // factor), -(-self.size[0] // factor)), np.bool_)
        for box in self._boxes():
            seen = self._seen(box)
            if seen.all():
                x0, y0, x1, y1 = (side // factor for side in (*box[:2], box[2] - 1, box[3] - 1))
                overview[y0 : y1 + 1, x0 : x1 + 1] = True
            else:
                y, x = np.nonzero(seen)
                overview[(y + box[1]) // factor, (x + box[0]) // factor] = True
        return overview

    def _seen(self, box: Box) -> npt.NDArray[np.bool_]:
        """The pixels of a block that have data and are not transparent: bool (H, W)."""
        values, known = self._values(box)
        return self.samples.seen(values, known)

    def _some(self) -> list[npt.NDArray[Any]]:
        """Values (n, bands) of pixels that have data, from all over the image."""
        level, count = self._small_level, len(self.samples.bands)
        boxes = level._boxes()
        parts = []
        for box in boxes[:: max(area(level.size) // ENOUGH_SAMPLES, 1)]:
            values, known = level._values(box)
            values = values[:, :, :count]
            parts.append(values.reshape(-1, count) if known is None else values[known])
        return parts

    def settle(self, rescale: Rescale | None) -> None:
        """Fits percentiles, and warns of an image that would be black or transparent."""
        declared, fits = self.samples.declared, rescale is not None and rescale.percentiles
        if fits:
            samples = self.samples.fitted(self._some(), fits, self.name)
            for level in self.levels:
                level.samples = samples
        elif rescale is None and self.samples.may_be_dark:
            warn_if_dark(self.name, self._some())
        if declared.alpha is not None and area(self.size) <= REGION_PIXELS:  # quick for a small image
            known = self.valid_mask()
            if known is not None and not known.any():
                log.warning("%s: every pixel is transparent, so the image is white", self.name)
