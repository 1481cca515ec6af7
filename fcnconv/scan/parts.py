"""A network computed in parts, each over small blocks, so that memory follows the block and not the image.

A tile of a scan must be read with the halo of the whole network, hundreds of pixels, and most of the work of
a small tile is halo. A part is a part of the network between two places where one small feature map holds
all; its own halo is a few cells. So each part is computed block by block, every block once, from the feature
map of the part before, of which only the rows that are still needed are kept. A network that is not cut is
one part, and its blocks are the usual tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fcnconv.scores import FloatArray
from fcnconv.system.progress import done

Run = Callable[[FloatArray], FloatArray]
"""float32 (1, C, h, w) -> (1, C', h', w'): a network, or a part of one."""


@dataclass(frozen=True)
class Part:
    """A part of a network, from one feature map to the next, and what it costs.

    All maps grow in steps of the network's own stride: of an image of ``window + step · n`` pixels, a map has
    ``native + pitch · n`` cells along the axis.

    before, after: cells at the start and the end of its output that see past its input. They are right only
        where the input ends with the image.
    halo: steps that it computes around a block, along an axis; `span`, one less than the steps of a window,
        are all that it computes beyond the grid itself.
    memory: bytes alive at its worst moment, for each step × step of a block with its halo.
    multiply_adds: its work, likewise.
    channels_last: whether `run` is faster on maps whose channels lie together in memory.
    """

    run: Run
    channels: int
    native: int
    pitch: int
    before: int
    after: int
    halo: float
    span: float
    memory: float
    multiply_adds: float
    channels_last: bool = False

    def computed(self, steps: int) -> float:
        """Steps that are computed, along an axis, of a region that grows by `steps`."""
        return steps + 1 + self.span


class Cells(Protocol):
    """A map that is computed where it is read, rows first. native, pitch: its cells, as for `Part`."""

    @property
    def native(self) -> int: ...

    @property
    def pitch(self) -> int: ...

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """float32 (C, bottom - top, right - left): the cells of a rectangle. No later one starts higher."""


@dataclass(frozen=True)
class PixelCells:
    """An image as the lowest map. pixels: box (x0, y0, x1, y1) -> float32 (1, 3, H, W)."""

    pixels: Callable[[tuple[int, int, int, int]], FloatArray]
    native: int
    pitch: int

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        cells: FloatArray = self.pixels((left, top, right, bottom))[0]
        return cells


class FeatureCells:
    """The output of a part, computed in blocks.

    below: its input. steps: (down, across), what the map has beyond its native size. block: the same, of one
    block. stage: of a scan's progress, where the work is counted.
    """

    def __init__(self, part: Part, below: Cells, steps: tuple[int, int], block: tuple[int, int], stage: str):
        self.part = part
        self.below = below
        self.stage = stage
        self.steps = steps
        self.native, self.pitch = part.native, part.pitch
        self.rows, self.cols = (part.native + part.pitch * n for n in steps)
        self.block = max(block[0], 1) * part.pitch, max(block[1], 1) * part.pitch

    def compute(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """float32 (channels, bottom - top, right - left): the cells of a rectangle."""
        down, high = _region(self.part, self.steps[0], top, bottom)
        across, wide = _region(self.part, self.steps[1], left, right)
        native, pitch = self.below.native, self.below.pitch
        y, x = down * pitch, across * pitch
        region = self.below.read(y, y + native + high * pitch, x, x + native + wide * pitch)
        y, x = top - down * self.pitch, left - across * self.pitch
        cells: FloatArray = self.part.run(region[None])[0, :, y : y + bottom - top, x : x + right - left]
        done(self.stage, self.part.multiply_adds * self.part.computed(high) * self.part.computed(wide))
        return cells


class KeptCells(FeatureCells):
    """The output of a part in rows that are kept for the next part, each until it is not needed any more.

    rows_kept: how many are needed at once. first: (row, col) of the first cell that will be read.

    Whole rows of blocks are computed, so that the parts below need not keep what an unfinished row would
    still ask for. The rows lie in one array that is used in a circle: arrays that come and go by the
    thousand leave holes between them, that cost as much again (measured).
    """

    def __init__(
        self,
        part: Part,
        below: Cells,
        steps: tuple[int, int],
        block: tuple[int, int],
        stage: str,
        rows_kept: int,
        first: tuple[int, int],
    ):
        super().__init__(part, below, steps, block, stage)
        high, wide = self.block
        self.ready, self.left = first[0] // high * high, first[1] // wide * wide
        self.kept = _empty(part, rows_kept, self.cols - self.left)

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        high, wide = self.block
        while self.ready < bottom:
            last = min(self.ready + high, self.rows)
            for col in range(self.left, self.cols, wide):
                end = min(col + wide, self.cols)
                cells = self.compute(self.ready, last, col, end)
                for place, rows in self._places(self.ready, last):
                    self.kept[:, place, col - self.left : end - self.left] = cells[:, rows]
            self.ready = last
        out = _empty(self.part, bottom - top, right - left)
        for place, rows in self._places(top, bottom):
            out[:, rows] = self.kept[:, place, left - self.left : right - self.left]
        return out

    def _places(self, top: int, bottom: int) -> Iterator[tuple[slice, slice]]:
        """Where rows lie in the circle, and which they are: one piece of them, or two around its end."""
        size = self.kept.shape[1]
        row = top
        while row < bottom:
            first = row % size
            count = min(bottom - row, size - first)
            yield slice(first, first + count), slice(row - top, row - top + count)
            row += count


def _empty(part: Part, rows: int, cols: int) -> FloatArray:
    """float32 (channels, rows, cols), without values: the output of a part, in the order that it likes."""
    if part.channels_last:
        return np.empty((rows, cols, part.channels), np.float32).transpose(2, 0, 1)
    return np.empty((part.channels, rows, cols), np.float32)


def chain(
    pixels: PixelCells,
    parts: Sequence[Part],
    blocks: Sequence[tuple[int, int]],
    steps: tuple[int, int],
    first: tuple[int, int] = (0, 0),
) -> FeatureCells:
    """The last part's map of an image, above those of the parts before it.

    blocks: of each part, in steps. first: (row, col) of the first cell that will be computed.
    """
    below: Cells = pixels
    firsts = _firsts(parts, steps, first)
    for i, above in enumerate(parts[1:]):
        held = rows_kept(parts[i], blocks[i][0], above, blocks[i + 1][0], steps[0])
        below = KeptCells(parts[i], below, steps, blocks[i], stage_of(i), held, firsts[i])
    return FeatureCells(parts[-1], below, steps, blocks[-1], stage_of(len(parts) - 1))


def _firsts(parts: Sequence[Part], steps: tuple[int, int], first: tuple[int, int]) -> list[tuple[int, int]]:
    """The first cell of each part's map that will be read, where `first` is that of the last one's."""
    firsts = [first]
    for part, lower in zip(parts[:0:-1], parts[-2::-1], strict=True):
        starts = [_region(part, n, cell, cell + 1)[0] for n, cell in zip(steps, firsts[0], strict=True)]
        firsts.insert(0, (starts[0] * lower.pitch, starts[1] * lower.pitch))
    return firsts


def stage_of(part: int) -> str:
    """The stage of a scan's progress that the work of a part is, by its number."""
    return f"part {part}"


def chain_work(
    parts: Sequence[Part],
    blocks: Sequence[tuple[int, int]],
    steps: tuple[int, int],
    cells: tuple[Sequence[slice], Sequence[slice]],
) -> list[float]:
    """Multiply-adds of each part, where the last one's map is computed in blocks, and all others' in theirs.

    blocks, steps: as for `chain`. cells: the last part's rows and columns of blocks, in order.
    """
    work = []
    last = len(parts) - 1
    firsts = _firsts(parts, steps, (cells[0][0].start, cells[1][0].start))
    for i, part in enumerate(parts):
        sides = []
        for axis in (0, 1):
            size = max(blocks[i][axis], 1) * part.pitch
            end, start = part.native + part.pitch * steps[axis], firsts[i][axis] // size * size
            pieces = [slice(n, min(n + size, end)) for n in range(start, end, size)]
            regions = (
                _region(part, steps[axis], piece.start, piece.stop)[1]
                for piece in (cells[axis] if i == last else pieces)
            )
            sides.append(sum(map(part.computed, regions)))
        work.append(part.multiply_adds * sides[0] * sides[1])
    return work


def rows_kept(part: Part, high: int, above: Part, high_above: int, steps: int) -> int:
    """The rows of a part's output that are kept at once: those from where the next part's block starts to
    read, to the end of the last block of its own that it reads, wherever that is.

    high, high_above: of their blocks, in steps. steps: what the maps have beyond their native size.
    """
    sees = high_above * above.pitch + above.before + above.after - above.native
    read = part.native + part.pitch * max(-(-(sees + above.pitch - 1) // above.pitch), 0)
    return min(read + high * part.pitch - 1, part.native + part.pitch * steps)


def _region(part: Part, steps: int, first: int, last: int) -> tuple[int, int]:
    """The step where a region starts and the steps that it grows by, so that its cells first to last - 1 are
    right. Along one axis of a map that grows by `steps`.
    """
    start = min(max((first - part.before) // part.pitch, 0), steps)
    lacking = last + part.after - part.native - start * part.pitch
    return start, min(max(-(-lacking // part.pitch), 0), steps - start)
