"""Executes the plan of a scan: computes its blocks, here or on other machines, and corrects them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fcnconv.grid import Grid
from fcnconv.images import ImageSource
from fcnconv.provenance import DENSE
from fcnconv.scan.blocks import scan
from fcnconv.scan.crops import CROPS, crops_alone, score_crops
from fcnconv.scan.network import Network
from fcnconv.scan.plan import ScanPlan, size_text
from fcnconv.scan.stages import Forward
from fcnconv.scores import Block, FloatArray
from fcnconv.scores.activations import check_outputs
from fcnconv.system.progress import expect, finished

if TYPE_CHECKING:
    from fcnconv.scan.agreement import AgreementEstimator

log = logging.getLogger("fcnconv")


class Executor(Protocol):
    """Where the network runs: in this process, or on many machines."""

    def get_ready(self, plan: ScanPlan) -> None:
        """Opens what the plan needs, if that takes long, before the scan begins."""

    def blocks(self, plan: ScanPlan) -> Iterator[Block]:
        """Yields the blocks of the dense map, grid by grid in the order of `ScanPlan.tilings`."""

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        """The logits of single windows as crops.

        Args:
            source: the image.
            grid: the grid of the windows.
            cells: the numbers of the windows in the grid, counted row by row.

        Returns:
            float32 (len(cells), num_classes).
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Runs the network in this process.

    Attributes:
        network: the network.
        open_crops: opens the network that scores crops, once it is needed.
    """

    network: Network
    open_crops: Callable[[], Forward]

    def get_ready(self, plan: ScanPlan) -> None:
        if any(plan.crops.values()):
            self.open_crops()  # making its plan takes seconds

    def blocks(self, plan: ScanPlan) -> Iterator[Block]:
        return scan(plan.source, plan.tilings, self.network.prepare, plan.tilings.__getitem__)

    def crops(self, source: ImageSource, grid: Grid, cells: npt.NDArray[np.int64]) -> FloatArray:
        return score_crops(source, grid, cells, self.open_crops(), self.network.prepare)


def execute(
    plan: ScanPlan,
    executor: Executor,
    tally: AgreementEstimator | None = None,
    take: Callable[[Block], Block] | None = None,
) -> Iterator[Block]:
    """Executes a plan: the blocks of its grids, corrected, the finest grid last.

    Nothing is scanned until the blocks are read.

    Args:
        plan: the plan.
        executor: where the network runs.
        tally: receives the comparisons with crops of a corrected map.
        take: receives each block of the dense map, and returns it.
    """
    executor.get_ready(plan)
    expect(*plan.works())
    return _blocks(plan, executor, tally, take)


def _blocks(
    plan: ScanPlan,
    executor: Executor,
    tally: AgreementEstimator | None,
    take: Callable[[Block], Block] | None,
) -> Iterator[Block]:
    inside, windows = plan.inside, plan.network.mode == "windows"
    if windows and not plan.is_dense:
        if inside:
            for grid in plan.tilings:
                yield from crops_alone(grid, len(plan.labels), inside[grid], _scorer(plan, executor, grid))
        else:
            yield from _dense(plan, executor)
    elif windows or not plan.is_dense:
        yield from _corrected(plan, executor, None, tally)
    else:
        dense = _dense(plan, executor)
        taken = map(take, dense) if take else dense
        unchanged = plan.correction == DENSE and not inside
        yield from taken if unchanged else _corrected(plan, executor, taken, tally)
    finished(CROPS)


def _corrected(
    plan: ScanPlan, executor: Executor, dense: Iterator[Block] | None, tally: AgreementEstimator | None
) -> Iterator[Block]:
    """The blocks of the dense map, corrected; None for `dense` is a map that is made of crops alone."""
    from fcnconv.scan.agreement import AgreementEstimator
    from fcnconv.scan.correction import correct  # a classification needs no correction

    tally = tally or AgreementEstimator(activation=plan.labels.activation)
    each: Iterable[tuple[Grid, Iterator[Block] | None]] = ((grid, None) for grid in plan.tilings)
    if dense:
        each = groupby(dense, key=lambda block: block.grid)
    for grid, blocks in each:
        score, inside = _scorer(plan, executor, grid), plan.inside.get(grid)
        yield from correct(grid, len(plan.labels), blocks, score, plan.correction, tally, inside)


def _dense(plan: ScanPlan, executor: Executor) -> Iterator[Block]:
    """The blocks of the network; the first that has scores is checked."""
    _warn(plan)
    checked = False
    for block in executor.blocks(plan):
        if not checked and not np.isnan(block.logits).all():
            _checked(plan, block.logits)
            checked = True
        yield block


def _scorer(plan: ScanPlan, executor: Executor, grid: Grid) -> Callable[[npt.NDArray[np.int64]], FloatArray]:
    """The function that scores windows of a grid as crops."""
    score = partial(executor.crops, plan.source, grid)
    return lambda cells: _checked(plan, score(cells))


def _checked(plan: ScanPlan, logits: FloatArray) -> FloatArray:
    check_outputs(logits, plan.labels.activation, plan.network.identity.model)
    return logits


def _warn(plan: ScanPlan) -> None:
    """Logs what the user should know about how the plan cuts the image."""
    geometry = plan.network.geometry
    for tiling in plan.tilings.values():
        if tiling.tiles > 1 and not geometry.local:
            log.warning(
                "%s looks at the whole image (%s), which is scanned in %d tiles: scores depend on the "
                "tiling; raise --max-memory for a single tile",
                *(plan.network.identity.model, geometry.cause or "one of its operations", tiling.tiles),
            )
        if tiling.memory > plan.memory:
            log.warning(
                "%s of memory are not enough; this scan takes about %s, which is the minimum",
                *(size_text(plan.memory), size_text(tiling.memory)),
            )
