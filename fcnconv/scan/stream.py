"""Streams the map of a plan: executes the plan, and joins its scales or computes a map of feature cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import numpy as np

from fcnconv.grid import Grid
from fcnconv.options import Join, MapKind
from fcnconv.provenance import DENSE, Agreement
from fcnconv.scan.agreement import AgreementEstimator
from fcnconv.scan.execute import Executor, execute
from fcnconv.scan.focus import ScannedScales, focused_blocks
from fcnconv.scan.multiscale import joined
from fcnconv.scan.plan import ScanPlan
from fcnconv.scores import Block, Classification, MapInfo, Mask, ScoreStream
from fcnconv.system.once import once


def stream_plan(
    plan: ScanPlan,
    executor: Executor,
    join: Join,
    temperature: float,
    answer: Callable[[ScannedScales | None], Classification],
) -> ScoreStream:
    """Streams the map of a plan. Nothing is scanned until the pieces of the map are read.

    Args:
        plan: the plan.
        executor: where the network runs.
        join: how several scales are joined.
        temperature: divides the logits before they become probabilities.
        answer: gives the answer of `classify` for the image, from the scanned scales if they are given: all
            windows of the dense map.
    """
    scales = plan.grids if len(plan.grids) > 1 else ()
    info = MapInfo(
        plan.finest,
        plan.labels,
        plan.provenance,
        temperature=temperature,
        scales=scales,
        source=plan.source,
        join=join if scales else None,
        roi=plan.roi.record,
    )
    tally = AgreementEstimator(activation=plan.labels.activation)
    if plan.kind == "windows":
        blocks = execute(plan, executor, tally)
        if scales:
            blocks = joined(blocks, scales, join, temperature, plan.labels)
        return ScoreStream(replace(info, answer=once(partial(answer, None))), blocks, tally.agreement)
    levels = ScannedScales(list(plan.tilings), plan.network.cell_head.cells, len(plan.labels))
    blocks = execute(plan, executor, tally, levels.take)
    known = levels if plan.correction == DENSE and not plan.inside else None
    info = replace(info, answer=once(partial(answer, known)))
    return _LevelMaps(info, levels, blocks, plan.roi.cells, tally.agreement).stream(plan.kind)


@dataclass(frozen=True)
class _LevelMaps:
    """The maps of all kinds that one scan with class activations gives.

    The streams refer to this object, and it refers to no stream. In a cycle of references, the results of
    each scan would stay in memory until Python looks for cycles, many images later.

    Attributes:
        info: the map of windows.
        levels: hold the results once `blocks` have been consumed.
        blocks: the blocks of the scan.
        where: grid -> bool (rows, cols), the cells inside the region of interest; None means all.
        compared: gives the agreement with crops.
    """

    info: MapInfo
    levels: ScannedScales
    blocks: Iterable[Block]
    where: Callable[[Grid], Mask | None]
    compared: Callable[[], Agreement | None] | None

    def stream(self, kind: MapKind) -> ScoreStream:
        """The map of feature cells, or of windows."""
        info = self.info
        grid = info.grid if kind == "windows" else info.grid.cells(self.levels.cells)
        others = {other: partial(self.stream, other) for other in get_args(MapKind) if other != kind}
        temperature = info.temperature if kind == "windows" else 1.0
        scales = () if kind == "activations" else info.scales
        join = info.join if kind == "windows" else None
        own = replace(
            info, grid=grid, temperature=temperature, scales=scales, join=join, kind=kind, others=others
        )
        return ScoreStream(own, self._made(kind, grid), self.compared)

    def _made(self, kind: MapKind, grid: Grid) -> Iterator[Block]:
        info, levels = self.info, self.levels
        levels.hold(self.blocks)
        if kind == "focused":
            yield from focused_blocks(
                [*levels.levels.values()], info.temperature, info.labels.activation, self.where(grid)
            )
        elif kind == "activations":
            block = levels.activations(info.grid)
            if (inside := self.where(grid)) is not None:
                block = replace(block, logits=np.where(inside[:, :, None], block.logits, np.nan))
            yield block
        elif info.scales:
            each = map(levels.windows, levels.levels)  # in scanning order: the finest last
            yield from joined(each, info.scales, info.join or "finest", info.temperature, info.labels)
        else:
            yield levels.windows(info.grid)
