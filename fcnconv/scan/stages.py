"""A network computed in parts, each over small blocks, so that memory follows the block and not the image.

A tile of a scan must be read with the halo of the whole network, hundreds of pixels, and most of the work of
a small tile is halo. A part is a part of the network between two places where one small feature map holds
all; its own halo is a few cells. So each part is computed block by block, every block once, from the feature
map of the part before, of which only the rows that are still needed are kept. A network that is not cut is
one part, and its blocks are the usual tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fcnconv.scores import FloatArray
from fcnconv.system.progress import done

Forward = Callable[[FloatArray], FloatArray]
"""float32 (1, C, h, w) -> (1, C', h', w'): a network, or a part of one."""

Rect = tuple[slice, slice]
"""Rows and columns of a map's cells."""


@dataclass(frozen=True)
class Stage:
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
    holds: whether it holds its memory between two runs, where others share theirs.
    activations: whether its output is the class activations beside the logits of windows, as
        `convert.class_activations.JoinActivations` has them: `native` activations belong to one window.
    """

    run: Forward
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
    holds: bool = False
    activations: bool = False

    @property
    def margin(self) -> int:
        """Cells along an axis that a rectangle of windows has beyond one for each window."""
        return self.native - 1 if self.activations else 0

    def computed(self, steps: int) -> float:
        """Steps that are computed, along an axis, of a region that grows by `steps`."""
        return steps + 1 + self.span


class FeatureMap(Protocol):
    """A map that is computed where it is read, rows first. native, pitch: its cells, as for `Stage`."""

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


SCANNING = "scanning"
"""The stage of progress that is the dense scan of an image. Its unit is a multiply-add."""


class FeatureCells:
    """The output of a part, computed in blocks.

    below: its input. steps: (down, across), what the map has beyond its native size. block: the same, of one
    block.
    """

    def __init__(self, part: Stage, below: FeatureMap, steps: tuple[int, int], block: tuple[int, int]):
        self.part = part
        self.below = below
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
        done(SCANNING, self.part.multiply_adds * self.part.computed(high) * self.part.computed(wide))
        return cells


class KeptCells(FeatureCells):
    """The output of a part in rows that are kept for the next part, each until it is not needed any more.

    rows_kept: how many are needed at once. rects: what will be read of each block, as `computed_rects` gives
    it; nothing else is computed.

    Whole rows of blocks are computed, so that the parts below need not keep what an unfinished row would
    still ask for. The rows lie in one array that is used in a circle: arrays that come and go by the
    thousand leave holes between them, that cost as much again (measured).
    """

    def __init__(
        self,
        part: Stage,
        below: FeatureMap,
        steps: tuple[int, int],
        block: tuple[int, int],
        rows_kept: int,
        rects: Sequence[Rect],
    ):
        super().__init__(part, below, steps, block)
        high = self.block[0]
        self.rects: dict[int, list[Rect]] = {}
        for rect in rects:
            self.rects.setdefault(rect[0].start // high * high, []).append(rect)
        self.ready = min(self.rects)
        self.left = min(cols.start for _, cols in rects)
        self.kept = _empty(part, rows_kept, max(cols.stop for _, cols in rects) - self.left)

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        while self.ready < bottom:
            for rows, cols in self.rects.get(self.ready, ()):
                cells = self.compute(rows.start, rows.stop, cols.start, cols.stop)
                for place, part in self._places(rows.start, rows.stop):
                    self.kept[:, place, cols.start - self.left : cols.stop - self.left] = cells[:, part]
            self.ready = min(self.ready + self.block[0], self.rows)
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


def _empty(part: Stage, rows: int, cols: int) -> FloatArray:
    """float32 (channels, rows, cols), without values: the output of a part, in the order that it likes."""
    if part.channels_last:
        return np.empty((rows, cols, part.channels), np.float32).transpose(2, 0, 1)
    return np.empty((part.channels, rows, cols), np.float32)


def chain(
    pixels: PixelCells,
    parts: Sequence[Stage],
    blocks: Sequence[tuple[int, int]],
    steps: tuple[int, int],
    rects: Sequence[Rect],
) -> FeatureCells:
    """The last part's map of an image, above those of the parts before it.

    blocks: of each part, in steps. rects: what of the map will be computed, rows first.
    """
    below: FeatureMap = pixels
    needed = computed_rects(parts, blocks, steps, rects)
    for i, above in enumerate(parts[1:]):
        held = rows_kept(parts[i], blocks[i][0], above, blocks[i + 1][0], steps[0])
        below = KeptCells(parts[i], below, steps, blocks[i], held, needed[i])
    return FeatureCells(parts[-1], below, steps, blocks[-1])


def computed_rects(
    parts: Sequence[Stage], blocks: Sequence[tuple[int, int]], steps: tuple[int, int], rects: Iterable[Rect]
) -> list[list[Rect]]:
    """What is computed of each part's map, rows first: `rects` of the last one's, and of each block of the
    others the rectangle that what is above them reads.
    """
    needed = [list(rects)]
    for i in range(len(parts) - 1, 0, -1):
        part, below = parts[i], parts[i - 1]
        high, wide = (max(side, 1) * below.pitch for side in blocks[i - 1])
        read: dict[tuple[int, int], Rect] = {}
        for rect in needed[0]:
            down, across = (_read(part, below, n, span) for n, span in zip(steps, rect, strict=True))
            for row in range(down.start // high, -(-down.stop // high)):
                for col in range(across.start // wide, -(-across.stop // wide)):
                    here = _shared(down, row, high), _shared(across, col, wide)
                    before = read.get((row, col), here)
                    read[row, col] = _around(before[0], here[0]), _around(before[1], here[1])
        needed.insert(0, [read[place] for place in sorted(read)])
    return needed


def _read(part: Stage, below: Stage, steps: int, cells: slice) -> slice:
    """What a part reads of the one below it, along an axis, for some of its cells."""
    start, count = _region(part, steps, cells.start, cells.stop)
    return slice(start * below.pitch, (start + count) * below.pitch + below.native)


def _shared(cells: slice, number: int, size: int) -> slice:
    """What of some cells lies in a block along an axis, by its number."""
    return slice(max(cells.start, number * size), min(cells.stop, (number + 1) * size))


def _around(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def chain_work(
    parts: Sequence[Stage], blocks: Sequence[tuple[int, int]], steps: tuple[int, int], rects: Iterable[Rect]
) -> list[float]:
    """Multiply-adds of each part, where `rects` of the last one's map are computed, as by `chain`."""
    work = []
    for part, needed in zip(parts, computed_rects(parts, blocks, steps, rects), strict=True):
        areas = (
            part.computed(_region(part, steps[0], down.start, down.stop)[1])
            * part.computed(_region(part, steps[1], across.start, across.stop)[1])
            for down, across in needed
        )
        work.append(part.multiply_adds * sum(areas))
    return work


def rows_kept(part: Stage, high: int, above: Stage, high_above: int, steps: int) -> int:
    """The rows of a part's output that are kept at once: those from where the next part's block starts to
    read, to the end of the last block of its own that it reads, wherever that is.

    high, high_above: of their blocks, in steps. steps: what the maps have beyond their native size.
    """
    sees = high_above * above.pitch + above.margin + above.before + above.after - above.native
    read = part.native + part.pitch * max(-(-(sees + above.pitch - 1) // above.pitch), 0)
    return min(read + high * part.pitch - 1, part.native + part.pitch * steps)


def _region(part: Stage, steps: int, first: int, last: int) -> tuple[int, int]:
    """The step where a region starts and the steps that it grows by, so that its cells first to last - 1 are
    right. Along one axis of a map that grows by `steps`.
    """
    start = min(max((first - part.before) // part.pitch, 0), steps)
    lacking = last + part.after - part.native - start * part.pitch
    return start, min(max(-(-lacking // part.pitch), 0), steps - start)
