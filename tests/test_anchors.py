"""Correction by anchors against naive loops, on synthetic maps whose crops are known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnconv.grid import Grid
from fcnconv.scan.agreement import AgreementEstimator
from fcnconv.scan.anchors import Anchors, anchor_lines, corrected, no_dense
from fcnconv.scan.rectangles import _stretches
from fcnconv.scan.refine import least_sure, put_in
from fcnconv.scores import Block

CLASSES = 5
NO_SAMPLE = {"sample": 0}


class Crops:
    """A map whose crops are known, and which of them were scored."""

    def __init__(self, rows: int, cols: int, phases: int = 1, seed: int = 0):
        generator = np.random.default_rng(seed)
        size = (16 + 4 * (cols - 1), 16 + 4 * (rows - 1))
        self.grid = Grid(16, 4, size, size, phases)
        self.logits = generator.normal(size=(rows, cols, CLASSES)).astype(np.float32)
        self.dense = self.logits + generator.normal(size=self.logits.shape).astype(np.float32)
        self.scored: list[int] = []

    def score(self, cells: np.ndarray) -> np.ndarray:
        assert len(cells) and (np.diff(cells) > 0).all(), "crops of one row are read together only in order"
        self.scored += cells.tolist()
        return self.logits.reshape(-1, CLASSES)[cells]

    def blocks(self, high: int = 1000, wide: int = 1000) -> Iterator[Block]:
        """The dense map in tiles, in the order of a scan."""
        for down in _stretches(self.grid.rows, self.grid):
            for across in _stretches(self.grid.cols, self.grid):
                for rows in down.spans(high):
                    for cols in across.spans(wide):
                        y, x = down.place(rows), across.place(cols)
                        yield Block(self.grid, y, x, self.dense[y, x].copy())

    def corrected(self, anchors: Anchors, high: int = 1000, wide: int = 1000) -> tuple[np.ndarray, ...]:
        return collect(
            self.grid, corrected(self.blocks(high, wide), self.score, anchors, AgreementEstimator())
        )


def collect(grid: Grid, blocks: Iterator[Block]) -> tuple[np.ndarray, np.ndarray]:
    logits = np.full((grid.rows, grid.cols, CLASSES), np.nan, np.float32)
    exact = np.zeros((grid.rows, grid.cols), bool)
    for block in blocks:
        assert block.exact is not None and block.exact.shape == block.logits.shape[:2]
        assert np.isnan(logits[block.rows, block.cols]).all(), "a cell came twice"
        logits[block.rows, block.cols] = block.logits
        exact[block.rows, block.cols] = block.exact
    assert not np.isnan(logits).any(), "a cell did not come"
    return logits, exact


def naive(crops: Crops, every: int, share: float) -> np.ndarray:
    """Each cell by itself, from the four anchors around it."""
    grid = crops.grid
    rows, cols = (anchor_lines(count, every, grid.phases) for count in (grid.rows, grid.cols))
    residuals = crops.logits - share * crops.dense
    result = np.empty_like(crops.logits)
    for y in range(grid.rows):
        for x in range(grid.cols):
            for k in range(CLASSES):
                along = [np.interp(x, cols, residuals[row, cols, k]) for row in rows]
                result[y, x, k] = np.interp(y, rows, along) + share * crops.dense[y, x, k]
    return result


SHAPE = {"rows": st.integers(1, 30), "cols": st.integers(1, 30)}
EVERY, PHASES = st.integers(1, 7), st.sampled_from([1, 2, 4])


@given(count=st.integers(1, 300), every=st.integers(1, 9), phases=PHASES)
def test_lines_of_anchors(count: int, every: int, phases: int) -> None:
    lines = anchor_lines(count, every, phases).tolist()
    own = list(range(0, count, phases))
    assert lines[0] == 0 and lines[-1] == own[-1] and set(lines) <= set(own)
    gaps = [(b - a) // phases for a, b in pairwise(lines)]
    assert all(1 <= gap <= every + 1 for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1, "gaps are even"
    assert sum(gaps) <= every * 1.05 * len(gaps), "the mean gap is K, or a twentieth more"
    if len(own) < every or every == 1:
        assert lines == own


def test_lines_of_a_photo_and_of_a_large_one() -> None:
    assert anchor_lines(6, 4).tolist() == [0, 2, 5]
    assert anchor_lines(12, 4).tolist() == [0, 4, 7, 11]
    assert len(anchor_lines(26, 4)) == 7  # not 8, whose gaps would be 3.6
    assert anchor_lines(4, 4).tolist() == [0, 2, 3]
    assert anchor_lines(13, 3, phases=2).tolist() == [0, 6, 12]


@settings(max_examples=60)
@given(**SHAPE, every=EVERY, phases=PHASES, high=st.integers(1, 12), wide=st.integers(1, 12))
def test_blocks_are_corrected_as_each_cell_by_itself(
    rows: int, cols: int, every: int, phases: int, high: int, wide: int
) -> None:
    crops = Crops(rows, cols, phases)
    logits, exact = crops.corrected(Anchors(every, sample=0), high, wide)
    expected = crops.dense if rows == cols == 1 else naive(crops, every, Anchors(every).dense)
    assert np.abs(logits - expected).max() < 1e-5
    anchors = np.ix_(anchor_lines(rows, every, phases), anchor_lines(cols, every, phases))
    assert exact[anchors].all() and exact.sum() == exact[anchors].size
    if rows * cols > 1:
        assert (logits[exact] == crops.logits[exact]).all(), "an exact cell is its crop's, to the last bit"
        assert sorted(crops.scored) == np.flatnonzero(exact).tolist(), "each crop is scored once"


@settings(max_examples=30)
@given(**SHAPE, every=EVERY, phases=PHASES)
def test_without_a_dense_map_crops_are_interpolated(rows: int, cols: int, every: int, phases: int) -> None:
    crops = Crops(rows, cols, phases)
    blocks = no_dense(crops.grid, CLASSES, every)
    logits, exact = collect(
        crops.grid, corrected(blocks, crops.score, Anchors(every, dense=0, sample=0), AgreementEstimator())
    )
    assert np.abs(logits - naive(crops, every, 0)).max() < 1e-5
    assert sorted(crops.scored) == np.flatnonzero(exact).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 3), (2, 1)])
def test_a_map_of_fewer_windows_than_k_is_all_exact(shape: tuple[int, int]) -> None:
    crops = Crops(*shape)
    tally = AgreementEstimator()
    logits, exact = collect(crops.grid, corrected(crops.blocks(), crops.score, Anchors(4), tally))
    assert exact.all()
    if shape == (1, 1):
        assert not crops.scored and (logits == crops.dense).all(), "one window is the classifier already"
    else:
        assert (logits == crops.logits).all()
    agreement = tally.agreement()
    assert agreement is not None
    assert (agreement.low, agreement.first_class, agreement.high, agreement.divergence) == (1, 1, 1, 0)


def test_a_dense_map_that_is_off_by_a_slope_is_made_true() -> None:
    crops = Crops(20, 30)
    y, x = np.mgrid[:20, :30]
    slope = np.float32(1) + 0.1 * y + 0.3 * x
    crops.dense = crops.logits + slope[:, :, None].astype(np.float32)
    logits, _ = crops.corrected(Anchors(4, dense=1, sample=0))
    assert np.abs(logits - crops.logits).max() < 1e-5


def test_only_rows_between_anchors_are_held() -> None:
    crops = Crops(60, 40)
    given = 0

    def counted() -> Iterator[Block]:
        nonlocal given
        for block in crops.blocks(high=1):
            given = block.rows.stop
            yield block

    for block in corrected(counted(), crops.score, Anchors(4, sample=0), AgreementEstimator()):
        assert given == block.rows.stop, "rows come as soon as their row of anchors"
        assert block.rows.stop - block.rows.start <= 5


@settings(max_examples=40)
@given(**SHAPE, every=EVERY, share=st.floats(0, 1), high=st.integers(1, 12), wide=st.integers(1, 12))
def test_a_share_is_refined(rows: int, cols: int, every: int, share: float, high: int, wide: int) -> None:
    crops = Crops(rows, cols)
    logits, exact = crops.corrected(Anchors(every, refine=share, sample=0), high, wide)
    if rows * cols == 1:
        return
    assert len(crops.scored) == len(set(crops.scored)) == exact.sum()
    anchors = len(anchor_lines(rows, every)) * len(anchor_lines(cols, every))
    assert exact.sum() - anchors <= round(share * rows * cols)
    if share == 1:
        assert exact.all()
    assert (logits[exact] == crops.logits[exact]).all()


def test_refined_cells_are_those_of_least_margin() -> None:
    crops = Crops(24, 24)
    plain, anchors = crops.corrected(Anchors(4, **NO_SAMPLE))
    _, exact = crops.corrected(Anchors(4, refine=0.2, **NO_SAMPLE))
    refined = exact & ~anchors
    assert refined.sum() == round(0.2 * 24 * 24)
    first, second = np.sort(plain, -1)[..., :-3:-1].transpose(2, 0, 1)
    margin = first - second
    assert margin[refined].max() <= margin[~exact].min()


def test_the_least_sure_of_one_class_are_not_exact_ones() -> None:
    exact = np.array([[True, False, True, False]])
    assert least_sure(np.zeros((1, 4, 1), np.float32), exact, 2).tolist() == [1, 3]
    assert least_sure(np.zeros((1, 4, 3), np.float32), exact, 9).tolist() == [1, 3]
    assert least_sure(np.zeros((1, 4, 3), np.float32), exact, 0).tolist() == []


def test_a_refined_cell_tells_its_neighbours() -> None:
    logits = np.zeros((5, 5, 2), np.float32)
    exact = np.zeros((5, 5), bool)
    exact[2, 3] = True
    put_in(logits, exact, np.array([12]), np.array([[1.0, -1.0]], np.float32))
    assert logits[2, 2].tolist() == [1, -1] and exact[2, 2]
    assert not logits[2, 3].any(), "an exact cell stays as it is"
    side, corner = np.exp(-1), np.exp(-np.sqrt(2))
    assert logits[2, 1, 0] == pytest.approx(side / (side + 0.2))
    assert logits[1, 2, 0] == pytest.approx(side / (side + corner + 0.2)), "the exact one beside it was right"
    assert not logits[0].any() and not logits[4].any()


def test_neighbours_of_two_refined_cells_take_the_mean() -> None:
    logits, exact = np.zeros((1, 3, 1), np.float32), np.zeros((1, 3), bool)
    put_in(logits, exact, np.array([0, 2]), np.array([[1.0], [3.0]], np.float32))
    side = np.exp(-1)
    assert logits[0, 1, 0] == pytest.approx(side * (1 + 3) / (2 * side + 0.2))


@settings(max_examples=30)
@given(
    **SHAPE, phases=PHASES, high=st.integers(1, 12), wide=st.integers(1, 12), refine=st.sampled_from([0, 0.2])
)
def test_the_sample_is_compared_before_it_is_put_in(
    rows: int, cols: int, phases: int, high: int, wide: int, refine: float
) -> None:
    crops = Crops(rows, cols, phases)
    plain, first = crops.corrected(Anchors(4, refine=refine, sample=0), high, wide)
    crops.scored.clear()
    tally = AgreementEstimator()
    logits, exact = collect(
        crops.grid,
        corrected(crops.blocks(high, wide), crops.score, Anchors(4, refine=refine, sample=9, seed=3), tally),
    )
    assert (tally.cells, tally.exact) == (exact.size, exact.sum())
    drawn = exact & ~first
    assert tally.same == (plain[drawn].argmax(-1) == crops.logits[drawn].argmax(-1)).sum()
    assert len(tally.divergences) == drawn.sum() and (drawn.sum() == min(9, (~first).sum()) or refine)
    assert (logits[drawn] == crops.logits[drawn]).all()
    assert (logits[~drawn] == plain[~drawn]).all(), "the sample changes no other cell: it speaks for them"


def test_the_sample_does_not_depend_on_the_image_or_the_tiles() -> None:
    masks = [
        Crops(20, 20, seed=seed).corrected(Anchors(4, sample=16, seed=7), tile, tile)[1]
        for seed, tile in ((0, 1000), (1, 6))
    ]
    assert (masks[0] == masks[1]).all()
    other = Crops(20, 20).corrected(Anchors(4, sample=16, seed=8))[1]
    assert (masks[0] != other).any()
