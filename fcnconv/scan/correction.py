"""Makes a map agree with crops: corrects the dense blocks of one grid as the options ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fcnconv.errors import UsageError
from fcnconv.grid import Grid
from fcnconv.options import NetworkOptions, ScanOptions
from fcnconv.provenance import Activation, Anchored, Correction, Crops, Dense, Mode
from fcnconv.scan.agreement import AgreementEstimator, sample_size, sample_windows
from fcnconv.scan.anchors import (
    DENSE_SHARE,
    Anchors,
    Lines,
    Score,
    anchor_lines,
    corrected,
    needed_anchors,
    no_dense,
)
from fcnconv.scan.refine import asked_sample, first_guess, refine_until, refined
from fcnconv.scores import Block, Mask
from fcnconv.system.scratch import scratch_array

USUAL_ANCHORS = 4
"""The default K for a map that must agree with crops."""


def crops_of(correction: Correction, grid: Grid, inside: Mask | None = None) -> int:
    """The approximate number of crops that are scored on a grid; with `Anchored.agreement` it is a guess.

    Args:
        correction: the correction.
        grid: the grid.
        inside: bool (rows, cols), the cells inside the region of interest; None means all.
    """
    cells = grid.rows * grid.cols if inside is None else int(inside.sum())
    if isinstance(correction, Crops):
        return cells
    if grid.rows * grid.cols == 1:
        return 0  # the dense map of a single window is the crop
    if isinstance(correction, Dense):
        return round(correction.refine * cells)
    down, across = _lines(correction, grid)
    anchors = len(down) * len(across)
    if inside is not None:
        anchors = int(needed_anchors(down, across, inside).sum())
    scored = anchors + round(correction.refine * cells)
    if correction.agreement is None:
        return min(scored + sample_size(cells // grid.phases**2), cells)
    scored = min(scored + asked_sample(cells), cells)
    return scored + round(first_guess(cells, scored, correction.agreement))


def needed_cells(correction: Correction, grid: Grid, inside: Mask) -> Mask:
    """The cells of the dense map that the cells inside depend on: bool (rows, cols)."""
    if not isinstance(correction, Anchored):
        return inside
    down, across = _lines(correction, grid)
    needed = inside.copy()
    needed[np.ix_(down, across)] |= needed_anchors(down, across, inside)
    return needed


def _lines(correction: Anchored, grid: Grid) -> tuple[Lines, Lines]:
    down, across = (anchor_lines(n, correction.every, grid.phases) for n in (grid.rows, grid.cols))
    return down, across


def correction_of(options: ScanOptions, mode: Mode, activation: Activation = "softmax") -> Correction:
    """How far the options ask a map to be corrected.

    Args:
        options: the options of the map.
        mode: dense or windows.
        activation: the activation of the labels.

    Raises:
        UsageError: for options that would change nothing, or that ask for something that cannot be known.
    """
    windows = mode == "windows"
    anchors = options.anchors
    if anchors is None:
        anchors = 1 if windows else 0 if options.agreement is None else USUAL_ANCHORS
    if not 0 <= options.refine <= 1:
        raise UsageError(f"--refine {options.refine:g} is not a share of the windows; choose one from 0 to 1")
    if windows and not anchors:
        raise UsageError("--mode windows computes no dense map; leave out --anchors 0")
    if anchors == 1 and (options.refine or options.agreement is not None):
        raise UsageError("every window is scored as a crop already; leave out --refine and --agreement")
    if not anchors and options.agreement is not None:
        raise UsageError("--agreement corrects the map by anchors; leave out --anchors 0")
    if activation == "none" and (options.refine or options.agreement is not None):
        raise UsageError(
            "--activation none gives no measure of how sure a window is; leave out --refine and --agreement"
        )
    if anchors < 2 and options.seed:
        raise UsageError(
            "--seed draws the windows that check a corrected map, and this map has none; leave it out"
        )
    if anchors == 1:
        return Crops()
    if not anchors:
        return Dense(options.refine)
    return Anchored(anchors, options.refine, options.agreement, options.seed)


def check_together(
    network: NetworkOptions, options: ScanOptions, activation: Activation, *, raw: bool = False
) -> None:
    """Checks that the options of a scan fit the options of its network and the activation of its labels.

    raw: whether a picture also shows the unsmoothed map.

    Raises:
        UsageError: if they do not fit.
    """
    mode = network.mode or "fcn"
    correction = correction_of(options, mode, activation)
    if network.temperature not in (None, 1) and activation == "none":
        raise UsageError(
            "--temperature divides logits, and --activation none does not use logits; leave it out"
        )
    if network.temperature not in (None, 1) and mode == "fcn" and not isinstance(correction, Dense):
        raise UsageError("--temperature is for the dense map; add --anchors 0, or leave it out")
    if raw and network.stride is None:
        raise UsageError(
            "--raw only changes the smooth pictures of a finer stride; add --stride, or leave it out"
        )


def correct(
    grid: Grid,
    num_classes: int,
    blocks: Iterable[Block] | None,
    score: Score,
    correction: Correction,
    tally: AgreementEstimator,
    inside: Mask | None = None,
) -> Iterator[Block]:
    """Corrects the blocks of a grid.

    Args:
        grid: the grid of the blocks.
        num_classes: number of classes.
        blocks: the dense map, as `scan` yields it; None if there is no dense map.
        score: scores single windows.
        correction: how far the map is corrected.
        tally: receives the comparisons.
        inside: bool (rows, cols), the cells inside the region of interest; None means all. All other cells
            become NaN.

    Yields:
        The corrected blocks, each with the mask of its exact cells.
    """
    for block in _corrected(grid, num_classes, blocks, score, correction, tally, inside):
        if inside is not None:
            block.logits[~inside[block.rows, block.cols]] = np.nan
        yield block


def _corrected(
    grid: Grid,
    num_classes: int,
    blocks: Iterable[Block] | None,
    score: Score,
    correction: Correction,
    tally: AgreementEstimator,
    inside: Mask | None,
) -> Iterator[Block]:
    if isinstance(correction, Dense):
        assert blocks is not None  # a dense map has blocks
        share = correction.refine
        yield from refined(blocks, score, share, tally.activation, inside) if share else blocks
        return
    options = Anchored(1) if isinstance(correction, Crops) else correction
    every, asked = options.every, options.agreement
    anchors = Anchors(
        every,
        options.refine,
        sample=None if asked is None else 0,
        seed=options.seed,
        dense=0.0 if blocks is None else DENSE_SHARE,
    )
    if blocks is None:
        blocks = no_dense(grid, num_classes, every)
    if asked is None:
        yield from corrected(blocks, score, anchors, tally, inside)
        return
    uncounted = AgreementEstimator(activation=tally.activation)
    whole = _collected(grid, num_classes, corrected(blocks, score, anchors, uncounted, inside))
    rows, cols = (anchor_lines(count, every, grid.phases) for count in (grid.rows, grid.cols))
    count = asked_sample(grid.rows * grid.cols if inside is None else int(inside.sum()))
    sample = sample_windows((grid.rows, grid.cols), rows, cols, count, options.seed, inside)
    yield refine_until(whole, score, sample, asked, tally, inside)


def _collected(grid: Grid, num_classes: int, blocks: Iterable[Block]) -> Block:
    """The blocks as one block: in memory, or on disk if they are very large."""
    rows, cols = slice(0, grid.rows), slice(0, grid.cols)
    logits = scratch_array((grid.rows, grid.cols, num_classes))
    exact = np.zeros((grid.rows, grid.cols), np.bool_)
    for block in blocks:
        logits[block.rows, block.cols] = block.logits
        if block.exact is not None:
            exact[block.rows, block.cols] = block.exact
    return Block(grid, rows, cols, logits, exact)
