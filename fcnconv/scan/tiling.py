"""Choosing how a scan is cut: in one piece if memory allows, else in parts and blocks that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, inf, sqrt

from fcnconv.grid import Grid, finest_of
from fcnconv.scan.rectangles import work
from fcnconv.scan.stages import Stage, rows_kept
from fcnconv.scores import Mask
from fcnconv.system.machine import free_memory

SHARE_OF_FREE = 0.5
"""Of the memory that is free, the part that a scan takes at most if it is not told how much."""

ENOUGH = 2e9
"""Bytes over which a network that can be cut is not faster any more but slower, as its maps leave the
processor's caches and new memory must be cleared (6000 × 6000 px: 7.8 s within 1 GB, 6.7 s within 2, 8.5 s
within 4, 11.3 s within 8).
"""

QUICK = 100e6
"""Bytes that a block of a part takes at most: larger ones leave the processor's caches, at half as much time
again (EfficientNet-Lite0 in ONNX Runtime, its second to seventh part: least from 20 to 110 MB, a third more
from 200 on; in bfloat16 the same from 20 to 1000).
"""

SLACK = 1.15
"""What the kernels and the allocator need beside the feature maps, as a factor of these (measured)."""

KEPT_SLACK, FIXED = 1.1, 350e6
"""The same for the maps between parts; and what every scan in parts needs, for decoded tiles of the image
and the holes that arrays of changing sizes leave (both measured).
"""

_FRACTIONS = (10.0, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.09, 0.06, 0.04, 0.03, 0.02, 0.01)

_SHARES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)


@dataclass(frozen=True)
class Stages:
    """The two ways to run a network: whole, or in parts.

    cut: gives the parts, which may take seconds to make. A network that looks at the whole image has one:
        large tiles change its scores less than the blocks of its parts would, each of which is a thin strip.
    """

    whole: Stage
    cut: Callable[[], tuple[Stage, ...]]


@dataclass(frozen=True)
class Tiling:
    """How a grid is computed.

    parts: the network, whole or in parts. blocks: (down, across) of each part, in steps of the grid.
    memory: bytes expected at the worst moment, beside the image and the scores.
    multiply_adds: work, with the halos.
    tiles: blocks of the last part.
    needed: bool (rows, cols), the cells of the grid that are computed; None are all.
    """

    parts: tuple[Stage, ...]
    blocks: tuple[tuple[int, int], ...]
    memory: float
    multiply_adds: float
    tiles: int
    needed: Mask | None = field(default=None, repr=False, compare=False)

    @property
    def in_parts(self) -> bool:
        """Whether the network is cut."""
        return len(self.parts) > 1


COARSE_SHARE = 0.4
"""Of the memory, what the coarser of several scales may take, as ONNX Runtime keeps it while the finest is
scanned (20000 × 20000 px at all scales: 2.6 GB in all instead of 3.7).
"""


SPARSE_BLOCKS = (64, 32, 16, 8)
"""Sides of blocks that are tried, in steps, where not all cells are needed."""


def choose_all(
    parts: Stages, grids: Sequence[Grid], memory: float, needed: Mapping[Grid, Mask] | None = None
) -> dict[Grid, Tiling]:
    """How the grids of a scan are computed within `memory` bytes: each whole if that fits; or, if one does
    not, all in parts and blocks, as the network whole and in parts would each hold memory of its own.

    needed: of a grid, bool (rows, cols): the cells that are computed, if not all.
    """

    def tiling(grid: Grid, share: float = 1, *, in_parts: bool = False) -> Tiling:
        steps = (grid.rows - 1) // grid.phases, (grid.cols - 1) // grid.phases
        chosen = choose(parts, steps, share * memory, in_parts=in_parts)
        cells = needed.get(grid) if needed else None
        return chosen if cells is None else _sparse(parts, grid, steps, chosen, cells)

    tilings = {grid: tiling(grid) for grid in grids}
    if any(chosen.in_parts for chosen in tilings.values()):
        finest = finest_of(grids)
        tilings = {grid: tiling(grid, 1 if grid == finest else COARSE_SHARE, in_parts=True) for grid in grids}
    return tilings


def _sparse(parts: Stages, grid: Grid, steps: tuple[int, int], chosen: Tiling, needed: Mask) -> Tiling:
    """The tiling of least work, no larger than `chosen`, where some cells are needed and others are not.

    The network is cut into parts, which have smaller halos, where half of its work or more would be halo.
    """

    def fitted(tiling: Tiling) -> Tiling:
        return replace(
            tiling, multiply_adds=sum(work(grid, tiling.parts, tiling.blocks, needed)), needed=needed
        )

    def tried(parts: tuple[Stage, ...]) -> list[Tiling]:
        ways = (_tiling(parts, steps, ((side, side),) * len(parts)) for side in SPARSE_BLOCKS)
        return [fitted(tiling) for tiling in ways if tiling.memory <= chosen.memory]

    ways = [fitted(chosen), *tried((parts.whole,))]
    best = min(ways, key=lambda tiling: tiling.multiply_adds)
    least = parts.whole.multiply_adds * float(needed.sum()) / grid.phases**2
    if chosen.in_parts or best.multiply_adds > 2 * least:
        best = min([best, *tried(parts.cut())], key=lambda tiling: tiling.multiply_adds)
    return best


def choose(
    parts: Stages, steps: tuple[int, int], limit: float, tile: int | None = None, *, in_parts: bool = False
) -> Tiling:
    """The tiling of least work within `limit` bytes; the smallest there is, if none fits.

    steps: (down, across), what the grid has beyond one window, in the network's own strides.
    tile: side of a tile in steps, instead of the choice.
    in_parts: whether the network is run in parts, also where it could be whole.
    """
    if tile is not None:
        return _tiling((parts.whole,), steps, ((tile, tile),))
    all_of_it = _tiling((parts.whole,), steps, ((steps[0] + 1, steps[1] + 1),))
    if all_of_it.memory <= limit and not in_parts:
        return all_of_it
    ways = {parts.cut()} if in_parts else {(parts.whole,), parts.cut()}
    tried = [
        _tiling(parts, steps, tuple(map(partial(_block, steps, _held(parts, limit * share)), parts, heights)))
        for parts in ways
        for share in _SHARES
        for heights in _heights(parts, steps[0] + 1)
    ]
    fitting = [tiling for tiling in tried if tiling.memory <= limit]
    if fitting:
        return min(fitting, key=lambda tiling: tiling.multiply_adds)
    return min(tried, key=lambda tiling: tiling.memory)


def _heights(parts: tuple[Stage, ...], down: int) -> list[list[int]]:
    """Heights of blocks to choose from, in steps for each part: those of least halo for the rows they keep.

    Of a part whose block has h rows, the halo is computed 1 / h times as often as the rows, and h more of
    them are kept for it, and by it: h is the root of the one over the other, times the price of memory.
    """
    if len(parts) == 1:
        return [[down]]
    sizes = [part.channels * part.pitch**2 for part in parts]
    sizes[-1] = 0  # it goes out as it comes
    kept = [2 * own + below for own, below in zip(sizes, [0, *sizes], strict=False)]
    ratios = [sqrt(part.multiply_adds * part.halo / size) for part, size in zip(parts, kept, strict=True)]
    tallest = max(ratios)
    return [
        [min(max(round(down * ratio / tallest * share), 1), down) for ratio in ratios] for share in _FRACTIONS
    ]


def _held(parts: Sequence[Stage], memory: float) -> float:
    """Of `memory`, what the feature maps of a block may take. A network that is not cut has halos of hundreds
    of pixels, so that large blocks cost it less than what the caches save.
    """
    return min(memory / SLACK, QUICK) if len(parts) > 1 else memory / SLACK


def _block(steps: tuple[int, int], memory: float, part: Stage, highest: int) -> tuple[int, int]:
    """The block of least halo within `memory`: as wide as the grid, or a half, a third, … of it."""
    down, across = (n + 1 for n in steps)
    area = memory / part.memory
    best = (float("inf"), (1, 1))
    for parts in range(1, across + 1):
        wide = ceil(across / parts)
        high = min(int(area / (wide + part.halo) - part.halo), down, highest)
        if high < 1:
            continue
        work = (wide + part.halo * (parts > 1)) * (high + part.halo * (high < down)) / (wide * high)
        best = min(best, (work, (high, wide)))
        if wide < part.halo:
            break
    return best[1]


def _tiling(parts: tuple[Stage, ...], steps: tuple[int, int], blocks: tuple[tuple[int, int], ...]) -> Tiling:
    kept = held = worst = work = 0.0
    for i, (part, (high, wide)) in enumerate(zip(parts, blocks, strict=True)):
        down, across = (n + 1 for n in steps)
        high, wide = min(high, down), min(wide, across)
        region = min(high + part.halo, down + part.span) * min(wide + part.halo, across + part.span)
        # of what goes out, a block is copied while the one before it is still worked on
        out = 0.0 if i + 1 < len(parts) else 8.0 * part.channels * part.pitch**2 * high * wide
        block = SLACK * part.memory * region
        held += block if part.holds else 0.0
        worst = max(worst, (0.0 if part.holds else block) + out * (len(parts) > 1))
        work += part.multiply_adds * region * (ceil(down / high) * ceil(across / wide))
        if i + 1 < len(parts):
            rows = rows_kept(part, high, parts[i + 1], blocks[i + 1][0], steps[0])
            kept += 4.0 * part.channels * rows * (part.native + part.pitch * steps[1])
    high, wide = blocks[-1]
    tiles = ceil((steps[0] + 1) / max(high, 1)) * ceil((steps[1] + 1) / max(wide, 1))
    return Tiling(parts, blocks, KEPT_SLACK * kept + held + worst + FIXED * (len(parts) > 1), work, tiles)


def default_memory(local: bool) -> float:
    """Bytes that a scan takes if it is not told how much. local: whether the network can be cut."""
    return min(SHARE_OF_FREE * free_memory(), ENOUGH if local else inf)
