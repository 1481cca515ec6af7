"""Slides of microscopes, by OpenSlide."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.sources.blocks import BLOCK, Blocks
from fcnconv.sources.pixel_size import PixelSize, of_slide
from fcnconv.sources.resized import REGION_PIXELS
from fcnconv.sources.source import ENOUGH_SIDE, Pixels, area

SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif", ".dcm")
"""Of formats that OpenSlide reads and nothing else does, or not as well."""

_NO_SLIDES = ("generic-tiff", "synthetic")
"""Vendors that OpenSlide names for files that are no slides, and that others read as well."""


class SlideSource:
    """A level of a slide on white, read in blocks, with the smaller levels as its pyramid.

    A location is told to OpenSlide in pixels of the first level, so that one between two pixels of a smaller
    level makes it interpolate; fixed blocks make every region of a level the same pixels.
    """

    def __init__(self, slide: Any, name: str, level: int = 0):
        self.slide = slide
        self.name = name
        self.level = level
        self.blocks = Blocks(self.size, (BLOCK, BLOCK), self._block)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        width, height = self.slide.level_dimensions[self.level]
        return width, height

    @property
    def pixel_size(self) -> PixelSize | None:
        """Metres across and down a pixel of the first level, if the slide says it."""
        return of_slide(self.slide.properties)

    @cached_property
    def levels(self) -> tuple[SlideSource, ...]:
        """This level and the smaller ones."""
        smaller = range(self.level + 1, self.slide.level_count)
        return self, *(SlideSource(self.slide, self.name, level) for level in smaller)

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where the scanner was: opaque in the smallest level that is no thumbnail."""
        import openslide

        sizes = self.slide.level_dimensions
        level = max(i for i, size in enumerate(sizes) if i == 0 or min(size) >= ENOUGH_SIDE)
        if area(sizes[level]) > REGION_PIXELS:
            return None  # no overview tells, and reading all of it to know takes as long as the scan
        try:
            overview = self.slide.read_region((0, 0), level, sizes[level])
        except openslide.OpenSlideError as error:
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        return np.asarray(overview.getchannel("A")) > 0

    @classmethod
    def open(cls, path: Path, name: str) -> SlideSource | None:
        """The slide, or None if OpenSlide does not know the file as one. Raises ImageError."""
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
        scale = self.slide.level_downsamples[self.level]
        try:
            region = self.slide.read_region((round(left * scale), round(top * scale)), self.level, size)
        except openslide.OpenSlideError as error:
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        paper = Image.new("RGBA", size, "white")
        return np.asarray(Image.alpha_composite(paper, region).convert("RGB"))
