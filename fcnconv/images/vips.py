"""Reads images that are too large for memory with libvips."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fcnconv.errors import ImageError, first_line
from fcnconv.grid import Box
from fcnconv.images.source import ImageInfo, ImageSource, Pixels

_SILENT = logging.NullHandler()
"""For pyvips. One handler for all files, because handlers add up."""


class VipsSource(ImageSource):
    """An image that libvips reads, upright and in sRGB, region by region."""

    def __init__(self, image: Any, name: str):
        self.image = image
        self.name = name

    @property
    def info(self) -> ImageInfo:
        return ImageInfo((self.image.width, self.image.height))

    @classmethod
    def open(cls, path: Path, name: str) -> VipsSource:
        """Opens a file. libvips decodes a format without random access into a temporary file, once.

        Raises:
            ImageError: if libvips cannot read it.
        """
        import pyvips

        logging.getLogger("pyvips").addHandler(_SILENT)
        try:
            image = pyvips.Image.new_from_file(str(path), fail_on="truncated").autorot().colourspace("srgb")
            if image.hasalpha():
                image = image.flatten(background=[255, 255, 255])
            return cls(image.cast("uchar"), name)
        except pyvips.Error as error:
            raise ImageError(f"{name}: libvips cannot read it: {first_line(error)}") from error

    def read(self, box: Box) -> Pixels:
        import pyvips

        x0, y0, x1, y1 = box
        try:
            pixels: Pixels = self.image.crop(x0, y0, x1 - x0, y1 - y0).numpy()
        except pyvips.Error as error:
            raise ImageError(f"{self.name}: damaged or cut short: {first_line(error)}") from error
        return pixels.reshape(y1 - y0, x1 - x0, 3)
