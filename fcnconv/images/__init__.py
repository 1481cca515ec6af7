"""Images as sources of pixels: in memory, at another size, or read region by region from very large files.

Each kind of image is a class with a `size` and a `read`, as `ImageSource` requires. `open_regions` chooses
the class by a file's content.
"""

from __future__ import annotations

import io
import logging
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import ImageError
from fcnconv.images import gdal, slides
from fcnconv.images.bands import BandSource
from fcnconv.images.claims import false_claim
from fcnconv.images.gdal import PIXELS_A_BYTE
from fcnconv.images.georeference import world_file
from fcnconv.images.pillow import orientation_of
from fcnconv.images.pixel_size import mean_side
from fcnconv.images.resized import REGION_PIXELS, ReducedSource, ResizedSource, read_within, resize
from fcnconv.images.samples import PLAIN, Asked, Samples
from fcnconv.images.source import (
    ImageSource,
    MemorySource,
    Pixels,
    TurnedSource,
    area,
    seen,
)
from fcnconv.images.tiff_tags import FirstTags, first_tags, is_tiff

__all__ = [
    "REGION_SUFFIXES",
    "Asked",
    "ImageSource",
    "MemorySource",
    "Pixels",
    "ReducedSource",
    "ResizedSource",
    "Samples",
    "area",
    "mean_side",
    "open_any",
    "open_raster",
    "open_regions",
    "read_within",
    "resize",
    "seen",
    "slide_hint",
    "warn_of_lost_place",
]

log = logging.getLogger("fcnconv")


_BY_REGIONS = ".tif .tiff .gtiff .geotiff .cog .btf .tf8 .qptiff .lsm .stk .vrt .img .jp2 .j2k .jpx .jpf"

REGION_SUFFIXES = frozenset((*_BY_REGIONS.split(), *slides.SUFFIXES))
"""Suffixes of images in a folder that are read region by region. The content of each file then decides."""


WIDE_OFFSETS = frozenset({".ndpi"})
"""Suffixes of files that follow TIFF except for offsets beyond 4 GB. `false_claim` does not check them."""


def open_regions(
    content: Path | bytes, file: io.IOBase, name: str, asked: Asked = PLAIN
) -> ImageSource | None:
    """Opens a slide, a TIFF or a raster as a source that reads regions.

    Args:
        content: a path, or an encoded file.
        file: the same, opened.
        name: of the image, for messages.
        asked: the options for the pixels.

    Returns:
        The source; None for a picture that Pillow decodes.

    Raises:
        ImageError: if the file is damaged, or does not fit the options.
    """
    path = content if isinstance(content, Path) else None
    head = file.read(_HEAD)
    file.seek(0)
    tiff = is_tiff(head)
    if tiff and not (path and path.suffix.lower() in WIDE_OFFSETS) and (claim := false_claim(file)):  # type: ignore[arg-type]
        raise ImageError(f"{name}: damaged or cut short: it claims {claim}")
    slide = path and (tiff or head[128:132] == b"DICM" or path.suffix.lower() in slides.SUFFIXES)
    if path and slide and not asked.samples and asked.frame in (None, 1) and find_spec("openslide"):
        source = slides.SlideSource.open(path, name)
        if source is not None:
            return source
    if tiff:
        return _open_tiff(content, name, asked, first_tags(file))
    if asked.samples or _is_deep(head) or (path and _has_sidecar(path)):
        return open_raster(content, name, asked, orientation_of(file))
    return None


_HEAD = 4096
"""Bytes at the start of a file that identify its format."""

_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")

