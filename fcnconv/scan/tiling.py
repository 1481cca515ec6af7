"""Chooses how a scan is cut: not at all if memory allows, else into stages and blocks that fit."""

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
"""The share of the free memory that a scan takes at most by default."""

ENOUGH = 2e9
"""Bytes beyond which a network that can be cut becomes slower instead of faster, because its maps leave the
processor's caches and new memory must be cleared (6000 × 6000 px: 7.8 s within 1 GB, 6.7 s within 2, 8.5 s
within 4, 11.3 s within 8).
"""

QUICK = 100e6
"""Bytes that a block of a stage takes at most. Larger blocks leave the processor's caches and take up to half
as much time again (EfficientNet-Lite0 in ONNX Runtime, its second to seventh stage: least time from 20 to 110
MB, a third more from 200 MB on; in bfloat16 the same from 20 to 1000 MB).
"""

SLACK = 1.15
"""The memory of the feature maps, the kernels and the allocator, as a factor of the feature maps (measured).
"""

KEPT_SLACK, FIXED = 1.1, 350e6
"""The same factor for the maps between stages; and the bytes that every scan in stages needs for decoded
tiles of the image and for the holes that arrays of changing sizes leave (both measured).
"""

_FRACTIONS = (10.0, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.09, 0.06, 0.04, 0.03, 0.02, 0.01)

_SHARES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)


@dataclass(frozen=True)
class Stages:
    """The two ways to run a network: whole, or in stages.

    Attributes:
        whole: the network as a single stage.
        cut: gives the stages, which may take seconds to make. A network that looks at the whole image has a
        single stage: large tiles change its scores less than the thin strips would that are the blocks of
            stages.
    """

    whole: Stage
    cut: Callable[[], tuple[Stage, ...]]


@dataclass(frozen=True)
class Tiling:
    """How a grid is computed.

    Attributes:
        stages: the network, whole or in stages.
        blocks: (down, across) of each stage's blocks, in steps of the grid.
        memory: bytes expected at the worst moment, in addition to the image and the scores.
        multiply_adds: work, including the halos.
        tiles: number of blocks of the last stage.
        needed: bool (rows, cols), the cells of the grid that are computed; None means all.
    """

    stages: tuple[Stage, ...]
    blocks: tuple[tuple[int, int], ...]
    memory: float
    multiply_adds: float
    tiles: int
    needed: Mask | None = field(default=None, repr=False, compare=False)

    @property
    def in_stages(self) -> bool:
        """Whether the network is cut into stages."""
        return len(self.stages) > 1


COARSE_SHARE = 0.3
"""The share of the memory beyond `FIXED` that the coarser of several scales may take, because ONNX Runtime
keeps this memory while the finest scale is scanned (20000 × 20000 px at all scales: 2.6 GB in total instead
of 3.7). All scales together need `FIXED` once. If it counted within the share, a photo of 4 megapixels in
0.67 GB would have blocks so small that the coarser scales took twice the time of the finest.
"""


SPARSE_BLOCKS = (64, 32, 16, 8)
"""Sides of blocks that are tried, in steps, if not all cells are needed."""


def choose_all(
    stages: Stages, grids: Sequence[Grid], memory: float, needed: Mapping[Grid, Mask] | None = None
) -> dict[Grid, Tiling]:
    """Chooses how the grids of a scan are computed within `memory` bytes.

    Each grid is computed whole if that fits. If one does not fit, all are computed in stages and blocks,
    because the network whole and the network in stages would each hold memory of their own.

    Args:
        stages: the network.
        grids: the grids of the scan.
        memory: bytes.
        needed: for a grid, bool (rows, cols): the cells that are computed, if not all.
    """

    def tiling(grid: Grid, limit: float = memory, *, in_stages: bool = False) -> Tiling:
        steps = (grid.rows - 1) // grid.phases, (grid.cols - 1) // grid.phases
        chosen = choose(stages, steps, limit, in_stages=in_stages)
        cells = needed.get(grid) if needed else None
        return chosen if cells is None else _sparse(stages, grid, steps, chosen, cells)

    tilings = {grid: tiling(grid) for grid in grids}
    if any(chosen.in_stages for chosen in tilings.values()):
        finest, coarse = finest_of(grids), min(FIXED + COARSE_SHARE * (memory - FIXED), memory)
        tilings = {grid: tiling(grid, memory if grid == finest else coarse, in_stages=True) for grid in grids}
    return tilings


def _sparse(stages: Stages, grid: Grid, steps: tuple[int, int], chosen: Tiling, needed: Mask) -> Tiling:
    """The tiling of least work, no larger than `chosen`, if some cells are needed and others are not.

    If half of its work or more would be halo, the network is cut into stages, which have smaller halos.
    """

    def fitted(tiling: Tiling) -> Tiling:
        return replace(
            tiling, multiply_adds=sum(work(grid, tiling.stages, tiling.blocks, needed)), needed=needed
        )

    def tried(stages: tuple[Stage, ...]) -> list[Tiling]:
        ways = (_tiling(stages, steps, ((side, side),) * len(stages)) for side in SPARSE_BLOCKS)
        return [fitted(tiling) for tiling in ways if tiling.memory <= chosen.memory]

    ways = [fitted(chosen), *tried((stages.whole,))]
    best = min(ways, key=lambda tiling: tiling.multiply_adds)
    least = stages.whole.multiply_adds * float(needed.sum()) / grid.phases**2
    if chosen.in_stages or best.multiply_adds > 2 * least:
        best = min([best, *tried(stages.cut())], key=lambda tiling: tiling.multiply_adds)
    return best


