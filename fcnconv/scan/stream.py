"""Streams the map of a plan: executes the plan, and joins its scales or computes a map of feature cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
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
    return _level_stream(plan.kind, info, levels, blocks, plan.roi.cells, tally.agreement)


def _level_stream(
    kind: MapKind,
    info: MapInfo,
    levels: ScannedScales,
    blocks: Iterable[Block],
    where: Callable[[Grid], Mask | None],
    compared: Callable[[], Agreement | None] | None,
) -> ScoreStream:
    """The map of feature cells, or of windows, of a scan with class activations.

    Args:
        kind: the kind of map.
        info: the map of windows.
        levels: hold the results once `blocks` have been consumed.
        blocks: the blocks of the scan.
        where: grid -> bool (rows, cols), the cells inside the region of interest; None means all.
        compared: gives the agreement with crops.
    """

    def stream(wanted: MapKind) -> ScoreStream:
        grid = info.grid if wanted == "windows" else info.grid.cells(levels.cells)
        others = {other: partial(stream, other) for other in get_args(MapKind) if other != wanted}
        temperature = info.temperature if wanted == "windows" else 1.0
        scales = () if wanted == "activations" else info.scales
        join = info.join if wanted == "windows" else None
        own = replace(
            info, grid=grid, temperature=temperature, scales=scales, join=join, kind=wanted, others=others
        )
        return ScoreStream(own, made(wanted, grid), compared)

    def made(wanted: MapKind, grid: Grid) -> Iterator[Block]:
        levels.hold(blocks)
        if wanted == "focused":
            yield from focused_blocks(
                [*levels.levels.values()], info.temperature, info.labels.activation, where(grid)
            )
        elif wanted == "activations":
            block = levels.activations(info.grid)
            if (inside := where(grid)) is not None:
                block = replace(block, logits=np.where(inside[:, :, None], block.logits, np.nan))
            yield block
        elif info.scales:
            each = map(levels.windows, levels.levels)  # in scanning order: the finest last
            yield from joined(each, info.scales, info.join or "finest", info.temperature, info.labels)
        else:
            yield levels.windows(info.grid)

    return stream(kind)