_GEO_BOXES = (bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"), b"gml.root-instance")
"""Bytes that mark a georeferenced JPEG 2000: the UUID of GeoJP2, and GML."""


def _is_deep(head: bytes) -> bool:
    """Whether a picture may have more than 8 bits, or be too large to decode at once: JPEG 2000, PNG."""
    return head.startswith(_JPEG_2000) or (head.startswith(b"\x89PNG") and head[24:25] == b"\x10")


_CIELAB = 8
"""TIFF's number for colours in L*a*b*."""

_FASTER = (1, 7)
"""TIFF's numbers for uncompressed pixels and for JPEG. tifffile and imagecodecs decode these in less than
half of the time that GDAL takes.
"""


def _open_tiff(content: Path | bytes, name: str, asked: Asked, tags: FirstTags) -> ImageSource | None:
    """Opens a TIFF with tifffile if its pages form a series that GDAL does not know, else with GDAL."""
    source: ImageSource | None = None
    if tags.photometric == _CIELAB and not (tags.georeferenced or asked.samples):
        return None  # Pillow converts these colours by ICC profiles
    if tags.maker and not tags.georeferenced:
        if find_spec("tifffile"):
            source = _open_pages(content, name, asked)
        else:
            log.warning(
                "%s: only the first page of this %s file is read; reading its channels and sizes needs "
                "tifffile: pip install 'fcnconv[tiff]'",
                *(name, tags.maker),
            )
    beside = isinstance(content, Path) and _has_sidecar(content)
    if tags.plain and not (tags.georeferenced or tags.nodata or beside) and find_spec("tifffile"):
        source = _open_pages(content, name, asked)  # without GDAL, which takes 0.2 s and 50 MB to load
    if source is None and gdal.is_there():
        source = _open_by_gdal(content, name, asked, tags)
    if source is None and find_spec("tifffile"):  # also for compressions that GDAL does not know
        source = _open_pages(content, name, asked)
        if source is not None and tags.georeferenced and gdal.is_there():
            log.warning("%s: GDAL cannot read the file or its georeference; coordinates are in pixels", name)
        if source is not None:
            warn_of_lost_place(content, name)
    if source is None and asked.samples and not (gdal.is_there() or find_spec("tifffile")):
        raise ImageError(f"{name}: --bands and --rescale need rasterio: pip install 'fcnconv[geo]'")
    return TurnedSource(source, tags.orientation) if source and tags.orientation != 1 else source


def _open_pages(content: Path | bytes, name: str, asked: Asked) -> BandSource | None:
    from fcnconv.images.tiff import TiffSource

    return TiffSource.open(content, name, asked)


def _open_by_gdal(content: Path | bytes, name: str, asked: Asked, tags: FirstTags) -> ImageSource | None:
    """Opens a TIFF with GDAL. tifffile may decode its tiles."""
    from fcnconv.images.raster import RasterSource

    source = RasterSource.open(content, name, asked, tags.premultiplied)
    packages = find_spec("tifffile") and find_spec("imagecodecs")
    if source and tags.compression in _FASTER and asked.frame in (None, 1) and packages:
        from fcnconv.images.tiff import TiffSource

        source.decode_by(lambda samples: TiffSource.open(content, name, Asked(frame=1), samples))
    return source


def open_raster(
    content: Path | bytes, name: str, asked: Asked = PLAIN, orientation: int = 1
) -> ImageSource | None:
    """Opens a raster of any kind with GDAL.

    Args:
        content: a path, or an encoded file.
        name: of the image, for messages.
        asked: the options for the pixels.
        orientation: as EXIF numbers it.

    Returns:
        The source; None if GDAL does not know the file, or is not installed.

    Raises:
        ImageError: if the file is damaged, or does not fit the options.
    """
    if not gdal.is_there():
        return None
    if asked.frame not in (None, 1):
        return None
    from fcnconv.images.raster import RasterSource

    source = RasterSource.open(content, name, asked)
    return TurnedSource(source, orientation) if source and orientation != 1 else source


def warn_of_lost_place(content: Path | bytes, name: str) -> None:
    """Warns if a file is georeferenced or has nodata, but rasterio is missing."""
    if gdal.is_there():
        return
    path = content if isinstance(content, Path) else None
    with path.open("rb") if path else io.BytesIO(bytes(content)) as file:
        head = file.read(_HEAD)
        file.seek(0)
        tags = first_tags(file) if is_tiff(head) else None
    if (
        (path and _has_sidecar(path))
        or any(box in head for box in _GEO_BOXES)
        or (tags and tags.georeferenced)
    ):
        log.warning(
            "%s: its georeference needs rasterio (pip install 'fcnconv[geo]'); coordinates are in pixels",
            name,
        )
    if tags and tags.nodata:
        log.warning("%s: its nodata value needs rasterio: pip install 'fcnconv[geo]'", name)


def _has_sidecar(path: Path) -> bool:
    """Whether an image has sidecar files that may contain its georeference, its mask or its overviews."""
    beside = [path.with_name(path.name + end) for end in (".aux.xml", ".AUX.XML", ".msk", ".ovr")]
    beside += [path.with_suffix(end) for end in (".tab", ".TAB")]
    try:
        return world_file(path) is not None or any(other.is_file() for other in beside)
    except (OSError, ValueError):  # a name that is too long
        return False


def open_any(path: Path, name: str, width: int, height: int) -> ImageSource | None:
    """Opens a large image of another kind as a source that reads regions.

    Returns:
        The source; None if the image is small, or if no installed package can read its regions, which is
        logged.

    Raises:
        ImageError: also for a file that is far too small for its pixels.
    """
    if width * height <= REGION_PIXELS:
        return None
    size = path.stat().st_size
    if width * height > size * PIXELS_A_BYTE:
        raise ImageError(
            f"{name}: damaged or cut short: it claims {width} × {height} pixels in {size:,} bytes"
        )
    if find_spec("pyvips"):
        from fcnconv.images.vips import VipsSource

        return VipsSource.open(path, name)
    log.info(
        "%s: decoded whole, %.1f GB in memory; to read it by regions: pip install 'fcnconv[large]'",
        *(name, width * height * 3 / 1e9),
    )
    return None


def slide_hint(path: Path) -> str:
    """Advice for a file that could not be read: a clause if its name is a slide's, else ""."""
    if path.suffix.lower() in slides.SUFFIXES and not find_spec("openslide"):
        return "; if it is a slide, install OpenSlide: pip install 'fcnconv[slides]'"
    return ""
