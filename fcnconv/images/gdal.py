"""GDAL, through rasterio: how it opens files, and what they declare about their bands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.errors import ImageError, first_line
from fcnconv.images.pillow import silence
from fcnconv.images.samples import MOST_BLOCK, WHITE, Declared
from fcnconv.images.source import Pixels, area

log = logging.getLogger("fcnconv")

_NETWORK = frozenset("HTTP WMS WMTS WCS DAAS EEDA EEDAI PLMOSAIC STACIT STACTA ESRIC".split())
"""Drivers that fetch data from elsewhere that a small file names."""

_NO_PICTURES = frozenset("DERIVED GNMDatabase GNMFile GTI MEM Memory PDF".split())
"""Drivers for files that are not images."""

OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": 32,  # MB; `Blocks` keeps what was decoded, and whole blocks of the file are read
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".nothing",  # no file can make GDAL fetch an address
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_PAM_ENABLED": "YES",  # reads .aux.xml
    "GDAL_HTTP_MAX_RETRY": "0",
}
"""GDAL's configuration while it reads."""


def is_there() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


@contextmanager
def gdal() -> Iterator[None]:
    """Configures GDAL for untrusted files: without network, and without messages of its own."""
    os.environ.setdefault("GDAL_SKIP", " ".join(sorted(_NETWORK)))  # takes effect when GDAL starts
    import rasterio

    logging.getLogger("rasterio").addHandler(_SILENT)
    _ignore_undecodable_messages()
    with silence, rasterio.Env(**OPTIONS):
        yield


_SILENT = logging.NullHandler()
"""For rasterio. One handler for all files, because handlers add up."""


@cache
def _ignore_undecodable_messages() -> None:
    """Keeps Python from reporting that rasterio's log function cannot decode a message of GDAL: some quote
    bytes of a damaged file that are not UTF-8. All other exceptions are reported as before.
    """
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (
            isinstance(unraisable.exc_value, UnicodeDecodeError) and "log_error" in str(unraisable.object)
        ):
            before(unraisable)

    sys.unraisablehook = hook


def _drivers() -> list[str]:
    from rasterio.env import Env

    with Env() as env:
        return sorted(set(env.drivers()) - _NETWORK - _NO_PICTURES)


def gdal_open(content: Path | bytes, frame: int = 1, **options: Any) -> Any:
    """Opens a dataset of rasterio, inside of `gdal`. Raises rasterio's errors.

    Args:
        content: a path, or an encoded file.
        frame: the page of a TIFF, from 1.
        options: for rasterio.
    """
    from rasterio.io import DatasetReader, MemoryFile

    if isinstance(content, Path) and _is_utf8(content):
        name: Any = content.absolute()
    else:
        memory = MemoryFile(content if isinstance(content, bytes) else content.read_bytes())
        name = memory.name
    dataset = DatasetReader(str(name), driver=_drivers(), **options)
    if not isinstance(name, Path):
        dataset._kept = memory  # its memory lasts as long as the dataset
    if frame > 1:
        if dataset.driver != "GTiff" or frame > len(dataset.subdatasets):
            raise FrameMissing(max(len(dataset.subdatasets), 1))
        page = DatasetReader(dataset.subdatasets[frame - 1], driver=["GTiff"], **options)
        page._kept = dataset
        return page
    return dataset


class FrameMissing(ValueError):
    """A page that a file does not have. count: the number of pages that it has."""

    def __init__(self, count: int):
        super().__init__(f"{count} pages")
        self.count = count


def count_pages(dataset: Any) -> int:
    """The number of pages in the file of a dataset; 1 if it is not a TIFF."""
    whole = getattr(dataset, "_kept", dataset)
    pages = getattr(whole if hasattr(whole, "subdatasets") else dataset, "subdatasets", ())
    return max(len(pages), 1) if dataset.driver == "GTiff" else 1


