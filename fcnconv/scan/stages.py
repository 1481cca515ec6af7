"""Runs a network in stages, each over small blocks, so that memory follows the block and not the image.

A tile of a scan must be read with the halo of the whole network, hundreds of pixels, and most of the work of
a small tile is halo. A stage is the part of a network between two places where one small feature map holds
all the information; the halo of a stage is a few cells. Each stage is computed block by block, every block
once, from the feature map of the stage before. Only the rows of that map that are still needed are kept. A
network that is not cut is a single stage, and its blocks are ordinary tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fcnconv.scores import FloatArray
from fcnconv.system.progress import done

Forward = Callable[[FloatArray], FloatArray]
"""A network, or a stage of one: float32 (1, C, h, w) -> (1, C', h', w')."""

Rect = tuple[slice, slice]
"""Rows and columns of a map's cells."""


@dataclass(frozen=True)
class Stage:
    """A stage of a network, from one feature map to the next, and its cost.

    All maps grow in steps of the native stride: for an image of ``window + step · n`` pixels, a map has
    ``native + pitch · n`` cells along the axis.

    Attributes:
        before, after: cells at the start and at the end of its output that see past its input. They are right
            only where the input ends with the image.
        halo: steps that it computes around a block, along an axis.
        span: one less than the steps of a window; all that it computes beyond the grid itself.
        memory: bytes in use at its worst moment, for each step × step of a block with its halo.
        multiply_adds: its work, for each step × step of a block with its halo.
        channels_last: whether `run` is faster on maps whose channels lie together in memory.
        holds: whether it holds its memory between two runs, where other stages share memory.
        activations: whether its output has the class activations as well as the logits of windows, as in
            `convert.class_activations.JoinActivations`: `native` activations belong to one window.
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
        """Cells along an axis that a rectangle of windows has in excess of one per window."""
        return self.native - 1 if self.activations else 0

    def computed(self, steps: int) -> float:
        """Steps that are computed, along an axis, for a region that grows by `steps`."""
        return steps + 1 + self.span


class FeatureMap(Protocol):
    """A map that is computed while it is read, rows first. native, pitch: its cells, as for `Stage`."""

    @property
    def native(self) -> int: ...

    @property
    def pitch(self) -> int: ...

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """The cells of a rectangle: float32 (C, bottom - top, right - left). No later rectangle starts
        higher.
        """


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
"""The stage of progress for the dense scan of an image. Its unit is one multiply-add."""


class FeatureCells:
    """The output of a stage, computed in blocks.

    Args:
        stage: the stage.
        below: its input.
        steps: (down, across), the size of the map in excess of its native size.
        block: the size of one block, in steps likewise.
    """

    def __init__(self, stage: Stage, below: FeatureMap, steps: tuple[int, int], block: tuple[int, int]):
        self.stage = stage
        self.below = below
        self.steps = steps
        self.native, self.pitch = stage.native, stage.pitch
        self.rows, self.cols = (stage.native + stage.pitch * n for n in steps)
        self.block = max(block[0], 1) * stage.pitch, max(block[1], 1) * stage.pitch

    def compute(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        """The cells of a rectangle: float32 (channels, bottom - top, right - left)."""
        down, high = _region(self.stage, self.steps[0], top, bottom)
        across, wide = _region(self.stage, self.steps[1], left, right)
        native, pitch = self.below.native, self.below.pitch
        y, x = down * pitch, across * pitch
        region = self.below.read(y, y + native + high * pitch, x, x + native + wide * pitch)
        y, x = top - down * self.pitch, left - across * self.pitch
        cells: FloatArray = self.stage.run(region[None])[0, :, y : y + bottom - top, x : x + right - left]
        done(SCANNING, self.stage.multiply_adds * self.stage.computed(high) * self.stage.computed(wide))
        return cells


class KeptCells(FeatureCells):
    """The output of a stage in rows that are kept for the next stage, each until it is no longer needed.

    Whole rows of blocks are computed, so that the stages below need not keep the rows that an unfinished row
    would still request. The rows lie in one array that is used as a ring buffer: thousands of short-lived
    arrays would leave holes between them that cost as much memory again (measured).

    Args:
        stage, below, steps, block: as for `FeatureCells`.
        rows_kept: number of rows that are needed at once.
        rects: the rectangle that will be read of each block, as `computed_rects` gives it; nothing else is
            computed.
    """

    def __init__(
        self,
        stage: Stage,
        below: FeatureMap,
        steps: tuple[int, int],
        block: tuple[int, int],
        rows_kept: int,
        rects: Sequence[Rect],
    ):
        super().__init__(stage, below, steps, block)
        high = self.block[0]
        self.rects: dict[int, list[Rect]] = {}
        for rect in rects:
            self.rects.setdefault(rect[0].start // high * high, []).append(rect)
        self.ready = min(self.rects)
        self.left = min(cols.start for _, cols in rects)
        self.kept = _empty(stage, rows_kept, max(cols.stop for _, cols in rects) - self.left)

    def read(self, top: int, bottom: int, left: int, right: int) -> FloatArray:
        while self.ready < bottom:
            for rows, cols in self.rects.get(self.ready, ()):
                cells = self.compute(rows.start, rows.stop, cols.start, cols.stop)
                for place, here in self._places(rows.start, rows.stop):
                    self.kept[:, place, cols.start - self.left : cols.stop - self.left] = cells[:, here]
            self.ready = min(self.ready + self.block[0], self.rows)
        out = _empty(self.stage, bottom - top, right - left)
        for place, rows in self._places(top, bottom):
            out[:, rows] = self.kept[:, place, left - self.left : right - self.left]
        return out

    def _places(self, top: int, bottom: int) -> Iterator[tuple[slice, slice]]:
        """Yields the places of rows in the ring buffer and their numbers: one run of rows, or two around its
        end.
        """
        size = self.kept.shape[1]
        row = top
        while row < bottom:
            first = row % size
            count = min(bottom - row, size - first)
            yield slice(first, first + count), slice(row - top, row - top + count)
            row += count


def _empty(stage: Stage, rows: int, cols: int) -> FloatArray:
    """The output of a stage without values: float32 (channels, rows, cols), in the stage's preferred memory
    order.
    """
    if stage.channels_last:
        return np.empty((rows, cols, stage.channels), np.float32).transpose(2, 0, 1)
    return np.empty((stage.channels, rows, cols), np.float32)


def chain(
    pixels: PixelCells,
    stages: Sequence[Stage],
    blocks: Sequence[tuple[int, int]],
    steps: tuple[int, int],
    rects: Sequence[Rect],
) -> FeatureCells:
    """The last stage's map of an image, on top of the maps of all stages before it.

    Args:
        pixels: the image.
        stages: the stages.
        blocks: the size of each stage's blocks, in steps.
        steps: (down, across), the size of the maps in excess of their native size.
        rects: the rectangles of the map that will be computed, rows first.
    """
    below: FeatureMap = pixels
    needed = computed_rects(stages, blocks, steps, rects)
    for i, above in enumerate(stages[1:]):
        held = rows_kept(stages[i], blocks[i][0], above, blocks[i + 1][0], steps[0])
        below = KeptCells(stages[i], below, steps, blocks[i], held, needed[i])
    return FeatureCells(stages[-1], below, steps, blocks[-1])


def computed_rects(
    stages: Sequence[Stage], blocks: Sequence[tuple[int, int]], steps: tuple[int, int], rects: Iterable[Rect]
) -> list[list[Rect]]:
    """The rectangles that are computed of each stage's map, rows first.

    For the last stage these are `rects`. For each block of an earlier stage it is the rectangle that the next
    stage reads.
    """
    needed = [list(rects)]
    for i in range(len(stages) - 1, 0, -1):
        stage, below = stages[i], stages[i - 1]
        high, wide = (max(side, 1) * below.pitch for side in blocks[i - 1])
        read: dict[tuple[int, int], Rect] = {}
        for rect in needed[0]:
            down, across = (_read(stage, below, n, span) for n, span in zip(steps, rect, strict=True))
            for row in range(down.start // high, -(-down.stop // high)):
                for col in range(across.start // wide, -(-across.stop // wide)):
                    here = _shared(down, row, high), _shared(across, col, wide)
                    before = read.get((row, col), here)
                    read[row, col] = _around(before[0], here[0]), _around(before[1], here[1])
        needed.insert(0, [read[place] for place in sorted(read)])
    return needed


def _read(stage: Stage, below: Stage, steps: int, cells: slice) -> slice:
    """The cells of the map below that a stage reads, along an axis, for some of its own cells."""
    start, count = _region(stage, steps, cells.start, cells.stop)
    return slice(start * below.pitch, (start + count) * below.pitch + below.native)


def _shared(cells: slice, number: int, size: int) -> slice:
    """The cells that lie in the block with this number, along an axis."""
    return slice(max(cells.start, number * size), min(cells.stop, (number + 1) * size))


def _around(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def chain_work(
    stages: Sequence[Stage], blocks: Sequence[tuple[int, int]], steps: tuple[int, int], rects: Iterable[Rect]
) -> list[float]:
    """Multiply-adds of each stage if `chain` computes `rects` of the last map."""
    work = []
    for stage, needed in zip(stages, computed_rects(stages, blocks, steps, rects), strict=True):
        areas = (
            stage.computed(_region(stage, steps[0], down.start, down.stop)[1])
            * stage.computed(_region(stage, steps[1], across.start, across.stop)[1])
            for down, across in needed
        )
        work.append(stage.multiply_adds * sum(areas))
    return work


def rows_kept(stage: Stage, high: int, above: Stage, high_above: int, steps: int) -> int:
    """The number of rows of a stage's output that are kept at once.

    They reach from where the next stage's block starts to read, to the end of the last block of this stage
    that it reads, wherever that is.

    Args:
        stage: the stage.
        high: height of its blocks, in steps.
        above: the next stage.
        high_above: height of the next stage's blocks, in steps.
        steps: the size of the maps in excess of their native size.
    """
    sees = high_above * above.pitch + above.margin + above.before + above.after - above.native
    read = stage.native + stage.pitch * max(-(-(sees + above.pitch - 1) // above.pitch), 0)
    return min(read + high * stage.pitch - 1, stage.native + stage.pitch * steps)


def _region(stage: Stage, steps: int, first: int, last: int) -> tuple[int, int]:
    """The region of a map's input, along an axis, for which cells `first` to `last` - 1 of the map are right.

    The map grows by `steps`.

    Returns:
        The step where the region starts, and the steps that it grows by.
    """
    start = min(max((first - stage.before) // stage.pitch, 0), steps)
    lacking = last + stage.after - stage.native - start * stage.pitch
    return start, min(max(-(-lacking // stage.pitch), 0), steps - start)
