"""What a TIFF claims of itself, checked before the libraries that read it believe it.

A directory of a TIFF tells how many values each of its tags has, how long each segment is and where the next
directory lies. Libraries reserve memory for what is told, and follow it: 26 kB can be made to look like ten
thousand pages that lie across each other, or a segment of 2 GB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value of each type."""

_LENGTHS = (279, 325)
"""The tags that hold the bytes of each strip, and of each tile."""

_PLACES = (273, 324)
"""The tags that hold where each strip, and each tile, lies in the file. Pillow asks for memory for all that
lies between two of them.
"""

_IMAGE, _TILE, _STRIP = (256, 257), (322, 323), 278
"""The tags of an image's width and its length, of a tile's, and of a strip's length."""

MOST_TILE = 1 << 26
"""Pixels of a tile, at most: 8192 × 8192. Those of slides have 65,536. OpenSlide ends the process where it
does not get the memory for one.
"""

_WHOLE = {3: "u2", 4: "u4", 16: "u8"}
"""The types of whole numbers, as NumPy calls them."""


@dataclass(frozen=True)
class _Form:
    """How a file is written. order: of its bytes, as `struct` calls it. count, offset: the codes of how many
    entries a directory has, and of places in the file.
    """

    order: str
    count: str
    offset: str


def false_claim(file: IO[bytes]) -> str:
    """What a TIFF claims that its own length belies; empty if nothing, or if the file is none.

    The file's place is kept. Raises OSError.
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
    """The first false claim of the directories, one after another. Where their chain leaves the file it ends,
    as it does for the libraries; tifffile goes round in a circle for ever.
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
        told, places = dict[int, int](), dict[int, int]()
        for tag, kind, count, value in entry.iter_unpack(content):
            length = count * _SIZES.get(kind, 0)
            if length > size:
                return f"{length:,} bytes of tag {tag} in {size:,}"
            if tag in (*_LENGTHS, *_PLACES, *_IMAGE, *_TILE, _STRIP) and kind in _WHOLE:
                largest = _largest(file, form, kind, length, value)
                if tag in _LENGTHS and largest > size:
                    return f"a segment of {largest:,} bytes in {size:,}"
                if tag in _PLACES and largest > size:
                    return f"a segment at byte {largest:,} of {size:,}"
                told[tag] = largest
                if tag in _PLACES:
                    places[tag] = count
        if claim := _false_segments(told, places):
            return claim
        if len(following) < struct.calcsize(form.order + form.offset):
            break
        place = struct.unpack(form.order + form.offset, following)[0]
    return ""


def _false_segments(told: dict[int, int], places: dict[int, int]) -> str:
    """What is false about the segments of a page. told: its sizes, by their tags. places: how many places the
    tags for those have.
    """
    strips, tiles = _PLACES
    width, length = (told.get(tag, 0) for tag in _IMAGE)
    wide, high = (told.get(tag, 0) for tag in _TILE)
    if wide * high > MOST_TILE:
        return f"tiles of {wide} × {high} px"
    needed = 0
    if tiles in places and wide and high:
        needed = -(-width // wide) * -(-length // high) - places[tiles]
    elif places.get(strips, 1) > 1 and (rows := told.get(_STRIP, 0)):  # one may hold all, whatever is told
        needed = -(-length // rows) - places[strips]
    return f"{width} × {length} px, of which {needed:,} segments are missing" if needed > 0 else ""


def _largest(file: IO[bytes], form: _Form, kind: int, length: int, value: bytes) -> int:
    """The largest of a tag's whole numbers, `length` bytes of them. value: of the tag, or where they lie."""
    if length > len(value):
        file.seek(struct.unpack(form.order + form.offset, value)[0])
        value = file.read(length)
    item = np.dtype(form.order + _WHOLE[kind])
    numbers = np.frombuffer(value[: min(length, len(value)) // item.itemsize * item.itemsize], item)
    return int(numbers.max(initial=0))
