"""Reads microscope slides with OpenSlide."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.images.bands import ENOUGH_SIDE
from fcnconv.images.pixel_size import of_slide
from fcnconv.images.resized import REGION_PIXELS
from fcnconv.images.source import BLOCK, Blocks, ImageInfo, ImageSource, Pixels, area

SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".dcm")
"""Suffixes of formats that only OpenSlide reads, or that it reads best."""

_NO_SLIDES = ("generic-tiff", "synthetic")
"""OpenSlide's vendors for files that are not slides, and that other readers read as well."""


class SlideSource(ImageSource):
    """A level of a slide on white, read in blocks, with the smaller levels as its pyramid.

    A slide whose scanner recorded the bounds of the scanned area is cropped to these, as QuPath does.

    OpenSlide takes a location in pixels of the first level, and interpolates if it lies between two pixels of
    a smaller level. Fixed blocks give the same pixels for every region of a level.
    """

    def __init__(self, slide: Any, name: str, level: int = 0):
        self.slide = slide
        self.name = name
        self.level = level
        self.bounds = bounds_of(slide)
        self.blocks = Blocks(self.size, (BLOCK, BLOCK), self._block)

    @cached_property
    def info(self) -> ImageInfo:
        x0, y0, x1, y1 = self._box(self.level)
        return ImageInfo((x1 - x0, y1 - y0), pixel_size=of_slide(self.slide.properties))

    def _box(self, level: int) -> Box:
        """The bounds in pixels of a level."""
        scale, (width, height) = self.slide.level_downsamples[level], self.slide.level_dimensions[level]
        x0, y0, x1, y1 = self.bounds
        left, top = int(x0 / scale), int(y0 / scale)
        whole = (x0, y0, x1, y1) == (0, 0, *self.slide.level_dimensions[0])
        if whole:
            return 0, 0, width, height
        return (
            left,
            top,
            max(min(round(x1 / scale), width), left + 1),
            max(min(round(y1 / scale), height), top + 1),
        )

    @cached_property
    def levels(self) -> tuple[SlideSource, ...]:
        smaller = range(self.level + 1, self.slide.level_count)
        return self, *(SlideSource(self.slide, self.name, level) for level in smaller)

    def valid_mask(self) -> npt.NDArray[np.bool_] | None:
        """Where the scanner has been: the opaque pixels of the smallest level that is not a thumbnail."""
        import openslide

        sizes = self.slide.level_dimensions
        level = max(i for i, size in enumerate(sizes) if i == 0 or min(size) >= ENOUGH_SIDE)
        if area(sizes[level]) > REGION_PIXELS:
            return None  # there is no overview, and reading the whole level takes as long as the scan
        try:
            overview = self.slide.read_region((0, 0), level, sizes[level])
        except openslide.OpenSlideError as error:
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        x0, y0, x1, y1 = self._box(level)
        return np.asarray(overview.getchannel("A"))[y0:y1, x0:x1] > 0

    @classmethod
    def open(cls, path: Path, name: str) -> SlideSource | None:
        """Opens a slide; None if OpenSlide does not know the file as a slide.

        Raises:
            ImageError: if OpenSlide cannot read it.
        """
        import openslide

        try:
            vendor = openslide.OpenSlide.detect_format(path)
            if vendor is None or vendor in _NO_SLIDES:
                return None
            slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise ImageError(f"{name}: OpenSlide cannot read it: {first_line(error)}") from error
        return cls(slide, name)  # OpenSlide closes it with its last level

    def read(self, box: Box) -> Pixels:
        return self.blocks.read(box)

    def _block(self, row: int, col: int) -> Pixels:
        import openslide

        width, height = self.size
        left, top = col * BLOCK, row * BLOCK
        size = min(BLOCK, width - left), min(BLOCK, height - top)
        scale, (x0, y0) = self.slide.level_downsamples[self.level], self.bounds[:2]
        try:
            corner = x0 + round(left * scale), y0 + round(top * scale)
            region = self.slide.read_region(corner, self.level, size)
        except openslide.OpenSlideError as error:
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        paper = Image.new("RGBA", size, "white")
        return np.asarray(Image.alpha_composite(paper, region).convert("RGB"))


def bounds_of(slide: Any) -> Box:
    """The scanned part of a slide, (x0, y0, x1, y1), in pixels of its first level."""
    width, height = slide.level_dimensions[0]
    try:
        bounds = [int(slide.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")]
    except (KeyError, ValueError):
        return 0, 0, width, height
    x0, y0 = max(bounds[0], 0), max(bounds[1], 0)
    x1, y1 = min(bounds[0] + bounds[2], width), min(bounds[1] + bounds[3], height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else (0, 0, width, height)