def choose(
    stages: Stages, steps: tuple[int, int], limit: float, tile: int | None = None, *, in_stages: bool = False
) -> Tiling:
    """The tiling of least work within `limit` bytes; the smallest there is, if none fits.

    Args:
        stages: the network.
        steps: (down, across), the size of the grid in excess of one window, in native strides.
        limit: bytes.
        tile: side of a tile in steps, to use instead of the best one.
        in_stages: whether to run the network in stages even if it could be whole.
    """
    if tile is not None:
        return _tiling((stages.whole,), steps, ((tile, tile),))
    all_of_it = _tiling((stages.whole,), steps, ((steps[0] + 1, steps[1] + 1),))
    if all_of_it.memory <= limit and not in_stages:
        return all_of_it
    ways = {stages.cut()} if in_stages else {(stages.whole,), stages.cut()}
    tried = [
        _tiling(
            stages, steps, tuple(map(partial(_block, steps, _held(stages, limit * share)), stages, heights))
        )
        for stages in ways
        for share in _SHARES
        for heights in _heights(stages, steps[0] + 1)
    ]
    fitting = [tiling for tiling in tried if tiling.memory <= limit]
    if fitting:
        return min(fitting, key=lambda tiling: tiling.multiply_adds)
    return min(tried, key=lambda tiling: tiling.memory)


def _heights(stages: tuple[Stage, ...], down: int) -> list[list[int]]:
    """Heights of blocks to choose from, in steps for each stage, that minimise the halo for the rows they
    keep.

    For blocks of h rows, the work on the halo is proportional to 1 / h, and the memory for the rows that are
    kept by the stage and for it is proportional to h. So the best h is the root of the ratio of both, times
    the price of memory.
    """
    if len(stages) == 1:
        return [[down]]
    sizes = [stage.channels * stage.pitch**2 for stage in stages]
    sizes[-1] = 0  # its output is passed on at once
    kept = [2 * own + below for own, below in zip(sizes, [0, *sizes], strict=False)]
    ratios = [sqrt(stage.multiply_adds * stage.halo / size) for stage, size in zip(stages, kept, strict=True)]
    tallest = max(ratios)
    return [
        [min(max(round(down * ratio / tallest * share), 1), down) for ratio in ratios] for share in _FRACTIONS
    ]


def _held(stages: Sequence[Stage], memory: float) -> float:
    """The bytes of `memory` that the feature maps of a block may take.

    A network that is not cut has halos of hundreds of pixels, so large blocks save more than the caches
    would.
    """
    return min(memory / SLACK, QUICK) if len(stages) > 1 else memory / SLACK


def _block(steps: tuple[int, int], memory: float, stage: Stage, highest: int) -> tuple[int, int]:
    """The block of least halo within `memory`: as wide as the grid, or a half, a third, … of it."""
    down, across = (n + 1 for n in steps)
    area = memory / stage.memory
    best = (float("inf"), (1, 1))
    for pieces in range(1, across + 1):
        wide = ceil(across / pieces)
        high = min(int(area / (wide + stage.halo) - stage.halo), down, highest)
        if high < 1:
            continue
        work = (wide + stage.halo * (pieces > 1)) * (high + stage.halo * (high < down)) / (wide * high)
        best = min(best, (work, (high, wide)))
        if wide < stage.halo:
            break
    return best[1]


def _tiling(stages: tuple[Stage, ...], steps: tuple[int, int], blocks: tuple[tuple[int, int], ...]) -> Tiling:
    kept = held = worst = work = 0.0
    for i, (stage, (high, wide)) in enumerate(zip(stages, blocks, strict=True)):
        down, across = (n + 1 for n in steps)
        high, wide = min(high, down), min(wide, across)
        region = min(high + stage.halo, down + stage.span) * min(wide + stage.halo, across + stage.span)
        # an output block is copied while the one before it is still worked on
        out = 0.0 if i + 1 < len(stages) else 8.0 * stage.channels * stage.pitch**2 * high * wide
        block = SLACK * stage.memory * region
        held += block if stage.holds else 0.0
        worst = max(worst, (0.0 if stage.holds else block) + out * (len(stages) > 1))
        work += stage.multiply_adds * region * (ceil(down / high) * ceil(across / wide))
        if i + 1 < len(stages):
            rows = rows_kept(stage, high, stages[i + 1], blocks[i + 1][0], steps[0])
            kept += 4.0 * stage.channels * rows * (stage.native + stage.pitch * steps[1])
    high, wide = blocks[-1]
    tiles = ceil((steps[0] + 1) / max(high, 1)) * ceil((steps[1] + 1) / max(wide, 1))
    return Tiling(stages, blocks, KEPT_SLACK * kept + held + worst + FIXED * (len(stages) > 1), work, tiles)


def default_memory(local: bool) -> float:
    """Bytes that a scan takes by default. local: whether the network can be cut."""
    return min(SHARE_OF_FREE * free_memory(), ENOUGH if local else inf)
