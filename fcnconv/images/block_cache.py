"""An image made of fixed blocks. Each is decoded or computed when it is first read, and the last ones are
kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from fcnconv.grid import Box
from fcnconv.images.source import Pixels, area

BLOCK = 1024
"""Side of the blocks of an image that has no blocks of its own, in pixels."""

CACHE_PIXELS = 16 * 1024**2
"""Pixels of the blocks that are kept. Two rows of blocks are kept in any case, up to three times as many
pixels, because a scan goes along rows, and a row of its tiles begins inside a block of the previous row.
"""


class Blocks:
    """Reads regions from blocks.

    Args:
        size: (width, height) of the image.
        block: (width, height) of a block; blocks start at the image's corner.
        make: (row, col) of a block -> uint8 (H, W, channels), at least the part that lies inside the image.
    """

    def __init__(self, size: tuple[int, int], block: tuple[int, int], make: Callable[[int, int], Pixels]):
        self.block = block
        self.make = make
        two_rows = -(-size[0] // block[0]) * 2
        self.most = max(CACHE_PIXELS // area(block), min(two_rows, 3 * CACHE_PIXELS // area(block)), 1)
        self.kept: OrderedDict[tuple[int, int], Pixels] = OrderedDict()

    def read(self, box: Box) -> Pixels:
        """The pixels of a box inside the image: uint8 (y1 - y0, x1 - x0, channels)."""
        x0, y0, x1, y1 = box
        wide, high = self.block
        out: Pixels | None = None
        for row in range(y0 // high, -(-y1 // high)):
            for col in range(x0 // wide, -(-x1 // wide)):
                block = self._block(row, col)
                if out is None:
                    out = np.empty((y1 - y0, x1 - x0, block.shape[2]), np.uint8)
                top, left = row * high, col * wide
                a, b = max(y0, top), min(y1, top + high)
                c, d = max(x0, left), min(x1, left + wide)
                out[a - y0 : b - y0, c - x0 : d - x0] = block[a - top : b - top, c - left : d - left]
        assert out is not None  # no box is empty
        return out

    def _block(self, row: int, col: int) -> Pixels:
        if (row, col) in self.kept:
            self.kept.move_to_end((row, col))
        else:
            self.kept[row, col] = self.make(row, col)
            while len(self.kept) > self.most:
                self.kept.popitem(last=False)
        return self.kept[row, col]
