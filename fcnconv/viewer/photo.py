"""The photo in the viewer's page: an overview, and finer levels in tiles, as far as the page's size allows.

The photo is read strip by strip, so that memory grows with the page and not with the photo.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from PIL import Image

from fcnconv.grid import Box
from fcnconv.images import ImageSource, Pixels, area, read_within, resize
from fcnconv.system.machine import usable_cpus

MAX_SIDE = 2560
"""Longest side of the overview in pixels. A larger photo also has finer levels. Photos of up to 4 megapixels
are whole in the overview: finer levels would hold nearly the same pixels a second time, as WebP, which takes
five times as long to encode.
"""

TILE = 512
"""Side of a tile in pixels. Tiles at the right and bottom edges are smaller."""

OVERVIEW = "JPEG"
"""Pillow's name of the overview's format. WebP has 12 % fewer bytes but takes 15 times as long: a tenth of
the time that the page of an ordinary photo took.
"""

QUALITIES = (80, 60)
"""WebP qualities for the tiles of a level. The first one that makes the level small enough is used."""

SAMPLE = 24
"""Number of tiles, spread over a level, that are encoded first to estimate its size."""


@dataclass(frozen=True)
class PhotoLevel:
    """The photo at one size.

    Attributes:
        size: (width, height).
        tiles: The rows of tiles from the top, each from the left, as WebP in base64.
    """

    size: tuple[int, int]
    tiles: tuple[tuple[str, ...], ...]

    @property
    def length(self) -> int:
        """The characters of all tiles."""
        return sum(len(tile) for row in self.tiles for tile in row)


@dataclass(frozen=True)
class PagePhoto:
    """The photo as the page stores it.

    Attributes:
        overview: JPEG in base64.
        overview_size: (width, height) of the overview.
        levels: The finer levels, the coarsest first.
    """

    overview: str
    overview_size: tuple[int, int]
    levels: tuple[PhotoLevel, ...]

    @property
    def finest(self) -> tuple[int, int]:
        """(width, height) of the finest level, or else of the overview."""
        return self.levels[-1].size if self.levels else self.overview_size


def page_photo(source: ImageSource, room: int, max_side: int | None = None) -> PagePhoto:
    """Returns the photo with as many levels as fit `room` characters. It always has the overview, which may
    exceed them.

    Args:
        source: The image.
        room: Characters for the photo in base64.
        max_side: The longest side in pixels; None is the photo's own.
    """
    whole = max(source.size)
    max_side = min(max_side or whole, whole)
    pixels = read_within(source, min(max_side, MAX_SIDE))
    overview = _encoded(pixels, 85, OVERVIEW)
    room -= len(overview)
    levels: list[PhotoLevel] = []
    with ThreadPoolExecutor(usable_cpus()) as threads:
        for size in _sizes(source.size, max_side):
            level = _level(resize(source, size), room, threads)
            if level is None:
                break
            levels.append(level)
            room -= level.length
    return PagePhoto(overview, (pixels.shape[1], pixels.shape[0]), tuple(levels))


def _sizes(size: tuple[int, int], max_side: int) -> list[tuple[int, int]]:
    """Returns the sizes of the levels that are finer than the overview, the coarsest first. Each is half of
    the next.
    """
    sizes = []
    side = float(max_side)
    while side > MAX_SIDE:
        factor = side / max(size)
        sizes.append((max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)))
        side /= 2
    return sizes[::-1]


def _level(source: ImageSource, room: int, threads: Executor) -> PhotoLevel | None:
    """Returns the tiles of a source; None if they exceed `room` characters at every quality."""
    rows = _boxes(source.size)
    boxes = [box for row in rows for box in row]
    chosen = boxes[:: max(len(boxes) // SAMPLE, 1)]
    sample = [source.read(box) for box in chosen]
    share = sum(pixels.size / 3 for pixels in sample) / area(source.size)
    for quality in QUALITIES:
        known = dict(zip(chosen, threads.map(partial(_encoded, quality=quality), sample), strict=True))
        if sum(map(len, known.values())) <= room * share:
            return _tiles(source, rows, quality, known, room, threads)
    return None


def _tiles(
    source: ImageSource,
    rows: Sequence[Sequence[Box]],
    quality: int,
    known: Mapping[Box, str],
    room: int,
    threads: Executor,
) -> PhotoLevel | None:
    """Returns the tiles of a source, of which some are known; None if they exceed `room` characters."""
    tiles = []
    for row in rows:
        top, bottom = row[0][1], row[0][3]
        strip = source.read((0, top, source.size[0], bottom))

        def encoded_tile(box: Box, strip: Pixels = strip) -> str:
            return known.get(box) or _encoded(strip[:, box[0] : box[2]], quality)

        encoded = tuple(threads.map(encoded_tile, row))
        room -= sum(map(len, encoded))
        if room < 0:  # the sample underestimated the size
            return None
        tiles.append(encoded)
    return PhotoLevel(source.size, tuple(tiles))


def _boxes(size: tuple[int, int]) -> list[list[Box]]:
    """Returns the box of each tile: the rows from the top, each from the left."""

    def spans(length: int) -> Iterator[tuple[int, int]]:
        return ((start, min(start + TILE, length)) for start in range(0, length, TILE))

    return [[(x0, y0, x1, y1) for x0, x1 in spans(size[0])] for y0, y1 in spans(size[1])]


def _encoded(pixels: Pixels, quality: int, format: str = "WEBP") -> str:
    """Encodes uint8 (h, w, 3) as base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, format, quality=quality, method=2
    )  # method 4 is half as fast for 3 % less
    return base64.b64encode(file.getvalue()).decode()