def failure(content: Path | bytes) -> str:
    """GDAL's own message why it cannot open a file."""
    with gdal():
        try:
            gdal_open(content)
        except Exception as error:  # rasterio's and GDAL's errors share no class
            return first_line(root_cause(error))
    return "it is not an image"


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def declared_by(dataset: Any, premultiplied: bool = False, name: str = "") -> Declared:
    """The file's declarations about the bands of a dataset of rasterio."""
    kinds = [kind.name for kind in dataset.colorinterp]
    dtype = np.dtype(dataset.dtypes[0])
    if len(set(dataset.dtypes)) > 1:
        dtype = np.result_type(*dataset.dtypes)
    alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
    others = [band for band in range(1, dataset.count + 1) if band != alpha]
    palette, cmyk = None, False
    colours: tuple[int, ...] | None = None
    if kinds[0] == "palette":
        palette, colours = _palette(dataset), (1,)
    elif {"red", "green", "blue"} <= set(kinds):
        colours = tuple(kinds.index(colour) + 1 for colour in ("red", "green", "blue"))
    elif {"cyan", "magenta", "yellow", "black"} <= set(kinds):
        colours = tuple(kinds.index(ink) + 1 for ink in ("cyan", "magenta", "yellow", "black"))
        cmyk = True
    elif len(others) == 1:
        colours = (others[0],)
    elif len(others) == 3 and dtype == np.uint8 and len(dataset.dtypes) == 3:
        colours = (1, 2, 3)
        log.info("%s: bands 1, 2 and 3 are used as red, green and blue; choose others with --bands", name)
    bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
    white = WHITE.get(str(dtype))
    if white is not None and bits.isdigit() and int(bits) < 8 * dtype.itemsize:
        white = (0.0, float((1 << int(bits)) - 1))
    if (
        white is not None
        and dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        and palette is None
    ):
        white = white[::-1]
    return Declared(dataset.count, dtype, colours, white, alpha, premultiplied, palette, cmyk)


def _palette(dataset: Any) -> Pixels:
    """The colours of a dataset's first band: uint8 (n, 4)."""
    colours = dataset.colormap(1)
    table = np.zeros((max(colours, default=0) + 1, 4), np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return table


PIXELS_A_BYTE = 10_000
"""The maximum number of pixels per byte of a large image. A single colour in 1 bit reaches 8,000 as a PNG,
and a drawing 3,000 as a fax.
"""


def require_sound(dataset: Any, content: Path | bytes, name: str, max_pixels: int) -> None:
    """Checks that a file is large enough for its pixels, and that its blocks are small enough to decode.

    Raises:
        ImageError: if not.
    """
    pixels = area((dataset.width, dataset.height))
    length = len(content) if isinstance(content, bytes) else content.stat().st_size
    if pixels > MOST_BLOCK and dataset.driver not in _REFERRING and pixels > length * PIXELS_A_BYTE:
        raise ImageError(
            f"{name}: damaged or cut short: it claims {dataset.width} × {dataset.height} pixels in "
            f"{length:,} bytes"
        )
    block = max(high * wide for high, wide in dataset.block_shapes)
    limit = max(MOST_BLOCK, max_pixels)
    if block > limit:
        raise ImageError(
            f"{name}: its blocks of {block:,} pixels, each decoded at once, are over the limit of {limit:,}; "
            f"to read it, add --max-pixels {block}"
        )


_REFERRING = frozenset(
    "VRT TIL ECRGTOC RPFTOC ENVI EHdr DIMAP SAFE SENTINEL2 MRF ERS RRASTER PDS PDS4 ISIS3".split()
)
"""Drivers for files that refer to pixels in other files."""


def container_of(name: str, dataset: Any) -> str:
    rasters = [text.rsplit(":", 1)[-1] for text in dataset.subdatasets]
    return (
        f"{name}: holds {len(rasters)} rasters ({', '.join(rasters[:3])}…) instead of one image; "
        "convert one of them to TIFF with gdal_translate"
    )


def root_cause(error: BaseException) -> BaseException:
    """GDAL's own error, if rasterio's error only refers to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
