"""Images as sources of pixels: in memory, at another size, or read region by region from files too large.

Each kind is a class with a `size` and a `read`, as `ImageSource` asks. `open_regions` finds the one that a
file allows.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import ImageError
from fcnconv.parsing import Rescale
from fcnconv.sources import slides, tiff
from fcnconv.sources.claims import false_claim
from fcnconv.sources.pixel_size import pixel_size_of
from fcnconv.sources.resized import REGION_PIXELS, ReducedSource, ResizedSource, read_within, resize
from fcnconv.sources.samples import Samples, samples_of
from fcnconv.sources.source import (
    ImageSource,
    MemorySource,
    Pixels,
    Placed,
    area,
    channels_in,
    known_of,
    seen,
)

__all__ = [
    "REGION_SUFFIXES",
    "ImageSource",
    "MemorySource",
    "Pixels",
    "Placed",
    "ReducedSource",
    "ResizedSource",
    "Samples",
    "area",
    "channels_in",
    "known_of",
    "may_be_tiff",
    "open_any",
    "open_regions",
    "pixel_size_of",
    "read_within",
    "resize",
    "samples_of",
    "seen",
    "slide_hint",
]

log = logging.getLogger("fcnconv")


REGION_SUFFIXES = frozenset(tiff.SUFFIXES + slides.SUFFIXES)
"""Of files that are read region by region, where the package for it is there."""


WIDE_OFFSETS = frozenset({".ndpi"})
"""Of files that are TIFF but for places beyond 4 GB, and are not looked through for what they claim."""


def open_regions(
    path: Path,
    name: str,
    frame: int = 1,
    bands: tuple[int, ...] | None = None,
    rescale: Rescale | None = None,
    channels: int = 3,
) -> ImageSource | None:
    """A slide or a TIFF as a source that reads regions; None if it is neither, or must be decoded whole.

    frame: the number of a TIFF's page, from 1. bands, rescale: of its samples. channels: that the network
        takes. Raises ImageError.
    """
    suffix, source = path.suffix.lower(), None
    if suffix in REGION_SUFFIXES - WIDE_OFFSETS and (claim := false_claim(path)):
        raise ImageError(f"{name}: damaged or cut short: it claims {claim}")
    if (
        frame == 1
        and not (bands or rescale or channels != 3)
        and suffix in (*slides.SUFFIXES, *tiff.SUFFIXES)
        and find_spec("openslide")
    ):
        source = slides.SlideSource.open(path, name)
    if source is None and may_be_tiff(path):
        return tiff.TiffSource.open(path, name, frame, bands, rescale, channels)
    return source


def may_be_tiff(path: Path) -> bool:
    """Whether a file is called like a TIFF, and what reads regions of those is there."""
    return path.suffix.lower() in tiff.SUFFIXES and find_spec("tifffile") is not None


PIXELS_A_BYTE = 10_000
"""Of a large image, at most. One of a single colour in 1 bit has 8,000 as a PNG, a drawing 3,000 as a fax."""


def open_any(path: Path, name: str, width: int, height: int) -> ImageSource | None:
    """A large image of another kind as a source that reads regions; None if it is small, or if nothing here
    reads it so, which is logged. Raises ImageError, also for a file that is far too small to hold it.
    """
    if width * height <= REGION_PIXELS:
        return None
    size = path.stat().st_size
    if width * height > size * PIXELS_A_BYTE:
        raise ImageError(
            f"{name}: damaged or cut short: it claims {width} × {height} pixels in {size:,} bytes"
        )
    if find_spec("pyvips"):
        from fcnconv.sources.vips import VipsSource

        return VipsSource.open(path, name)
    reason = "its rows are one strip" if may_be_tiff(path) else "pip install 'fcnconv[large]' reads regions"
    log.info("%s: decoded whole, %.1f GB in memory: %s", name, width * height * 3 / 1e9, reason)
    return None


def slide_hint(path: Path) -> str:
    """What to do about a file that nothing here could read: a clause if its name is a slide's, else ""."""
    if path.suffix.lower() in slides.SUFFIXES and not find_spec("openslide"):
        return "; if it is a slide, pip install 'fcnconv[slides]' reads it"
    return ""
