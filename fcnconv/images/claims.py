"""Checks the sizes that a TIFF claims, before the libraries that read it believe them.

A directory of a TIFF contains the number of values of each tag, the length of each segment and the place of
the next directory. Libraries reserve memory for these sizes, and follow these places. So 26 kB can look like
ten thousand pages that overlap each other, or like a segment of 2 GB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

_SIZES = {
    kind: size
    for size, kinds in {1: (1, 2, 6, 7), 2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}.items()
    for kind in kinds
}
"""Bytes per value of each type."""

_LENGTHS = (279, 325)
"""The tags with the number of bytes of each strip, and of each tile."""

_PLACES = (273, 324)
"""The tags with the place of each strip, and of each tile, in the file. Pillow requests memory for everything
between two of these places.
"""

_IMAGE, _TILE, _STRIP = (256, 257), (322, 323), 278
"""The tags of an image's width and its length, of a tile's, and of a strip's length."""

MOST_TILE = 1 << 26
"""The maximum number of pixels of a tile: 8192 × 8192. The tiles of slides have 65,536. OpenSlide ends the
process if it does not get the memory for a tile.
"""

_WHOLE = {3: "u2", 4: "u4", 16: "u8"}
"""NumPy's names of the types of whole numbers."""


@dataclass(frozen=True)
class _Form:
    """The format of a file.

    Attributes:
        order: the byte order, as `struct` writes it.
        count: the code of the number of entries of a directory.
        offset: the code of a place in the file.
    """

    order: str
    count: str
    offset: str


def false_claim(file: IO[bytes]) -> str:
    """Describes a claim of a TIFF that contradicts its own length. The position in the file is kept.

    Returns:
        The claim; empty if there is no false claim, or if the file is not a TIFF.

    Raises:
        OSError: if the file cannot be read.
    """
    before = file.tell()
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    kind = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) == 16 else 0
    try:
        if kind == 42:
            return _walked(file, _Form(order, "H", "I"), struct.unpack(f"{order}I", head[4:8])[0])
        if kind == 43:
            return _walked(file, _Form(order, "Q", "Q"), struct.unpack(f"{order}Q", head[8:16])[0])
        return ""
    finally:
        file.seek(before)


def _walked(file: IO[bytes], form: _Form, first: int) -> str:
    """The first false claim of the directories, one after another.

    If their chain leaves the file it ends, as it does for the libraries. On a circular chain, tifffile would
    loop forever.
    """
    size = file.seek(0, 2)
    seen: set[int] = set()
    taken, place = 0, first
    while 0 < place < size:
        if place in seen:
            return "pages that follow each other in a circle"
        seen.add(place)
        file.seek(place)
        wide = struct.calcsize(form.order + form.count)
        head = file.read(wide)
        entries = struct.unpack(form.order + form.count, head)[0] if len(head) == wide else 0
        entry = struct.Struct(f"{form.order}HH{form.offset}{struct.calcsize(form.order + form.offset)}s")
        if entries * entry.size > size - place:
            return f"{entries:,} tags in {size:,} bytes"
        content = file.read(entries * entry.size)
        following = file.read(struct.calcsize(form.order + form.offset))
        taken += len(head) + len(content) + len(following)
        if taken > size:
            return "pages that lie across each other"
        sizes, places, apart = dict[int, int](), dict[int, int](), 0
        for tag, kind, count, value in entry.iter_unpack(content):
            length = count * _SIZES.get(kind, 0)
            if length > size:
                return f"{length:,} bytes of tag {tag} in {size:,}"
            apart += length if length > len(value) else 0
            if tag in (*_LENGTHS, *_PLACES, *_IMAGE, *_TILE, _STRIP) and kind in _WHOLE:
                largest = _largest(file, form, kind, length, value)
                if tag in _LENGTHS and largest > size:
                    return f"a segment of {largest:,} bytes in {size:,}"
                if tag in _PLACES and largest > size:
                    return f"a segment at byte {largest:,} of {size:,}"
                sizes[tag] = largest
                if tag in _PLACES:
                    places[tag] = count
        if apart > size:
            return f"{apart:,} bytes of tags in {size:,}"
        if claim := _false_segments(sizes, places):
            return claim
        if len(following) < struct.calcsize(form.order + form.offset):
            break
        place = struct.unpack(form.order + form.offset, following)[0]
    return ""


def _false_segments(sizes: dict[int, int], places: dict[int, int]) -> str:
    """The false claim about the segments of a page, if any.

    Args:
        sizes: the sizes of the page, by their tags.
        places: the number of places that each tag for places has.
    """
    strips, tiles = _PLACES
    width, length = (sizes.get(tag, 0) for tag in _IMAGE)
    wide, high = (sizes.get(tag, 0) for tag in _TILE)
    if wide * high > MOST_TILE:
        return f"tiles of {wide} × {high} px"
    needed = 0
    if tiles in places and wide and high:
        needed = -(-width // wide) * -(-length // high) - places[tiles]
    elif places.get(strips, 1) > 1 and (rows := sizes.get(_STRIP, 0)):  # one strip may hold all rows
        needed = -(-length // rows) - places[strips]
    return f"{width} × {length} px, but {needed:,} segments are missing" if needed > 0 else ""


def _largest(file: IO[bytes], form: _Form, kind: int, length: int, value: bytes) -> int:
    """The largest of a tag's whole numbers, which take `length` bytes. value: of the tag, or its place."""
    if length > len(value):
        file.seek(struct.unpack(form.order + form.offset, value)[0])
        value = file.read(length)
    item = np.dtype(form.order + _WHOLE[kind])
    numbers = np.frombuffer(value[: min(length, len(value)) // item.itemsize * item.itemsize], item)
    return int(numbers.max(initial=0))
