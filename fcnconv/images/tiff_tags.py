"""Reads the tags of a TIFF's first page that decide which reader opens the file, by Pillow without its
pixels.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

from PIL import TiffImagePlugin

_GEO = (33550, 33922, 34264, 34735)
"""Pixel scale, tie points, transformation, and GeoTIFF's keys."""

_NODATA = 42113
"""GDAL's tag for the value that means no data."""

_MORE = (330, 338, 42112)
"""Pages below this one, samples that are no colours, and GDAL's metadata."""

_JPEG = 7

_BIG = {"II": b"II+\0", "MM": b"MM\0+"}


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a TIFF or a BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class FirstTags:
    """The tags of a TIFF's first page.

    Attributes:
        orientation: as EXIF numbers it.
        premultiplied: whether the colours are multiplied by the opacity.
        georeferenced: whether the image has a coordinate system or a transform.
        maker: the maker of a microscopy file, such as "OME"; else empty.
        nodata: whether a value means no data, as GDAL declares it.
        photometric, compression: the tags PhotometricInterpretation and Compression.
        plain: whether the file is a single picture of 8 or 16 bits in grey or RGB, without anything that GDAL
            would add, such as overviews, masks and opacity.
    """

    orientation: int = 1
    premultiplied: bool = False
    georeferenced: bool = False
    maker: str = ""
    nodata: bool = False
    photometric: int = 1
    compression: int = 1
    plain: bool = False


def first_tags(file: io.IOBase) -> FirstTags:
    """The tags of a TIFF; damaged tags have their default values. The position in the file is kept."""
    place = file.tell()
    try:
        tags = _directory(file)
    except Exception:  # damaged tags raise anything; the reader of the pixels decides
        return FirstTags()
    finally:
        file.seek(place)
    extra = _value(tags, 338)
    return FirstTags(
        orientation=_whole(tags, 274, 1) if _whole(tags, 274, 1) in range(1, 9) else 1,
        premultiplied=(extra if isinstance(extra, tuple) else (extra,))[0] == 1,
        georeferenced=any(tag in tags for tag in _GEO),
        maker=_maker(tags),
        nodata=_NODATA in tags,
        photometric=_whole(tags, 262, 1),
        compression=_whole(tags, 259, 1),
        plain=_is_plain(tags),
    )


def _is_plain(tags: Any) -> bool:
    kind = _whole(tags, 262, -1), _whole(tags, 277, 1)
    colours = kind in ((0, 1), (1, 1), (2, 3)) or (kind == (6, 3) and _whole(tags, 259, 1) == _JPEG)
    whole = _whole(tags, 258, 1) in (8, 16) and _whole(tags, 339, 1) == 1
    return colours and whole and not tags.next and not any(tag in tags for tag in _MORE)


def _directory(file: io.IOBase) -> Any:
    head: bytes = file.read(8)
    if head[:4] in _BIG.values():
        head += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(directory.next)
    directory.load(file)  # type: ignore[arg-type]
    return directory


def _value(tags: Any, number: int) -> Any:
    try:
        return tags.get(number)
    except Exception:  # a damaged tag does not affect the others
        return None


def _whole(tags: Any, number: int, default: int) -> int:
    value = _value(tags, number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _text(tags: Any, number: int) -> str:
    value = _value(tags, number)
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value.strip("\0 \r\n\t") if isinstance(value, str) else ""


def _maker(tags: Any) -> str:
    """The maker of a file whose pages form a series that tifffile knows; empty for other files."""
    described, software = _text(tags, 270), _text(tags, 305)
    if re.search(r"</(\w+:)?OME>\s*$", described[-30:]) or "/OME/" in described[:600]:
        return "OME"
    if described.startswith("ImageJ="):
        return "ImageJ"
    if software.startswith("PerkinElmer-QPI"):
        return "QPTIFF"
    if described.startswith("Aperio"):
        return "Aperio"
    return "LSM" if 34412 in tags else "STK" if 33628 in tags else ""
